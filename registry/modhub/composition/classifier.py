"""One classifier made of modules: one pass per trunk, raw images in, comparable scores out.

A score is a margin at its parent's temperature. Classes of one parent therefore rank as their margins rank;
those of several parents compare because each temperature was fitted so that the softmax of the scores is a
probability: a parent that is surer than right has its margins shrunk. Where several heads share a trunk, the
density of its features under each head's classes helps to tell which head an image is for
(`modhub.composition.head_density`); it is the same for all classes of a head, so it never changes their
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from modhub.calibration.feature_distance import ClassGaussians
from modhub.composition.head_density import head_shifts
from modhub.composition.heads import JoinedHead
from modhub.data import alike
from modhub.data.preprocessing import Preprocess
from modhub.data.texture import texture
from modhub.manifest import InputSpec
from modhub.nets import Network, Runner, cost
from modhub.results import Document

_SHOWN_LABELS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkReport(Document):
    """What one pass costs beside its parent's trunk; FLOPs are multiply-adds for one image."""

    parent: str
    kept_channels_fraction: float
    kept_params_fraction: float
    flops: int
    parent_flops: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """`label` is None for "none of these"; `probability` is the best class's, in [0, 1]; `scores` by label.

    `acceptance` is negative for "none of these": the least of how far the best class's OOD score is above its
    parent's threshold, and of how far the features are inside their limit.
    """

    label: str | None
    probability: float
    scores: dict[str, float]
    acceptance: float


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Of one head and a batch: `margin` (batch, classes); `shift` (batch, 1), by what its scores move beside
    the other heads on its trunk (`head_shifts`); `rest` (batch, 1), the logsumexp of its parent's other
    classes (`JoinedHead.rest_logsumexp`); `distance` (batch, 1) from the classes, 1 at the limit."""

    head: JoinedHead
    margin: Tensor
    shift: Tensor
    rest: Tensor | None = None
    distance: Tensor | None = None

    def looking(self, looks: Tensor) -> HeadOutput:
        """Of images whose `modhub.data.texture` is `looks` (batch, numbers)."""
        return self if self.head.texture is None else replace(self, distance=self.head.texture(looks))

    def log_odds(self) -> Tensor:
        """(batch, classes): each class against all others of its parent."""
        return self.head.log_odds(self.margin, self.rest)

    def excess(self) -> Tensor:
        """(batch, classes): how far each class's OOD score is above its parent's threshold, and where that is
        less, how far the image is inside the limit of the distance."""
        excess = self.head.excess(self.margin, self.rest)
        return excess if self.distance is None else excess.minimum(1 - self.distance)

    def scores(self, adjustment: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """(batch, classes), with the head's `adjustment` (2,) and `gate` (classes,) by default."""
        factor, offset = self.head.adjustment if adjustment is None else adjustment
        scaled = self.head.scaled(self.margin)
        scores: Tensor = factor * (scaled + self.shift) + offset
        if gate is None and self.head.tensors.gate is None:
            return scores
        return scores + F.linear(scaled, (self.head.gate if gate is None else gate)[None])


