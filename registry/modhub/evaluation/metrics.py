"""How often a classifier is right, overall and per class, from its scores on labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.data import ImageSet
from modhub.energy import EnergyUse
from modhub.errors import DataError

_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """`recall` and `precision` in [0, 1]: None without images of the class, or without predictions of it."""

    count: int
    recall: float | None
    precision: float | None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both, 0 where the class is never predicted, None without images of it."""
        if self.recall is None:
            return None
        precision = self.precision or 0.0
        return 2 * self.recall * precision / (self.recall + precision) if self.recall else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """For each image of a data set the index of its class and of the prediction, −1 where it was left out.

    Of a classifier with one label, 0 is its class or "yes" and 1 another class or "no".
    """

    targets: NDArray[np.int64]
    predictions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Shares that a classifier accepted instead of answering "none of these": `accepted` of the images of
    its classes, `false_accept` of `strangers` out-of-distribution images, None where there were none."""

    accepted: float
    false_accept: float | None
    strangers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo:
    """Binary classification of a classifier with one label: `recall` is the share of its class's images that
    it accepts (true positive rate), `false_yes` that of `others` images of other classes (false positive
    rate), None where there were none."""

    recall: float
    false_yes: float | None
    others: int

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the true positive and true negative rates."""
        return self.recall if self.false_yes is None else (self.recall + 1 - self.false_yes) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of a classifier on `count` images of its classes; `left_out` images were of other classes, and
    `unreadable` ones were passed over.

    `top1` and `top5` are fractions in [0, 1], `top5` None below six labels. `confusion[i][j]` counts images
    of class i predicted as class j, both in the order of `labels`. `ece` is the expected calibration error of
    the softmax of the scores over 15 equal bins (Guo et al. 2017, arXiv 1706.04599, §2). All of these ignore
    rejection, which `rejection` measures. `predictions` are per image, for `compare`.

    A classifier with one label answers yes or no, so all images count: `yes_no` are its rates, `top1` is its
    balanced accuracy, `confusion` counts images of the class and of others (rows) answered yes and no
    (columns), and in `ece` both rows weigh the same.

    `energy` is what measuring took, None where that was not metered.
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
    unreadable: int = 0
    predictions: Predictions | None = field(default=None, repr=False, compare=False)
    energy: EnergyUse | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; scripts rely on top1, top5, count, per_class and left_out."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "labels": list(self.labels),
            "count": self.count,
            "left_out": self.left_out,
            "unreadable": self.unreadable,
            "top1": self.top1,
            "top5": self.top5,
            "ece": self.ece,
            "per_class": {
                label: {**asdict(score), "f1": score.f1} for label, score in self.per_class.items()
            },
            "confusion": [list(row) for row in self.confusion],
            "rejection": None if self.rejection is None else asdict(self.rejection),
            "yes_no": None if self.yes_no is None else asdict(self.yes_no),
            "energy": None if self.energy is None else self.energy.to_dict(),
        }


def predictions_of(evaluation: Evaluation) -> Predictions:
    """Raises `DataError` for an evaluation that was not made here."""
    if evaluation.predictions is None:
        raise DataError(
            "The evaluation holds no predictions to compare.", hint="Compare what evaluate() returned."
        )
    return evaluation.predictions


def score(
    labels: tuple[str, ...],
    images: ImageSet,
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> Evaluation:
    """The metrics of `scores` (len(chosen), labels) of the images at `chosen`; `targets` (images,) are the
    classes of all images, −1 for those of other classes."""
    truth, predicted = targets[chosen], scores.argmax(1)
    predictions = np.full(len(targets), -1, np.int64)
    predictions[chosen] = predicted
    size = len(labels)
    confusion = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    hits, count, named = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    ahead = (scores > scores[np.arange(len(truth)), truth][:, None]).sum(1)
    return Evaluation(
        labels=labels,
        dataset=images.name,
        split=images.split,
        count=len(truth),
        left_out=len(targets) - len(chosen),
        top1=float((predicted == truth).mean()),
        top5=float((ahead < 5).mean()) if size > 5 else None,
        per_class={
            label: ClassScore(
                count=int(count[row]),
                recall=float(hits[row] / count[row]) if count[row] else None,
                precision=float(hits[row] / named[row]) if named[row] else None,
            )
            for row, label in enumerate(labels)
        },
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        ece=_calibration_error(scores, predicted == truth),
        predictions=Predictions(targets, predictions),
    )


def score_yes_no(
    label: str,
    images: ImageSet,
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    acceptance: NDArray[np.float32] | None,
) -> Evaluation:
    """The metrics of a classifier with one label: `scores` (images, 1) above 0 mean yes, `acceptance`
    (images,) of 0 or more means accepted; `targets` (images,) are 0 for images of its class."""
    positive, yes = targets == 0, scores[:, 0] > 0
    others = int((~positive).sum())
    rates = YesNo(
        recall=float(yes[positive].mean()),
        false_yes=float(yes[~positive].mean()) if others else None,
        others=others,
    )
    confusion = np.bincount(2 * ~positive + ~yes, minlength=4).reshape(2, 2)
    weights = np.where(positive, 1 / positive.sum(), 1 / max(others, 1))
    rejection = None
    if acceptance is not None:
        accepted = acceptance >= 0
        rejection = Rejection(
            accepted=float(accepted[positive].mean()),
            false_accept=float(accepted[~positive].mean()) if others else None,
            strangers=others,
        )
    return Evaluation(
        labels=(label,),
        dataset=images.name,
        split=images.split,
        count=len(images),
        left_out=0,
        top1=rates.balanced_accuracy,
        top5=None,
        per_class={
            label: ClassScore(
                count=int(positive.sum()),
                recall=rates.recall,
                precision=float(positive[yes].mean()) if yes.any() else None,
            )
        },
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        ece=_gap(1 / (1 + np.exp(-np.abs(scores[:, 0].astype(np.float64)))), yes == positive, weights),
        rejection=rejection,
        yes_no=rates,
        predictions=Predictions((~positive).astype(np.int64), (~yes).astype(np.int64)),
    )


def _calibration_error(scores: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    exponents = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    confidence = (exponents / exponents.sum(1, keepdims=True)).max(1)
    return _gap(confidence, correct, np.ones(len(correct)))


def _gap(confidence: NDArray[np.float64], correct: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """The weighted mean over bins of `confidence` of how far it is from the share of correct predictions."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=weights * (confidence - correct), minlength=_BINS)
    return float(np.abs(gaps).sum() / weights.sum())
