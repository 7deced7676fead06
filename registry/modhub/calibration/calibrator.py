"""From a margin to something that compares: log-odds, and a threshold for "none of these".

What is fitted here is fitted once, when the module is made, on its own parent's images alone:

- `temperature` τ, common to all modules of a parent: softmax(τ · margins) is calibrated over its classes
  (`modhub.calibration.temperature`). Scaled so, margins compare across parents too;
- `slope`, `intercept`: slope · o + intercept is the log-odds of the class against its parent's other
  classes at even prior odds (`modhub.calibration.one_against_rest`). With M = τ · margins of all K classes
  of the parent, o is M_c − log Σ_{j ≠ c} exp M_j, the odds that its softmax gives: a margin knows the mean
  of the other classes and not which of them an image resembles;
- `margin_mean`, `margin_std`, `odds_mean`, `odds_std`: margin and o over the class's own images;
- `threshold`, `threshold_all`: below which OOD score an image is none of the classes, where one class or
  all of the parent's are composed (`modhub.calibration.thresholds`). The two numbers are deviations from
  `margin_mean` in units of `margin_std`; the score they stand for is common to the parent;
- `false_accept`: the share of the parent's images of other classes whose score is above `threshold`.

This is the kind `odds`, for composers that know the whole head. Where they do not, because the head is
applied at every place of its features, the kind is `margin`: o is the margin, and so is the OOD score. A
class that was taught is one more than its parent's K, and has thresholds of its own.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modhub.calibration.margins import logit_temperature, margin_of, margin_temperature, margins
from modhub.calibration.one_against_rest import log_share, log_sum_exp, odds_of, platt
from modhub.calibration.temperature import fit_temperature
from modhub.calibration.thresholds import Thresholds, fit_thresholds, ood_score, weighted_quantile
from modhub.manifest import Calibration

Array: TypeAlias = NDArray[np.float64]
BY_MARGIN, BY_ODDS = "margin", "odds"
"""The kinds of calibration."""
PLAIN_WEIGHT = 0.75
"""Weight of plain training images in every fit; harder copies of them have the rest."""


class Calibrator:
    """Calibrates the classes of a parent from its `logits` (images, labels) on images that nothing was fitted
    on; `targets` (images,) are positions among the labels. Thresholds are fitted with weights of their own.

    `odds` says that composers will know the whole head.
    """

    def __init__(
        self,
        logits: Array,
        targets: NDArray[np.int64],
        weights: Array,
        threshold_weights: Array,
        *,
        odds: bool,
    ) -> None:
        self.targets, self.weights = targets, weights
        self.margins = margins(logits)
        fitted = fit_temperature(logits, targets, weights)
        self.temperature = margin_temperature(fitted, logits.shape[1])
        self._total = log_sum_exp(self.temperature * self.margins) if odds else None
        own = self.margins[np.arange(len(targets)), targets]
        if (share := self._share(own)) is not None:
            own = ood_score(own, share, self.temperature)
        self.thresholds = fit_thresholds(own, self.margins.max(1), targets, threshold_weights)

    def calibration(self, row: int) -> Calibration:
        """Of the class in that row of the parent's head."""
        margin = self.margins[:, row]
        return fit_calibration(
            margin,
            self.targets == row,
            self.weights,
            self.temperature,
            self.thresholds,
            share=self._share(margin),
        )

    def slope(self, row: int) -> float:
        """Of log-odds that are a line of the margin."""
        return platt(self.margins[:, row], self.targets == row, self.weights)[0]

    def _share(self, margin: Array) -> Array | None:
        return None if self._total is None else log_share(self.temperature * margin, self._total)


def fit_calibration(
    margin: Array,
    positive: NDArray[np.bool_],
    weights: Array,
    temperature: float,
    thresholds: Thresholds | None = None,
    *,
    share: Array | None = None,
) -> Calibration:
    """The calibration of one class from its margins (images,) on images of all classes.

    Without the `thresholds` of its parent the class has one to itself. `share` (images,) is the log of the
    class's share in the softmax of all classes, for the kind `odds`; None for the kind `margin`.
    """
    answer = margin if share is None else odds_of(share)
    score = margin if share is None else ood_score(margin, share, temperature)
    slope, intercept = platt(answer, positive, weights)
    normalised = weights[positive] / weights[positive].sum()
    mean, deviation = _moments(margin[positive], normalised)
    if thresholds is None:
        threshold = weighted_quantile(score[positive], normalised)
        thresholds = Thresholds(threshold, threshold)
    false_accept = float(np.average(score[~positive] > thresholds.alone, weights=weights[~positive]))
    parameters = {
        "temperature": temperature,
        "slope": slope,
        "intercept": intercept,
        "margin_mean": mean,
        "margin_std": deviation,
        "threshold": (thresholds.alone - mean) / deviation,
        "threshold_all": (thresholds.together - mean) / deviation,
        "false_accept": false_accept,
    }
    if share is None:
        return Calibration(kind=BY_MARGIN, parameters=parameters)
    mean, deviation = _moments(answer[positive], normalised)
    return Calibration(kind=BY_ODDS, parameters={**parameters, "odds_mean": mean, "odds_std": deviation})


def log_odds(logits: Array, row: int, calibration: Calibration) -> Array:
    """(images,) of the class in `row` of logits (images, labels), against its parent's other classes."""
    numbers = calibration.parameters
    if calibration.kind == BY_ODDS:
        scaled = logit_temperature(numbers["temperature"], logits.shape[1]) * logits
        answer = odds_of(log_share(scaled[:, row], log_sum_exp(scaled)))
    else:
        answer = margin_of(logits, row)
    return np.asarray(numbers["slope"] * answer + numbers["intercept"])


def _moments(values: Array, share: Array) -> tuple[float, float]:
    """Mean and standard deviation, which is positive; `share` sums to 1."""
    mean = float((share * values).sum())
    least = 1e-6 * (float(np.abs(values).max()) or 1.0)
    return mean, max(float(np.sqrt((share * (values - mean) ** 2).sum())), least)
