"""From a margin to something that compares: log-odds, and a threshold for "none of these".

What is fitted here is fitted once, when the module is made, on its own parent's images alone:

- `temperature` τ, common to all modules of a parent: softmax(τ · margins) is calibrated over its classes
  (Guo et al. 2017, arXiv 1706.04599, §4.2; τ is the inverse of its T, on margins instead of logits). Scaled
  so, margins compare across parents too;
- `slope`, `intercept`: slope · o + intercept is the log-odds of the class against the rest of its parent's
  world at even prior odds (Platt 1999, with his soft targets). With M = τ · margins of all K classes of the
  parent, o is M_c − log Σ_{j ≠ c} exp M_j, the odds that its softmax gives: a margin knows the mean of the
  other classes and not which of them an image resembles;
- `margin_mean`, `margin_std`, `odds_mean`, `odds_std`: margin and o over the class's own images;
- `threshold`, `threshold_all`: below which evidence an image is none of the classes, where one class or all
  of the parent's are composed. The evidence of a set S of classes is

      e = largest margin in S + (1/τ) · log P(S | x),      P(S | x) = Σ_{c in S} softmax(M)_c

  The margin tells what no class of the parent resembles, P(S | x) what another of its classes does. The two
  numbers are deviations from `margin_mean` in units of `margin_std`; the evidence they stand for is common to
  the parent (`Bars`);
- `false_accept`: the share of the parent's images of other classes whose evidence is above `threshold`.

This is the kind `odds`, for composers that know the whole head. Where they do not, because the head is
applied at every place of its features, the kind is `margin`: o is the margin, and so is the evidence. A class
that was taught is one more than its parent's K, and has thresholds of its own.
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
    "BY_MARGIN",
    "BY_ODDS",
    "PLAIN_WEIGHT",
    "Bars",
    "Calibrator",
    "balanced_accuracy",
    "fit_bars",
    "fit_calibration",
    "fit_log_odds",
    "fit_temperature",
    "log_odds",
    "odds_among",
    "platt",
]

Array: TypeAlias = NDArray[np.float64]
BY_MARGIN, BY_ODDS = "margin", "odds"
"""The kinds of calibration."""
ACCEPTED = 0.95
"""Share of a parent's own images that its thresholds accept."""
_LEAST = 1e-12
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
    """Evidence that 95 % of images exceed: `one` where their class is alone, `all` where all are composed.

    One bar for all classes of a parent tells strange images from known ones better than one for each: what a
    class is less sure of, it is less sure of in strange images, too, and takes more of them for its own.
    """

    one: float
    all: float


class Calibrator:
    """Calibrates the classes of a parent from its `logits` (images, labels) on images that nothing was fitted
    on; `targets` (images,) are positions among the labels. The bars are fitted with the weights `sure`.

    `odds` says that composers will know the whole head.
    """

    def __init__(
        self, logits: Array, targets: NDArray[np.int64], weights: Array, sure: Array, *, odds: bool
    ) -> None:
        self.targets, self.weights = targets, weights
        others = max(logits.shape[1] - 1, 1)
        self.margins = logits - (logits.sum(1, keepdims=True) - logits) / others
        self.temperature = fit_temperature(logits, targets, weights) * others / (others + 1)
        self.total = _log_sum_exp(self.temperature * self.margins) if odds else None
        own = self.margins[np.arange(len(targets)), targets]
        if self.total is not None:
            own = _among(own, self.total, self.temperature)[1]
        self.bars = fit_bars(own, self.margins.max(1), targets, sure)

    def calibration(self, row: int) -> Calibration:
        """Of the class in that row of the parent's head."""
        margin = self.margins[:, row]
        odds, evidence = None, None
        if self.total is not None:
            odds, evidence = _among(margin, self.total, self.temperature)
        return fit_calibration(
            margin,
            self.targets == row,
            self.weights,
            self.temperature,
            self.bars,
            odds=odds,
            evidence=evidence,
        )

    def slope(self, row: int) -> float:
        """Of log-odds that are a line of the margin."""
        return platt(self.margins[:, row], self.targets == row, self.weights)[0]