class TrunkPass(nn.Module):
    """One slim trunk with its own preprocessing and the heads of the parents that stand on it."""

    def __init__(
        self, network: Network, spec: InputSpec, heads: Sequence[JoinedHead], report: TrunkReport
    ) -> None:
        super().__init__()
        self.spec = spec
        self.preprocess = Preprocess(spec)
        self.trunk = Runner(network)
        self.head_list = nn.ModuleList(heads)
        self.report = report
        self.gaussians: Sequence[ClassGaussians | None] = ()
        """Of each head, from which distances are made when all is fitted; empty where nothing is rejected."""
        self.synthetic_features: Tensor | None = None
        self.synthetic = False
        """Whether it was fitted on no real image."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(self.preprocess(images))
        return features

    @property
    def heads(self) -> list[JoinedHead]:
        return [head for head in self.head_list if isinstance(head, JoinedHead)]

    def outputs(self, images: Tensor) -> list[HeadOutput]:
        """One per head, for raw images."""
        normalised = self.preprocess(images)
        outputs = self.outputs_of(self.trunk(normalised))
        if all(head.texture is None for head in self.heads):
            return outputs
        looks = texture(self.preprocess.pixels(normalised))
        return [output.looking(looks) for output in outputs]

    def outputs_of(self, features: Tensor) -> list[HeadOutput]:
        """One per head, for features of the trunk; the texture of the images is not known."""
        margins = [head.margins(features) for head in self.heads]
        scaled = [head.scaled(margin) for head, margin in zip(self.heads, margins, strict=True)]
        shifts = head_shifts([head.density for head in self.heads], scaled, features)
        return [
            HeadOutput(
                head,
                margin,
                shift,
                head.rest_logsumexp(features),
                None if head.distance is None else head.distance(features),
            )
            for head, margin, shift in zip(self.heads, margins, shifts, strict=True)
        ]

    def decisions(self, images: Tensor, batch: int = 50) -> Tensor:
        """(images, heads) for normalised images: the best class of each head, or of a single class whether it
        is there."""
        with torch.inference_mode():
            features = torch.cat([self.trunk(part) for part in torch.split(images, batch)])
            decisions = [
                (output.log_odds() > 0).long()[:, 0] if output.head.classes == 1 else output.margin.argmax(1)
                for output in self.outputs_of(features)
            ]
        return torch.stack(decisions, 1)


class ComposedClassifier(nn.Module):
    """Raw images (batch, 1 or 3, height, width), uint8 or floats in [0, 1], to scores (batch, labels).

    The softmax of the scores over the labels is the probability of each; with a single label the score is its
    log-odds. Accepted by `torch.compile`, `torch.export` and the ONNX exporter. `order` gives for each label
    its place among the classes of all heads, in the order of passes and heads.
    """

    order: Tensor

    def __init__(
        self, labels: Sequence[str], passes: Sequence[TrunkPass], order: Tensor, *, reject: bool = False
    ) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.passes = nn.ModuleList(passes)
        self.reject = reject
        self.register_buffer("order", order)
        self.eval()

    if TYPE_CHECKING:
        # A module's call is typed as giving anything.
        def __call__(self, images: Tensor, /) -> Tensor: ...

    def forward(self, images: Tensor) -> Tensor:
        return self._scores(self.outputs(images)).index_select(1, self.order)

    def outputs(self, images: Tensor) -> list[HeadOutput]:
        """One per head, in the order of passes and heads."""
        return [output for trunk_pass in self.trunk_passes for output in trunk_pass.outputs(images)]

    def assess(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, labels), and (batch,) the acceptance of the best class: below 0 it is none of
        these."""
        outputs = self.outputs(images)
        scores = self._scores(outputs)
        excess = torch.cat([output.excess() for output in outputs], 1)
        best = scores.argmax(1, keepdim=True)
        return scores.index_select(1, self.order), excess.gather(1, best)[:, 0]

    def _scores(self, outputs: Sequence[HeadOutput]) -> Tensor:
        """(batch, labels) in the order of passes and heads."""
        if len(self.labels) == 1:
            return outputs[0].log_odds()
        return torch.cat([output.scores() for output in outputs], 1)

    @property
    def false_accept(self) -> dict[str, float]:
        """By label: the share of its parent's images of other classes that its threshold accepts, as measured
        when the module was made; labels whose modules do not say are left out."""
        rates: list[float | None] = []
        for head in self.heads:
            measured = head.tensors.false_accept
            rates += [None] * head.classes if measured is None else measured.tolist()
        named = zip(self.labels, (rates[place] for place in self.order.tolist()), strict=True)
        return {label: rate for label, rate in named if rate is not None}

    def margins(self, images: Tensor) -> Tensor:
        """(batch, labels) uncalibrated: each class's score minus the mean score of its parent's others."""
        margins = []
        for trunk_pass in self.trunk_passes:
            features = trunk_pass(images)
            margins += [head.margins(features) for head in trunk_pass.heads]
        return torch.cat(margins, 1).index_select(1, self.order)

    def probabilities(self, scores: Tensor) -> Tensor:
        """(batch, labels) in [0, 1] from scores; over several labels they sum to 1."""
        return scores.sigmoid() if len(self.labels) == 1 else scores.softmax(1)

    def predict(self, images: Tensor | Sequence[NDArray[np.uint8]], batch: int = 64) -> list[Prediction]:
        """One prediction per image, wherever images and classifier are; images of any sizes may be given as
        uint8 (height, width, 1 or 3)."""
        predictions: dict[int, Prediction] = {}
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            groups = [(part, np.arange(len(part)))] if isinstance(part, Tensor) else alike(part)
            for pixels, positions in groups:
                of_group = self._predictions(pixels.to(self.order.device))
                predictions.update(zip((start + positions).tolist(), of_group, strict=True))
        return [predictions[number] for number in range(len(predictions))]

    def _predictions(self, images: Tensor) -> Iterator[Prediction]:
        with torch.inference_mode():
            scores, acceptance = self.assess(images)
            rows = scores.tolist(), self.probabilities(scores).tolist(), acceptance.tolist()
        for row, probabilities, excess in zip(*rows, strict=True):
            best = int(np.argmax(row))
            label = None if self.reject and excess < 0 else self.labels[best]
            yield Prediction(label, probabilities[best], dict(zip(self.labels, row, strict=True)), excess)

    @property
    def trunk_passes(self) -> list[TrunkPass]:
        return [module for module in self.passes if isinstance(module, TrunkPass)]

    @property
    def heads(self) -> list[JoinedHead]:
        """In the order of passes."""
        return [head for trunk_pass in self.trunk_passes for head in trunk_pass.heads]

    def __repr__(self) -> str:
        """Labels, and for each trunk its parent, the share of its multiply-adds and its parameters."""
        labels = ", ".join(self.labels[:_SHOWN_LABELS])
        if len(self.labels) > _SHOWN_LABELS:
            labels += f", … {len(self.labels)} in all"
        trunks = []
        for trunk_pass in self.trunk_passes:
            report, parameters = trunk_pass.report, cost(trunk_pass.trunk.network).parameters
            share = report.flops / max(report.parent_flops, 1)
            trunks.append(f"{report.parent} ({share:.0%} of its multiply-adds, {parameters:,} parameters)")
        return f"{type(self).__name__}([{labels}], from {', '.join(trunks)})"

    def report(self) -> dict[str, object]:
        """For JSON: labels, the number of passes per image, and per trunk what is left of its parent."""
        return {
            "labels": list(self.labels),
            "passes": len(self.passes),
            "trunks": [trunk_pass.report.to_dict() for trunk_pass in self.trunk_passes],
        }

    def save(self, directory: Path | str, *, force: bool = False) -> Path:
        """Write a build directory, completely or not at all. Raises `StorageError`."""
        from modhub.composition.build import save_build

        return save_build(self, Path(directory), force=force)

    @classmethod
    def load(cls, directory: Path | str) -> ComposedClassifier:
        """Read what `save` wrote; every digest is verified. Raises `ManifestError` or `IntegrityError`."""
        from modhub.composition.build import load_build

        return load_build(Path(directory))
