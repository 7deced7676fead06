"""Two classifiers on the same images, and how much of their difference may be chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.errors import DataError
from modhub.evaluation.metrics import Evaluation, predictions_of
from modhub.results import Document

_DEVIATIONS = 1.96
"""95 % of a normal distribution lie within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Document):
    """Differences after − before, in fractions: of top-1, and of recall, precision and F1 for each class
    that both have.

    `top1_noise` and `noise`, of each class's F1, are the half widths of 95 % confidence intervals.
    `worse` and `better` are the classes whose F1 fell or rose by more, the most changed first.
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
        labels = [label for label, change in self.f1.items() if sign * change > self.noise[label]]
        return tuple(sorted(labels, key=lambda label: -sign * self.f1[label]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; scripts rely on top1, top5, recall, worse and better."""
        return {**Document.to_dict(self), "worse": list(self.worse), "better": list(self.better)}


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """What changed from `before` to `after` on the same images, when a module was replaced, say.

    Images predicted alike cancel out: only those that one of the two got right count (a paired comparison).
    Raises `DataError` for evaluations on different images.
    """
    if len(predictions_of(before).targets) != len(predictions_of(after).targets):
        raise DataError("The evaluations are of different images.", hint="Give both the same data.")

    def changes(metric: str) -> dict[str, float]:
        differences = {}
        for label, score in after.per_class.items():
            if label in before.per_class:
                was, now = getattr(before.per_class[label], metric), getattr(score, metric)
                if was is not None and now is not None:
                    differences[label] = now - was
        return differences

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
    """Half the 95 % confidence interval of a metric's difference, given each image's contribution (images,).

    The standard error of a sum of independent contributions, and one image more, so that of few images at
    least six have to agree, as in the sign test.
    """
    shares = after - before
    return float(_DEVIATIONS * np.sqrt(np.square(shares).sum()) + np.abs(shares).max(initial=0.0))


def _top1_shares(evaluation: Evaluation) -> NDArray[np.float64]:
    """(images,): by how much top-1 would fall without the image, to first order (its influence function)."""
    data = predictions_of(evaluation)
    correct = data.predictions == data.targets
    if evaluation.yes_no is None:
        return np.where(data.targets >= 0, correct - evaluation.top1, 0.0) / evaluation.count
    shares = np.zeros(len(correct))
    classes = [members for members in (data.targets == 0, data.targets == 1) if members.any()]
    for members in classes:
        shares[members] = (correct[members] - correct[members].mean()) / (len(classes) * members.sum())
    return shares


def _f1_shares(evaluation: Evaluation, label: str) -> NDArray[np.float64]:
    """The same for F1 = 2 hits / (images of the class + predictions of it)."""
    data, row = predictions_of(evaluation), evaluation.labels.index(label)
    members, named = data.targets == row, data.predictions == row
    both = members.astype(np.int64) + named
    share: NDArray[np.float64] = 2 * (members & named) - (evaluation.per_class[label].f1 or 0.0) * both
    return share / max(int(both.sum()), 1)
