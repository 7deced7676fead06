"""What a composer reads from the tensors of modules: masks, relevance, and their heads in one matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modhub.calibration.calibrator import BY_MARGIN, BY_ODDS
from modhub.calibration.margins import margin_rows
from modhub.composition.heads import CALIBRATION_FIELDS, HeadTensors
from modhub.composition.parts import Part
from modhub.errors import CompositionError, IntegrityError
from modhub.nets import ChannelSpace, Mask


def mask_of(part: Part) -> Mask:
    """(slots,) True where the module keeps a channel."""
    return part.tensors.mask.bool().numpy()


def relevance_of(part: Part, space: ChannelSpace) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(slots,) how much each channel matters to the module; its mask when it does not say."""
    tensors = part.tensors
    relevance = (tensors.mask if tensors.relevance is None else tensors.relevance).double().numpy()
    if relevance.shape != (space.slots,):
        raise IntegrityError(
            f"The relevance of '{part.name}' does not match the channels of its trunk.",
            hint="Pull or decompose it again.",
        )
    return np.asarray(relevance, np.float64)


def head_tensors(head: Sequence[Part]) -> HeadTensors:
    """The rows and calibrations of one parent's modules. Raises `CompositionError` or `IntegrityError`."""
    tensors = [part.tensors for part in head]
    weights = torch.stack([of_module.head_weight for of_module in tensors])
    biases = torch.stack([of_module.head_bias for of_module in tensors])
    numbers = []
    for part in head:
        calibration = part.module.manifest.calibration
        if calibration.kind not in (BY_MARGIN, BY_ODDS):
            raise CompositionError(
                f"The module '{part.name}' has the calibration '{calibration.kind}', which this version of "
                "modhub does not know.",
                hint="Upgrade modhub.",
            )
        numbers.append([calibration.parameters.get(name, _DEFAULTS[name]) for name in CALIBRATION_FIELDS])
        numbers[-1][_THRESHOLD] = _threshold(part, len(head))
    siblings, sibling_bias = _siblings(head) or (None, None)
    rates = [part.module.manifest.calibration.parameters.get("false_accept") for part in head]
    return HeadTensors(
        rows=weights[:, 0],
        row_bias=biases[:, 0],
        rest=weights[:, 1],
        rest_bias=biases[:, 1],
        calibration=torch.tensor(numbers, dtype=torch.float32).T.contiguous(),
        adjustment=torch.tensor([1.0, 0.0], dtype=torch.float32),
        false_accept=None if None in rates else torch.tensor(rates, dtype=torch.float32),
        siblings=siblings,
        sibling_bias=sibling_bias,
    )


def _siblings(head: Sequence[Part]) -> tuple[Tensor, Tensor] | None:
    """(siblings, features) and (siblings,): the margins of the parent's classes that are not composed."""
    if any(part.module.manifest.calibration.kind != BY_ODDS for part in head):
        return None
    parent, features = head[0].module.manifest.parent, head[0].trunk.graph.features
    weight, bias = head[0].shared.parent_weight, head[0].shared.parent_bias
    if weight is None or bias is None or weight.shape != (len(parent.labels), features):
        raise IntegrityError(
            f"The head of '{parent.name}' is missing from the statistics of its trunk, or does not fit it.",
            hint="Pull or decompose it again.",
        )
    composed = {part.module.label for part in head}
    others = [row for row, label in enumerate(parent.labels) if label not in composed]
    if not others:
        return None
    rows, row_bias = margin_rows(weight, bias)
    return rows[others], row_bias[others]


def _threshold(part: Part, classes: int) -> float:
    """Of a class that is composed with others of its parent, `classes` in all.

    The largest of many margins is larger than the margin of one class, also on out-of-distribution images.
    Thresholds are known for one class and for all; between them they grow as the logarithm of their number.
    """
    parameters = part.module.manifest.calibration.parameters
    of_one = parameters.get("threshold", _DEFAULTS["threshold"])
    of_all = parameters.get("threshold_all", of_one)
    share = math.log(classes) / math.log(max(len(part.module.manifest.parent.labels), 2))
    return of_one + min(share, 1.0) * (of_all - of_one)


_DEFAULTS = {
    name: 1.0 if name in ("temperature", "slope") or name.endswith("_std") else 0.0
    for name in CALIBRATION_FIELDS
}
_THRESHOLD = CALIBRATION_FIELDS.index("threshold")
_STACKED = (("rows", "row_bias"), ("rest", "rest_bias"), ("siblings", "sibling_bias"))


@dataclass(frozen=True, slots=True)
class StackedRows:
    """Every weighted row of every head in one matrix, so that all are cut and folded at once.

    `weight` (rows, features), `bias` (rows,). `matched` are the rows that slim networks are distilled on:
    those of the composed classes. To match siblings, too, which are fitted by least squares, was worse in
    trials.
    """

    heads: tuple[HeadTensors, ...]
    weight: Tensor
    bias: Tensor
    matched: Tensor

    @classmethod
    def of(cls, heads: Sequence[HeadTensors]) -> StackedRows:
        weights, biases, matched = [], [], []
        for head in heads:
            for weight, bias in _STACKED:
                if getattr(head, weight) is not None:
                    weights.append(getattr(head, weight))
                    biases.append(getattr(head, bias))
                    matched.append(torch.full((len(weights[-1]),), weight != "siblings"))
        return cls(
            tuple(heads), torch.cat(weights), torch.cat(biases), torch.nonzero(torch.cat(matched))[:, 0]
        )

    def split(self, weight: Tensor, bias: Tensor) -> list[HeadTensors]:
        """The heads with the rows of `weight` (rows, features) and `bias` (rows,) in the place of theirs."""
        heads, start = [], 0
        for head in self.heads:
            tensors = head.to_dict()
            for name, name_of_bias in _STACKED:
                if name in tensors:
                    rows = slice(start, start + len(tensors[name]))
                    tensors[name], tensors[name_of_bias] = weight[rows].clone(), bias[rows].clone()
                    start = rows.stop
            heads.append(HeadTensors.from_dict(tensors))
        return heads
