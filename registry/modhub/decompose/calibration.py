"""From a margin to something that compares: log-odds, and a threshold for "none of these".

What is fitted here is fitted once, when the module is made, on its own parent's images alone:

- `temperature` τ, common to all modules of a parent: softmax(τ · margins) is calibrated over its classes
  (Guo et al. 2017, arXiv 1706.04599, §4.2; τ is the inverse of its T, on margins instead of logits). Scaled
  so, margins compare across parents too;
- `slope`, `intercept`: slope · margin + intercept is the log-odds of the class against the rest of its
  parent's world at even prior odds (Platt 1999, with his soft targets);
- `margin_mean`, `margin_std`, over the class's own images: the evidence of an image is its margin in standard
  deviations from their mean;
- `threshold`, `threshold_all`: evidence below which an image is none of the classes, where one class or all
  of the parent's are composed; the margins they stand for are common to the parent (`Bars`);
- `false_accept`: the share of the parent's images of other classes whose evidence is above `threshold`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modhub.manifest import Calibration

__all__ = [
    "ACCEPTED",
    "KIND",
    "PLAIN_WEIGHT",
    "Bars",
    "Calibrator",
    "balanced_accuracy",
    "fit_bars",
    "fit_calibration",
    "fit_log_odds",
    "fit_temperature",
    "platt",
]

Array: TypeAlias = NDArray[np.float64]
KIND = "margin"
ACCEPTED = 0.95
"""Share of a parent's own images that its thresholds accept."""
PLAIN_WEIGHT = 0.75
"""Weight of plain training images in every fit; harder copies of them have the rest."""


def fit_temperature(logits: Array, targets: NDArray[np.int64], weights: Array) -> float:
    """τ > 0 that minimises the weighted cross-entropy of softmax(τ · logits), logits (images, labels)."""

    def loss(log_scale: float) -> float:
        scaled = logits * math.exp(log_scale)
        scaled = scaled - scaled.max(1, keepdims=True)
        picked = scaled[np.arange(len(targets)), targets] - np.log(np.exp(scaled).sum(1))
        return -float((weights * picked).sum())

    low, high = math.log(0.02), math.log(20.0)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def platt(margin: Array, positive: NDArray[np.bool_], weights: Array) -> tuple[float, float]:
    """slope > 0 and intercept of the log-odds at even prior odds: each side weighs the same in all."""
    share = np.where(positive, weights / weights[positive].sum(), weights / weights[~positive].sum())
    softened_yes = (positive.sum() + 1) / (positive.sum() + 2)
    softened_no = 1 / ((~positive).sum() + 2)
    return fit_log_odds(margin, share, np.where(positive, softened_yes, softened_no))


def fit_log_odds(margin: Array, share: Array, chance: Array) -> tuple[float, float]:
    """slope > 0 and intercept of the log-odds whose cross-entropy with `chance` (images,) is least, each
    image with the weight of its `share`."""
    scale = max(float(np.abs(margin).mean()), 1e-9)
    design = np.stack([margin / scale, np.ones_like(margin)], 1)
    found = np.array([1.0, 0.0])
    for _ in range(50):
        guess = 1 / (1 + np.exp(-(design @ found).clip(-30, 30)))
        slope = design.T @ (share * (guess - chance)) + 1e-6 * found
        curve = (design * (share * guess * (1 - guess))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        found = found - step
        if float(np.abs(step).max()) < 1e-8:
            break
    return max(float(found[0]) / scale, 1e-6), float(found[1])


@dataclass(frozen=True, slots=True)
class Bars:
    """Margins that 95 % of images exceed: `one` with that of their own class, `all` with the largest one.

    One bar for all classes of a parent tells strange images from known ones better than one for each: what a
    class is less sure of, it is less sure of in strange images, too, and takes more of them for its own.
    """

    one: float
    all: float


class Calibrator:
    """Calibrates the classes of a parent from its `logits` (images, labels) on images that nothing was fitted
    on; `targets` (images,) are positions among the labels. The bars are fitted with the weights `sure`."""

    def __init__(self, logits: Array, targets: NDArray[np.int64], weights: Array, sure: Array) -> None:
        self.targets, self.weights = targets, weights
        others = max(logits.shape[1] - 1, 1)
        self.margins = logits - (logits.sum(1, keepdims=True) - logits) / others
        self.temperature = fit_temperature(logits, targets, weights) * others / (others + 1)
        self.bars = fit_bars(self.margins, targets, sure)

    def calibration(self, row: int) -> Calibration:
        """Of the class in that row of the parent's head."""
        return fit_calibration(
            self.margins[:, row], self.targets == row, self.weights, self.temperature, self.bars
        )


def fit_bars(margins: Array, targets: NDArray[np.int64], weights: Array) -> Bars:
    """From margins (images, classes) on images whose classes are `targets`; every class counts the same."""
    counts = np.bincount(targets, weights, margins.shape[1])
    shares = weights / counts[targets]
    own = margins[np.arange(len(targets)), targets]
    return Bars(_quantile(own, shares), _quantile(margins.max(1), shares))


def fit_calibration(
    margin: Array,
    positive: NDArray[np.bool_],
    weights: Array,
    temperature: float,
    bars: Bars | None = None,
) -> Calibration:
    """The calibration of one class from its margins (images,) on images of all classes.

    Without the `bars` of its parent the class has one to itself.
    """
    slope, intercept = platt(margin, positive, weights)
    own = weights[positive] / weights[positive].sum()
    mean = float((own * margin[positive]).sum())
    deviation = max(float(np.sqrt((own * (margin[positive] - mean) ** 2).sum())), 1e-6)
    if bars is None:
        bar = _quantile(margin[positive], own)
        bars = Bars(bar, bar)
    false_accept = float(np.average(margin[~positive] > bars.one, weights=weights[~positive]))
    return Calibration(
        kind=KIND,
        parameters={
            "temperature": temperature,
            "slope": slope,
            "intercept": intercept,
            "margin_mean": mean,
            "margin_std": deviation,
            "threshold": (bars.one - mean) / deviation,
            "threshold_all": (bars.all - mean) / deviation,
            "false_accept": false_accept,
        },
    )


def _quantile(values: Array, weights: Array) -> float:
    """What all but 1 − `ACCEPTED` of the weight is above."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, (1 - ACCEPTED) * below[-1])])


def balanced_accuracy(accepted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    """Mean of the shares of positives accepted and of negatives refused."""
    return float((accepted[positive].mean() + (~accepted[~positive]).mean()) / 2)