def fit_bars(own: Array, largest: Array, targets: NDArray[np.int64], weights: Array) -> Bars:
    """From evidence (images,): with the `own` class of each image alone, and where all are composed; every
    class counts the same."""
    shares = weights / np.bincount(targets, weights)[targets]
    return Bars(_quantile(own, shares), _quantile(largest, shares))


def fit_calibration(
    margin: Array,
    positive: NDArray[np.bool_],
    weights: Array,
    temperature: float,
    bars: Bars | None = None,
    *,
    odds: Array | None = None,
    evidence: Array | None = None,
) -> Calibration:
    """The calibration of one class from its margins (images,) on images of all classes.

    Without the `bars` of its parent the class has one to itself. `odds` and `evidence` (images,) are those of
    the kind `odds`; without them margins take their places.
    """
    by, evidence = (margin if each is None else each for each in (odds, evidence))
    slope, intercept = platt(by, positive, weights)
    own = weights[positive] / weights[positive].sum()
    mean, deviation = _moments(margin[positive], own)
    if bars is None:
        bar = _quantile(evidence[positive], own)
        bars = Bars(bar, bar)
    false_accept = float(np.average(evidence[~positive] > bars.one, weights=weights[~positive]))
    parameters = {
        "temperature": temperature,
        "slope": slope,
        "intercept": intercept,
        "margin_mean": mean,
        "margin_std": deviation,
        "threshold": (bars.one - mean) / deviation,
        "threshold_all": (bars.all - mean) / deviation,
        "false_accept": false_accept,
    }
    if odds is None:
        return Calibration(kind=BY_MARGIN, parameters=parameters)
    mean, deviation = _moments(odds[positive], own)
    return Calibration(kind=BY_ODDS, parameters={**parameters, "odds_mean": mean, "odds_std": deviation})


def odds_among(margins: Array, row: int, temperature: float) -> tuple[Array, Array]:
    """o and evidence, (images,) each, of the class in `row` of margins (images, classes), composed alone."""
    return _among(margins[:, row], _log_sum_exp(temperature * margins), temperature)


def log_odds(logits: Array, row: int, calibration: Calibration) -> Array:
    """(images,) of the class in `row` of logits (images, labels), against the rest of its parent's world."""
    others = max(logits.shape[1] - 1, 1)
    numbers = calibration.parameters
    if calibration.kind == BY_ODDS:
        scaled = numbers["temperature"] * (others + 1) / others * logits
        by, _ = _among(scaled[:, row], _log_sum_exp(scaled), 1.0)
    else:
        by = logits[:, row] - (logits.sum(1) - logits[:, row]) / others
    return np.asarray(numbers["slope"] * by + numbers["intercept"])


def _among(margin: Array, total: Array, temperature: float) -> tuple[Array, Array]:
    """o and evidence, (images,) each, of a class composed alone from its margins (images,); `total` (images,)
    is log Σ exp of the scaled margins of all classes."""
    # A share of 1 would have no odds.
    share = np.minimum(temperature * margin - total, -_LEAST)
    return share - np.log(-np.expm1(share)), margin + share / temperature


def _log_sum_exp(values: Array) -> Array:
    """(images,) of values (images, labels)."""
    top = values.max(1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(1)))


def _moments(values: Array, share: Array) -> tuple[float, float]:
    """Mean and standard deviation; `share` sums to 1."""
    mean = float((share * values).sum())
    return mean, max(float(np.sqrt((share * (values - mean) ** 2).sum())), 1e-6)


def _quantile(values: Array, weights: Array) -> float:
    """What all but 1 − `ACCEPTED` of the weight is above."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, (1 - ACCEPTED) * below[-1])])


def balanced_accuracy(accepted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    """Mean of the shares of positives accepted and of negatives refused."""
    return float((accepted[positive].mean() + (~accepted[~positive]).mean()) / 2)
