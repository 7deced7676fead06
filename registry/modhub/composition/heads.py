"""The heads of several modules of one parent, joined: one row of weights per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.calibration.feature_distance import DISTANCE_FIELDS, FeatureDistance
from modhub.composition.head_density import HeadDensity
from modhub.nets import head_logits

CALIBRATION_FIELDS = (
    "temperature",
    "slope",
    "intercept",
    "margin_mean",
    "margin_std",
    "threshold",
)
DENSITY_FIELDS = tuple(HeadDensity.__slots__)
TEXTURE_FIELDS = tuple(f"texture_{name}" for name in DISTANCE_FIELDS)
_LEAST = 1e-6
"""No class has a larger share of the softmax than 1 less this, so that its odds are a number."""


@dataclass(frozen=True, slots=True)
class HeadTensors:
    """What a joined head is made of; `classes` of its parent's `labels` are composed.

    `rows` (classes, features) and `row_bias` (classes,) are those of the classes; `rest`, `rest_bias` the
    mean of all others for each. `calibration` (fields, classes). `adjustment` (2,): temperature factor and
    offset, 1 and 0 until labelled images change them. `gate` (classes,): how much each scaled margin adds to
    all scores of this head, which labelled images decide; None without them. `false_accept` (classes,): the
    share of the parent's images of other classes that are above the class's threshold; None where modules do
    not say. `density` where several heads share a trunk. `siblings` (siblings, features) and `sibling_bias`
    (siblings,) give the margins of the parent's classes that are not composed; None where there are none, or
    the modules' calibrations do not go by them (`modhub.calibration.calibrator`). `distance` for "none of
    these", 1 at the limit: of `texture` (`modhub.data.texture`), or of features where modules do not say
    how their images look; None where they carry no statistics.
    """

    rows: Tensor
    row_bias: Tensor
    rest: Tensor
    rest_bias: Tensor
    calibration: Tensor
    adjustment: Tensor
    gate: Tensor | None = None
    false_accept: Tensor | None = None
    density: HeadDensity | None = None
    siblings: Tensor | None = None
    sibling_bias: Tensor | None = None
    distance: FeatureDistance | None = None
    texture: FeatureDistance | None = None

    def to_dict(self) -> dict[str, Tensor]:
        """What is known, the tensors of density and distance beside the others."""
        tensors: dict[str, Tensor] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                tensors[name] = value
            elif name == "texture" and value is not None:
                tensors |= dict(zip(TEXTURE_FIELDS, value.to_dict().values(), strict=True))
            elif value is not None:
                tensors |= value.to_dict()
        return tensors

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> HeadTensors:
        return cls(
            **{name: tensors[name] for name in cls.__slots__ if name in tensors},
            density=HeadDensity.from_dict(tensors) if "means" in tensors else None,
            distance=FeatureDistance.from_dict(tensors) if "centres" in tensors else None,
            texture=FeatureDistance(*(tensors[name] for name in TEXTURE_FIELDS))
            if TEXTURE_FIELDS[0] in tensors
            else None,
        )


class JoinedHead(nn.Module):
    """Features (batch, features[, height, width]) to margins (batch, classes), log-odds and OOD scores.

    Without a ReLU in the parent's tail a margin is one row of weights: the class's minus the mean of all
    others.
    """

    rows: Tensor
    row_bias: Tensor
    calibration: Tensor
    adjustment: Tensor
    gate: Tensor
    # Only where its parent has classes that are not composed.
    siblings: Tensor
    sibling_bias: Tensor

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
        # Fitted in place, while other heads are made of the same tensors.
        self.register_buffer("calibration", tensors.calibration.clone())
        self.register_buffer("adjustment", tensors.adjustment.clone())
        gate = torch.zeros(self.classes, dtype=torch.float32) if tensors.gate is None else tensors.gate
        self.register_buffer("gate", gate)
        for name in DENSITY_FIELDS if tensors.density is not None else ():
            self.register_buffer(name, getattr(tensors.density, name))
        if tensors.distance is not None:
            self.set_distance(tensors.distance)
        if tensors.texture is not None:
            for name, tensor in zip(TEXTURE_FIELDS, tensors.texture.to_dict().values(), strict=True):
                self.register_buffer(name, tensor)
        if tensors.siblings is not None:
            self.register_buffer("siblings", tensors.siblings)
            self.register_buffer("sibling_bias", tensors.sibling_bias)

    @property
    def classes(self) -> int:
        return len(self.tensors.rows)

    @property
    def features(self) -> int:
        return self.tensors.rows.shape[1]

    def set_gate(self, gate: Tensor) -> None:
        """Take `gate` (classes,), and keep it where it is saved from."""
        self.gate.copy_(gate)
        self.tensors = replace(self.tensors, gate=self.gate)

    def set_distance(self, distance: FeatureDistance) -> None:
        """Take `distance`, and keep it where it is saved from."""
        for name, tensor in distance.to_dict().items():
            self.register_buffer(name, tensor)
        self.tensors = replace(self.tensors, distance=distance)

    @property
    def fitted_tensors(self) -> HeadTensors:
        """What it is made of, with what was fitted since, wherever that was: float32, on the CPU."""
        gate = None if self.tensors.gate is None else self.gate.float().cpu()
        return replace(
            self.tensors,
            calibration=self.calibration.float().cpu(),
            adjustment=self.adjustment.float().cpu(),
            gate=gate,
        )

    @property
    def density(self) -> HeadDensity | None:
        """On the device that the head is on; None for a head that shares no trunk."""
        if self.tensors.density is None:
            return None
        return HeadDensity(*(getattr(self, name) for name in DENSITY_FIELDS))

    @property
    def distance(self) -> FeatureDistance | None:
        """On the device that the head is on."""
        if self.tensors.distance is None:
            return None
        return FeatureDistance(*(getattr(self, name) for name in DISTANCE_FIELDS))

    @property
    def texture(self) -> FeatureDistance | None:
        """On the device that the head is on."""
        if self.tensors.texture is None:
            return None
        return FeatureDistance(*(getattr(self, name) for name in TEXTURE_FIELDS))

    def field(self, name: str) -> Tensor:
        """(classes,) one number of every class's calibration."""
        return self.calibration[CALIBRATION_FIELDS.index(name)]

    def margins(self, features: Tensor) -> Tensor:
        """(batch, classes): score of the class minus the mean score of its parent's other classes.

        Behind a ReLU that mean is of the others' rows before it, and averaged over the composed classes:
        what is taken from all alike leaves them in their parent's order.
        """
        scores = head_logits(features, self.rows, self.row_bias, self.tail)
        if not self.two_rows:
            return scores
        return scores[:, : self.classes] - scores[:, self.classes :].mean(1, keepdim=True)

    def scaled(self, margin: Tensor) -> Tensor:
        """(batch, classes): margins at the parent's temperature, which makes them comparable."""
        return self.field("temperature").mean() * margin

    def rest_logsumexp(self, features: Tensor) -> Tensor | None:
        """(batch, 1): log Σ exp of the scaled margins of the parent's classes that are not composed; None
        where there are none, or they are not known."""
        if self.tensors.siblings is None:
            return None
        margin = features @ self.siblings.T + self.sibling_bias
        return self.scaled(margin).logsumexp(1, keepdim=True)

    def odds(self, margin: Tensor, rest: Tensor | None = None) -> Tensor:
        """(batch, classes): what log-odds are a line of; the log-odds of the parent's softmax where `rest`
        (see `rest_logsumexp`) is known, else the margin."""
        if rest is None:
            return margin
        scaled = self.scaled(margin)
        if self.classes == 1:
            return scaled - rest
        share = torch.cat([scaled, rest], 1).log_softmax(1)[:, :-1].clamp(max=-_LEAST)
        return share - torch.log(-torch.expm1(share))

    def log_odds(self, margin: Tensor, rest: Tensor | None = None) -> Tensor:
        """(batch, classes): each class against all others of its parent, at even prior odds."""
        return self.field("slope") * self.odds(margin, rest) + self.field("intercept")

    def ood_score(self, margin: Tensor, rest: Tensor | None = None) -> Tensor:
        """(batch, classes): the out-of-distribution score, low for images of none of these classes: the
        margin plus the log-probability of the composed classes together (`modhub.calibration`)."""
        if rest is None:
            return margin
        composed = self.scaled(margin).logsumexp(1, keepdim=True)
        return margin + F.logsigmoid(composed - rest) / self.field("temperature").mean()

    def excess(self, margin: Tensor, rest: Tensor | None = None) -> Tensor:
        """(batch, classes): how far the scaled OOD score is above the threshold of the head.

        The classes' thresholds are one number where nothing was removed; slim networks move each class's
        margins a little, and the mean is taken (`modhub.calibration.thresholds`).
        """
        thresholds = self.field("margin_mean") + self.field("threshold") * self.field("margin_std")
        return self.scaled(self.ood_score(margin, rest) - thresholds.mean())
