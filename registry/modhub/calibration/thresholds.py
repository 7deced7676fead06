"""Thresholds for "none of these": below which OOD score an image is of none of the composed classes.

The OOD score of a set S of a parent's classes is

    e = largest margin in S + (1/τ) · log P(S | x),      P(S | x) = Σ_{c in S} softmax(M)_c

with M = τ · margins of all classes of the parent; the larger, the surer is the image one of S. The margin
tells what no class of the parent resembles, P(S | x) what another of its classes does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
ACCEPTED = 0.95
"""Share of a parent's own images that its thresholds accept."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """OOD scores that 95 % of images exceed: `alone` where their class is alone, `together` where all are
    composed.

    One threshold for all classes of a parent tells out-of-distribution images from known ones better than one
    for each: what a class is less sure of, it is less sure of in other images, too, and accepts more of them.
    """

    alone: float
    together: float


def ood_score(margin: Array, share: Array, temperature: float) -> Array:
    """(images,) of one class composed alone, from its margins and the log of its share in the parent's
    softmax, both (images,)."""
    return np.asarray(margin + share / temperature)


def fit_thresholds(alone: Array, together: Array, targets: NDArray[np.int64], weights: Array) -> Thresholds:
    """From OOD scores (images,): of the own class of each image `alone`, and of all composed `together`;
    every class counts the same."""
    shares = weights / np.bincount(targets, weights)[targets]
    return Thresholds(weighted_quantile(alone, shares), weighted_quantile(together, shares))


def weighted_quantile(values: Array, weights: Array) -> float:
    """What all but 1 − `ACCEPTED` of the weight is above."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, (1 - ACCEPTED) * below[-1])])
