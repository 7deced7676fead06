"""The heads of several modules of one parent, joined: one row of weights per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modhub.decompose.calibration import log_odds
from modhub.decompose.statistics import margins

__all__ = ["CALIBRATION_FIELDS", "HeadTensors", "JoinedHead"]

CALIBRATION_FIELDS = (
    "temperature",
    "slope",
    "intercept",
    "margin_mean",
    "margin_std",
    "log_odds_mean",
    "log_odds_std",
    "threshold",
)


@dataclass(frozen=True, slots=True)
class HeadTensors:
    """What a joined head is made of; `classes` of its parent's `labels` are composed.

    `rows` (classes, features) and `row_bias` (classes,) are the classes' own; `rest`, `rest_bias` the mean of
    all others for each. `parent`, `parent_bias` are the parent's whole head, (labels, features), or None when
    it did not travel; `index` (classes,) are the classes' rows in it. `calibration` (fields, classes).
    `adjustment` (3,): evidence factor, offset, temperature factor; 1, 0, 1 until labelled images change it.
    """

    rows: Tensor
    row_bias: Tensor
    rest: Tensor
    rest_bias: Tensor
    parent: Tensor | None
    parent_bias: Tensor | None
    index: Tensor
    calibration: Tensor
    adjustment: Tensor

    def to_dict(self) -> dict[str, Tensor]:
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> HeadTensors:
        return cls(
            rows=tensors["rows"],
            row_bias=tensors["row_bias"],
            rest=tensors["rest"],
            rest_bias=tensors["rest_bias"],
            parent=tensors.get("parent"),
            parent_bias=tensors.get("parent_bias"),
            index=tensors["index"],
            calibration=tensors["calibration"],
            adjustment=tensors["adjustment"],
        )


class JoinedHead(nn.Module):
    """Features (batch, features[, height, width]) to margins and evidence, (batch, classes) each.

    Without a ReLU in the parent's tail a margin is one row of weights: own row minus the mean of all others.
    """

    rows: Tensor
    row_bias: Tensor
    calibration: Tensor
    index: Tensor
    parent: Tensor
    parent_bias: Tensor
    adjustment: Tensor

    def __init__(self, tensors: HeadTensors, tail: Sequence[str] = ()) -> None:
        super().__init__()
        self.tail = tuple(tail)
        self.tensors = tensors
        self.two_rows = "relu" in self.tail
        if self.two_rows:
            rows, bias = (
                torch.cat([tensors.rows, tensors.rest]),
                torch.cat([tensors.row_bias, tensors.rest_bias]),
            )
        else:
            rows, bias = tensors.rows - tensors.rest, tensors.row_bias - tensors.rest_bias
        self.register_buffer("rows", rows)
        self.register_buffer("row_bias", bias)
        self.register_buffer("calibration", tensors.calibration)
        self.register_buffer("index", tensors.index)
        # The same storage: what is fitted is what is saved.
        self.register_buffer("adjustment", tensors.adjustment)
        self.knows_parent = tensors.parent is not None
        if tensors.parent is not None:
            self.register_buffer("parent", tensors.parent)
            self.register_buffer("parent_bias", tensors.parent_bias)

    @property
    def classes(self) -> int:
        return len(self.index)

    def field(self, name: str) -> Tensor:
        """(classes,) one number of every class's calibration."""
        return self.calibration[CALIBRATION_FIELDS.index(name)]

    def margins(self, features: Tensor) -> Tensor:
        """(batch, classes): score of the class minus the mean score of its parent's other classes."""
        scores = margins(features, self.rows, self.row_bias, self.tail)
        return scores[:, : self.classes] - scores[:, self.classes :] if self.two_rows else scores

    def evidence(self, features: Tensor, margin: Tensor) -> Tensor:
        """(batch, classes) in standard deviations from what each class's own images show."""
        first = (margin - self.field("margin_mean")) / self.field("margin_std")
        if not self.knows_parent:
            return first
        odds = log_odds(margins(features, self.parent, self.parent_bias, self.tail))[:, self.index]
        second = (odds - self.field("log_odds_mean")) / self.field("log_odds_std")
        return (first + second) / 2
