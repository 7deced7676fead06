"""How often a classifier is right: per class, against another, and against its parent's restricted logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modhub.data import ImageSet, evenly_spaced
from modhub.errors import DataError
from modhub.manifest import InputSpec
from modhub.preprocessing import Preprocess
from modhub.refs import rows_of
from modhub.reporter import SILENT, Reporter

__all__ = [
    "ClassScore",
    "Classifier",
    "Comparison",
    "Evaluation",
    "Rejecting",
    "Rejection",
    "RestrictedParent",
    "VotingModules",
    "compare",
    "evaluate",
]

_BINS = 15
_STRANGERS = 2000
"""Images of other classes that are shown to a classifier which may refuse them, or as many as it has of its
own when these are more."""


class Classifier(Protocol):
    """What can be evaluated: raw images (batch, 1 or 3, height, width) to scores (batch, labels)."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class Rejecting(Protocol):
    """A classifier that says "none of these" where `reject` is set: below 0 in what `assess` gives, (batch,),
    beside the scores."""

    reject: bool

    def assess(self, images: Tensor, /) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """`recall` and `precision` in [0, 1]: None without images of the class, or without answers naming it."""

    count: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Shares that a classifier accepted instead of saying "none of these": `accepted` of the images of
    its own classes, `false_accept` of `strangers` images of other classes, None where there were none."""

    accepted: float
    false_accept: float | None
    strangers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier answered on `count` images of its classes; `left_out` images were of other classes.

    `top1` and `top5` are fractions in [0, 1], `top5` None below six labels. `confusion[i][j]` counts images
    of class i answered as class j, both in the order of `labels`. `ece` is the expected calibration error of
    the softmax of the scores over 15 equal bins (Guo et al. 2017, arXiv 1706.04599, §2). All of these are of
    the best class, whether it was accepted or not; `rejection` is of classifiers that may refuse.
    """

    labels: tuple[str, ...]
    dataset: str
    split: str
    count: int
    left_out: int
    top1: float
    top5: float | None
    per_class: Mapping[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]
    ece: float
    rejection: Rejection | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; scripts rely on top1, top5, count, per_class and left_out."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "labels": list(self.labels),
            "count": self.count,
            "left_out": self.left_out,
            "top1": self.top1,
            "top5": self.top5,
            "ece": self.ece,
            "per_class": {
                label: {"count": score.count, "recall": score.recall, "precision": score.precision}
                for label, score in self.per_class.items()
            },
            "confusion": [list(row) for row in self.confusion],
            "rejection": None if self.rejection is None else asdict(self.rejection),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Differences after − before, in fractions: of top-1, and of recall for each class known to both.

    `worse` are the classes whose recall fell, the worst first.
    """

    top1: float
    top5: float | None
    recall: Mapping[str, float]

    @property
    def worse(self) -> tuple[str, ...]:
        fallen = [label for label, change in self.recall.items() if change < 0]
        return tuple(sorted(fallen, key=lambda label: self.recall[label]))

    def to_dict(self) -> dict[str, Any]:
        return {"top1": self.top1, "top5": self.top5, "recall": dict(self.recall), "worse": list(self.worse)}


class RestrictedParent(nn.Module):
    """The honest baseline: the parent's own logits of the wanted classes, nothing else changed.

    `network` gives one logit for each of `parent_labels`; raw images go in, as for any classifier.
    """

    def __init__(
        self, network: nn.Module, spec: InputSpec, parent_labels: Sequence[str], labels: Sequence[str]
    ) -> None:
        super().__init__()
        if missing := [label for label in labels if label not in parent_labels]:
            raise DataError(
                f"The parent has no class '{missing[0]}'.",
                hint=f"It has: {', '.join(list(parent_labels)[:20])}.",
            )
        self.labels = tuple(labels)
        self.network = network
        self.preprocess = Preprocess(spec)
        self._rows = [list(parent_labels).index(label) for label in labels]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.preprocess(images))
        return logits[:, self._rows]


class VotingModules(nn.Module):
    """The decision rule of Pan & Rajan 2022 (arXiv 2110.07720, §3.4), for comparison: one network per module.

    Each of `networks` gives (batch, 2) scores of normalised images, its class's and all others'. When exactly
    one module votes for itself it wins, otherwise the highest positive probability does, the first of equals.
    The scores are these probabilities, plus 1 for a single vote.
    """

    def __init__(self, networks: Sequence[nn.Module], spec: InputSpec, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.networks = nn.ModuleList(networks)
        self.preprocess = Preprocess(spec)

    def forward(self, images: Tensor) -> Tensor:
        values = self.preprocess(images)
        positive = torch.stack([network(values).softmax(1)[:, 0] for network in self.networks], 1)
        votes = positive > 0.5
        alone = votes.sum(1, keepdim=True) == 1
        return positive + (votes & alone).to(positive.dtype)


def evaluate(
    classifier: Classifier,
    images: ImageSet,
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    batch: int = 250,
    device: torch.device | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Let `classifier` answer every image whose class is one of its labels or their `aliases`.

    Case and separators do not count (`Aquarium fish` is `aquarium_fish`) unless they tell classes apart. A
    classifier that is a `Module` is moved to `device`, if one is given, and gets its images there. One that
    may say "none of these" is shown images of other classes, too. Raises `DataError` when no image is of any
    of its classes.
    """
    labels = tuple(classifier.labels)
    rows = rows_of(images.labels, labels, aliases)
    targets = np.array([rows.get(label, -1) for label in images.labels], dtype=np.int64)[images.targets]
    chosen = np.flatnonzero(targets >= 0)
    if not len(chosen):
        raise DataError(
            f"No image of '{images.name}' is of a class the classifier knows ({', '.join(labels[:10])}).",
            hint=f"The data set's classes are: {', '.join(images.labels[:10])}.",
        )
    if device is not None and isinstance(classifier, nn.Module):
        classifier.to(device)
    asked = _Asked(classifier, batch, device, reporter)
    scores, surplus = asked.about(images.subset(chosen), "evaluate")
    found = _score(labels, images, scores, targets[chosen], len(images) - len(chosen))
    if surplus is None:
        return found
    strangers = evenly_spaced(np.flatnonzero(targets < 0), max(len(chosen), _STRANGERS))
    _, others = asked.about(images.subset(strangers), "evaluate other classes")
    rejection = Rejection(
        accepted=float((surplus >= 0).mean()),
        false_accept=float((others >= 0).mean()) if others is not None and len(others) else None,
        strangers=len(strangers),
    )
    return replace(found, rejection=rejection)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A classifier and how it is asked."""

    classifier: Classifier
    batch: int
    device: torch.device | None
    reporter: Reporter

    def about(self, images: ImageSet, step: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores (images, labels), and of a classifier that may refuse (images,) by how much it accepts."""
        scores = np.empty((len(images), len(self.classifier.labels)), dtype=np.float32)
        asked = self.classifier
        wary = asked if isinstance(asked, Rejecting) and asked.reject else None
        surplus = np.empty(len(images), dtype=np.float32)
        with self.reporter.step(step, len(images)), torch.inference_mode():
            for pixels, indices in images.batches(self.batch):
                placed = pixels if self.device is None else pixels.to(self.device)
                if wary is None:
                    answers = asked(placed)
                else:
                    answers, above = wary.assess(placed)
                    surplus[indices] = above.float().cpu().numpy()
                scores[indices] = answers.float().cpu().numpy()
                self.reporter.advance(len(indices))
        return scores, None if wary is None else surplus


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """What changed from `before` to `after`, for instance when a module was replaced."""
    top5 = None if before.top5 is None or after.top5 is None else after.top5 - before.top5
    return Comparison(top1=after.top1 - before.top1, top5=top5, recall=dict(_recall_changes(before, after)))


