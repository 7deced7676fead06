"""What the tensors of modules say to the composer: masks, relevance, and their heads in one matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modhub.compose.heads import CALIBRATION_FIELDS, HeadTensors
from modhub.compose.parts import Part
from modhub.decompose.calibration import KIND
from modhub.errors import CompositionError, IntegrityError
from modhub.nets import ChannelSpace, Mask

__all__ = ["head_tensors", "mask_of", "relevance_of", "stacked", "unstacked"]


def mask_of(part: Part) -> Mask:
    """(slots,) True where the module keeps a channel."""
    return _tensor(part, "mask").bool().numpy()


def relevance_of(part: Part, space: ChannelSpace) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(slots,) how much each channel matters to the module; its mask when it does not say."""
    found = part.module.tensors.get("relevance", part.module.tensors["mask"]).double().numpy()
    if found.shape != (space.slots,):
        raise IntegrityError(
            f"The relevance of '{part.name}' does not fit its trunk.", hint="Pull or decompose it again."
        )
    return np.asarray(found, np.float64)


def _tensor(part: Part, name: str) -> Tensor:
    tensor = part.module.tensors.get(name)
    if tensor is None:
        raise IntegrityError(
            f"The module '{part.name}' of '{part.module.manifest.parent.name}' has no tensor '{name}'.",
            hint="Pull it again, or decompose its parent again.",
        )
    return tensor


def head_tensors(head: Sequence[Part]) -> HeadTensors:
    """The rows and calibrations of one parent's modules. Raises `CompositionError` or `IntegrityError`."""
    weights = torch.stack([_tensor(part, "head.weight") for part in head])
    biases = torch.stack([_tensor(part, "head.bias") for part in head])
    numbers = []
    for part in head:
        calibration = part.module.manifest.calibration
        if calibration.kind != KIND:
            raise CompositionError(
                f"The module '{part.name}' is calibrated in a way this modhub does not know, "
                f"'{calibration.kind}'.",
                hint="Upgrade modhub.",
            )
        numbers.append([calibration.parameters.get(name, _DEFAULTS[name]) for name in CALIBRATION_FIELDS])
        numbers[-1][_THRESHOLD] = _threshold(part, len(head))
    rates = [part.module.manifest.calibration.parameters.get("false_accept") for part in head]
    return HeadTensors(
        rows=weights[:, 0],
        row_bias=biases[:, 0],
        rest=weights[:, 1],
        rest_bias=biases[:, 1],
        calibration=torch.tensor(numbers, dtype=torch.float32).T.contiguous(),
        adjustment=torch.tensor([1.0, 0.0]),
        false_accept=None if None in rates else torch.tensor(rates, dtype=torch.float32),
    )


def _threshold(part: Part, classes: int) -> float:
    """Of a class that is composed with others of its parent, `classes` in all.

    The largest of many margins is larger than the margin of one class, also on strange images. Thresholds are
    known for one class and for all; what lies between grows as the logarithm of their number.
    """
    parameters = part.module.manifest.calibration.parameters
    one = parameters.get("threshold", _DEFAULTS["threshold"])
    every = parameters.get("threshold_all", one)
    share = math.log(classes) / math.log(max(len(part.module.manifest.parent.labels), 2))
    return one + min(share, 1.0) * (every - one)


_DEFAULTS = {
    name: 1.0 if name in ("temperature", "slope") or name.endswith("_std") else 0.0
    for name in CALIBRATION_FIELDS
}
_THRESHOLD = CALIBRATION_FIELDS.index("threshold")
_STACKED = (("rows", "row_bias"), ("rest", "rest_bias"))


def stacked(heads: Sequence[HeadTensors]) -> tuple[Tensor, Tensor, list[int]]:
    """Every weighted row of every head in one matrix, so that all are cut and folded at once."""
    weights, biases = [], []
    for head in heads:
        for weight, bias in _STACKED:
            weights.append(getattr(head, weight))
            biases.append(getattr(head, bias))
    return torch.cat(weights), torch.cat(biases), [len(weight) for weight in weights]


def unstacked(
    heads: Sequence[HeadTensors], weight: Tensor, bias: Tensor, sizes: Sequence[int]
) -> list[HeadTensors]:
    """The heads again, with the rows of `weight` (rows, features) and `bias` (rows,), `sizes` at a time."""
    weights, biases = iter(torch.split(weight, list(sizes))), iter(torch.split(bias, list(sizes)))
    fitted = []
    for head in heads:
        tensors = head.to_dict()
        for name, name_of_bias in _STACKED:
            tensors[name], tensors[name_of_bias] = next(weights).clone(), next(biases).clone()
        fitted.append(HeadTensors.from_dict(tensors))
    return fitted
