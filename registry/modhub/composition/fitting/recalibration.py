"""A slim network's margins are not its parent's: least squares draws them together, and towards their mean.

Ranking classes does not mind. A single class that answers yes or no does, and so does "none of these": both
compare a margin with fixed numbers. So these numbers are fitted again, to what the parent says of the same
images: its log-odds as soft labels (Platt 1999, on both sides alike), and the mean and spread of the margins
of images that it calls its own. The images must be others than those that the network was fitted on, whose
margins are not drawn together as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.one_against_rest import fit_log_odds
from modhub.composition.classifier import HeadAnswer, TrunkPass
from modhub.composition.heads import CALIBRATION_FIELDS

__all__ = ["Compared", "recalibrate", "recalibrated"]

_FEWEST = 10
"""Images on a side; with fewer nothing is fitted."""
_PLACE = {name: number for number, name in enumerate(CALIBRATION_FIELDS)}


def recalibrate(slim: TrunkPass, whole: TrunkPass, images: Iterable[tuple[Tensor, float]]) -> None:
    """Fit the calibrations of `slim` in place, to what `whole` with the same heads says of `images`: batches
    of normalised ones, and how much each of them counts."""
    said: list[list[HeadAnswer]] = []
    weights: list[Tensor] = []
    with torch.inference_mode():
        for batch, weight in images:
            said.append([a for each in (slim, whole) for a in each.answers_to(each.trunk(batch))])
            weights.append(torch.full((len(batch),), weight))
        compared = [Compared.of(parts) for parts in zip(*said, strict=True)]
    count = len(slim.heads)
    for number, head in enumerate(slim.heads):
        numbers = recalibrated(
            head.calibration, compared[count + number], compared[number], torch.cat(weights)
        )
        head.calibration.copy_(numbers)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a head's numbers are compared with, (images, classes) each: `evidence` with thresholds; `odds`,
    which log-odds are a line of."""

    evidence: NDArray[np.float64]
    odds: NDArray[np.float64]

    @classmethod
    def of(cls, answers: Sequence[HeadAnswer]) -> Compared:
        """From one head's answers to some batches."""
        evidence = [each.head.evidence(each.margin, each.against) for each in answers]
        odds = [each.head.odds(each.margin, each.against) for each in answers]
        return cls(*(torch.cat(each).double().cpu().numpy() for each in (evidence, odds)))


def recalibrated(numbers: Tensor, whole: Compared, slim: Compared, weights: Tensor) -> Tensor:
    """`numbers` (fields, classes) for what the slim network says of some images, given what the `whole` one
    says of them; `weights` (images,) say how much each counts."""
    calibration = numbers.clone()
    share = weights.double().numpy()
    for row in range(numbers.shape[1]):
        own = dict(zip(CALIBRATION_FIELDS, numbers[:, row].tolist(), strict=True))
        before, after = whole.odds[:, row], slim.odds[:, row]
        odds = own["slope"] * before + own["intercept"]
        yes = odds > 0
        if yes.sum() >= _FEWEST:
            (mean, deviation), (old_mean, old_deviation) = (
                _moments(each.evidence[yes, row], share[yes]) for each in (slim, whole)
            )
            stretch = deviation / max(old_deviation, 1e-9)
            away = own["margin_mean"] - old_mean
            calibration[_PLACE["margin_mean"], row] = mean + stretch * away
            calibration[_PLACE["margin_std"], row] *= stretch
        if numbers.shape[1] == 1 and yes.sum() >= _FEWEST and (~yes).sum() >= _FEWEST:
            # Log-odds are at even prior odds; these images have others, which weights make even.
            prior = float(np.average(yes, weights=share))
            here = _chance(odds + np.log(prior / (1 - prior)))
            even = share * (here / prior + (1 - here) / (1 - prior))
            fitted = fit_log_odds(after, even, _chance(odds))
            calibration[_PLACE["slope"], row], calibration[_PLACE["intercept"], row] = fitted
    return calibration


def _moments(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted mean and standard deviation."""
    mean = float(np.average(values, weights=weights))
    return mean, float(np.sqrt(np.average(np.square(values - mean), weights=weights)))


def _chance(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds.clip(-30, 30))))