def _recall_changes(before: Evaluation, after: Evaluation) -> Iterator[tuple[str, float]]:
    for label, score in after.per_class.items():
        earlier = before.per_class.get(label)
        if earlier is not None and earlier.recall is not None and score.recall is not None:
            yield label, score.recall - earlier.recall


def _score(
    labels: tuple[str, ...],
    images: ImageSet,
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    left_out: int,
) -> Evaluation:
    answers = scores.argmax(1)
    size = len(labels)
    confusion = np.bincount(targets * size + answers, minlength=size * size).reshape(size, size)
    right, count, named = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    own = scores[np.arange(len(targets)), targets]
    ahead = (scores > own[:, None]).sum(1)
    return Evaluation(
        labels=labels,
        dataset=images.name,
        split=images.split,
        count=len(targets),
        left_out=left_out,
        top1=float((answers == targets).mean()),
        top5=float((ahead < 5).mean()) if size > 5 else None,
        per_class={
            label: ClassScore(
                count=int(count[row]),
                recall=float(right[row] / count[row]) if count[row] else None,
                precision=float(right[row] / named[row]) if named[row] else None,
            )
            for row, label in enumerate(labels)
        },
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        ece=_calibration_error(scores, answers == targets),
    )


def _calibration_error(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    exponents = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    confidence = (exponents / exponents.sum(1, keepdims=True)).max(1)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(right))
