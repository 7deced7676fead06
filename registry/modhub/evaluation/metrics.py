"""How often a classifier is right: per class, against another, and against its parent's restricted logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modhub.data import ImageSet, evenly_spaced
from modhub.data.preprocessing import Preprocess
from modhub.errors import DataError
from modhub.manifest import InputSpec
from modhub.refs import rows_of
from modhub.reporter import SILENT, Reporter

__all__ = [
    "Answers",
    "ClassScore",
    "Classifier",
    "Comparison",
    "Evaluation",
    "Rejecting",
    "Rejection",
    "RestrictedParent",
    "VotingModules",
    "YesNo",
    "compare",
    "evaluate",
]

_BINS = 15
_DEVIATIONS = 1.96
"""95 % of a normal distribution lie within."""
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

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both, 0 where no answer names the class, None without images of it."""
        if self.recall is None:
            return None
        precision = self.precision or 0.0
        return 2 * self.recall * precision / (self.recall + precision) if self.recall else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """For each image of a data set the row of its class and of the answer, −1 where it was left out.

    Of a classifier with one label row 0 is its class or yes, row 1 another class or no.
    """

    targets: NDArray[np.int64]
    answers: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Shares that a classifier accepted instead of saying "none of these": `accepted` of the images of
    its own classes, `false_accept` of `strangers` images of other classes, None where there were none."""

    accepted: float
    false_accept: float | None
    strangers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo:
    """What a classifier with one label says: yes to shares `recall` of its class's images, and `false_yes` of
    `others` images of other classes; None where there were none."""

    recall: float
    false_yes: float | None
    others: int

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the shares of right answers to either side, as if yes and no were as frequent."""
        return self.recall if self.false_yes is None else (self.recall + 1 - self.false_yes) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier answered on `count` images of its classes; `left_out` images were of other classes.

    `top1` and `top5` are fractions in [0, 1], `top5` None below six labels. `confusion[i][j]` counts images
    of class i answered as class j, both in the order of `labels`. `ece` is the expected calibration error of
    the softmax of the scores over 15 equal bins (Guo et al. 2017, arXiv 1706.04599, §2). All of these are of
    the best class, whether it was accepted or not; `rejection` is of classifiers that may refuse. `answers`
    are of each image, for `compare`.

    A classifier with one label says yes or no, so it is asked about all images: `yes_no` is what it said,
    `top1` its balanced accuracy, `confusion` counts images of the class and others (rows) answered yes and no
    (columns), and in `ece` both sides weigh the same.
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
    yes_no: YesNo | None = None
    answers: Answers | None = field(default=None, repr=False, compare=False)

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
                label: {
                    "count": score.count,
                    "recall": score.recall,
                    "precision": score.precision,
                    "f1": score.f1,
                }
                for label, score in self.per_class.items()
            },
            "confusion": [list(row) for row in self.confusion],
            "rejection": None if self.rejection is None else asdict(self.rejection),
            "yes_no": None if self.yes_no is None else asdict(self.yes_no),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Differences after − before, in fractions: of top-1, and of recall, precision and F1 for each class
    known to both.

    `top1_noise` and `noise`, of each class's F1, are how much a difference may be chance: with 95 % certainty
    that of other images lies within. `worse` and `better` are the classes whose F1 fell or rose by more, the
    most changed first.
    """

    top1: float
    top1_noise: float
    top5: float | None
    recall: Mapping[str, float]
    precision: Mapping[str, float]
    f1: Mapping[str, float]
    noise: Mapping[str, float]

    @property
    def worse(self) -> tuple[str, ...]:
        return self._beyond_noise(-1)

    @property
    def better(self) -> tuple[str, ...]:
        return self._beyond_noise(1)

    def _beyond_noise(self, sign: int) -> tuple[str, ...]:
        found = [label for label, change in self.f1.items() if sign * change > self.noise[label]]
        return tuple(sorted(found, key=lambda label: -sign * self.f1[label]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; scripts rely on top1, top5, recall, worse and better."""
        found = {key: getattr(self, key) for key in self.__slots__}
        return {
            **{key: dict(each) if isinstance(each, Mapping) else each for key, each in found.items()},
            "worse": list(self.worse),
            "better": list(self.better),
        }


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
    """Let `classifier` answer every image whose class is one of its labels or their `aliases`; with one label
    it says yes or no to all images.

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
    if len(labels) == 1:
        return _yes_no(labels[0], images, targets, asked)
    scores, surplus = asked.about(images.subset(chosen), "evaluate")
    found = _score(labels, images, scores, targets, chosen)
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
    """What changed from `before` to `after`, both on the same images, when a module was replaced, say.

    Images answered alike cancel out: what remains is told by those that only one of the two got right. Raises
    `DataError` for evaluations on different images.
    """
    if len(_told(before).targets) != len(_told(after).targets):
        raise DataError("These evaluations are of different images.", hint="Give both the same data.")

    def changes(figure: str) -> dict[str, float]:
        found = {}
        for label, score in after.per_class.items():
            if label in before.per_class:
                was, now = getattr(before.per_class[label], figure), getattr(score, figure)
                if was is not None and now is not None:
                    found[label] = now - was
        return found

    f1 = changes("f1")
    return Comparison(
        top1=after.top1 - before.top1,
        top1_noise=_noise(_top1_shares(before), _top1_shares(after)),
        top5=None if before.top5 is None or after.top5 is None else after.top5 - before.top5,
        recall=changes("recall"),
        precision=changes("precision"),
        f1=f1,
        noise={label: _noise(_f1_shares(before, label), _f1_shares(after, label)) for label in f1},
    )


def _noise(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """How far a difference of two figures on the same images may be off, given each image's share in them.

    The standard error of a sum of independent shares, and one image more, so that of few images at least six
    have to agree, as in the sign test.
    """
    shares = after - before
    return float(_DEVIATIONS * np.sqrt(np.square(shares).sum()) + np.abs(shares).max(initial=0.0))


def _top1_shares(evaluation: Evaluation) -> NDArray[np.float64]:
    """(images,): by how much the figure would be less without the image, to first order."""
    told = _told(evaluation)
    right = told.answers == told.targets
    if evaluation.yes_no is None:
        return np.where(told.targets >= 0, right - evaluation.top1, 0.0) / evaluation.count
    shares = np.zeros(len(right))
    sides = [side for side in (told.targets == 0, told.targets == 1) if side.any()]
    for side in sides:
        shares[side] = (right[side] - right[side].mean()) / (len(sides) * side.sum())
    return shares


def _f1_shares(evaluation: Evaluation, label: str) -> NDArray[np.float64]:
    """The same of F1 = 2 hits / (images of the class + answers naming it)."""
    told, row = _told(evaluation), evaluation.labels.index(label)
    own, named = told.targets == row, told.answers == row
    both = own.astype(np.int64) + named
    share: NDArray[np.float64] = 2 * (own & named) - (evaluation.per_class[label].f1 or 0.0) * both
    return share / max(int(both.sum()), 1)


def _told(evaluation: Evaluation) -> Answers:
    if evaluation.answers is None:
        raise DataError("An evaluation that was not made by evaluate() has no answers to compare.")
    return evaluation.answers


def _score(
    labels: tuple[str, ...],
    images: ImageSet,
    scores: NDArray[np.float32],
    whole: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> Evaluation:
    """`scores` are of the images `chosen`, `whole` the classes of all."""
    answers, targets = scores.argmax(1), whole[chosen]
    answered = np.full(len(whole), -1, np.int64)
    answered[chosen] = answers
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
        left_out=len(whole) - len(chosen),
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
        answers=Answers(whole, answered),
    )


def _yes_no(label: str, images: ImageSet, targets: NDArray[np.int64], asked: _Asked) -> Evaluation:
    """Of a classifier with one label; `targets` are 0 for images of its class."""
    scores, surplus = asked.about(images, "evaluate")
    own, yes = targets == 0, scores[:, 0] > 0
    others = int((~own).sum())
    said = YesNo(
        recall=float(yes[own].mean()), false_yes=float(yes[~own].mean()) if others else None, others=others
    )
    confusion = np.bincount(2 * ~own + ~yes, minlength=4).reshape(2, 2)
    sides = np.where(own, 1 / own.sum(), 1 / max(others, 1))
    rejection = None
    if surplus is not None:
        accepted = surplus >= 0
        rejection = Rejection(
            accepted=float(accepted[own].mean()),
            false_accept=float(accepted[~own].mean()) if others else None,
            strangers=others,
        )
    return Evaluation(
        labels=(label,),
        dataset=images.name,
        split=images.split,
        count=len(images),
        left_out=0,
        top1=said.balanced_accuracy,
        top5=None,
        per_class={
            label: ClassScore(
                count=int(own.sum()),
                recall=said.recall,
                precision=float(own[yes].mean()) if yes.any() else None,
            )
        },
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        ece=_gap(1 / (1 + np.exp(-np.abs(scores[:, 0].astype(np.float64)))), yes == own, sides),
        rejection=rejection,
        yes_no=said,
        answers=Answers((~own).astype(np.int64), (~yes).astype(np.int64)),
    )


def _calibration_error(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    exponents = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    confidence = (exponents / exponents.sum(1, keepdims=True)).max(1)
    return _gap(confidence, right, np.ones(len(right)))


def _gap(confidence: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """How far answers are from being right as often as they are sure, over bins of `confidence`."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=weights * (confidence - right), minlength=_BINS)
    return float(np.abs(gaps).sum() / weights.sum())
