"""A slim network's margins are not its parent's: least squares draws them together, and towards their mean.

Ranking classes is not affected. A class that is composed alone is, and so is "none of these": both compare a
margin with fixed numbers. So these numbers are fitted again, to the parent's answers on the same images: its
log-odds as soft labels (Platt 1999, on both sides alike), and the mean and spread of the margins of images
that it assigns to the class. The images must be others than those that the network was fitted on, whose
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
from modhub.composition.classifier import HeadOutput, TrunkPass
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.heads import CALIBRATION_FIELDS

_PLACE = {name: number for number, name in enumerate(CALIBRATION_FIELDS)}


def recalibrate(
    slim: TrunkPass,
    unpruned: TrunkPass,
    images: Iterable[tuple[Tensor, float]],
    settings: FitSettings = DEFAULT_SETTINGS,
) -> None:
    """Fit the calibrations of `slim` in place, to the answers of `unpruned` with the same heads on `images`:
    batches of normalised ones, and the weight of each of their images."""
    outputs: list[list[HeadOutput]] = []
    weights: list[Tensor] = []
    with torch.inference_mode():
        for batch, weight in images:
            outputs.append(
                [
                    output
                    for trunk_pass in (slim, unpruned)
                    for output in trunk_pass.outputs_of(trunk_pass.trunk(batch))
                ]
            )
            weights.append(torch.full((len(batch),), weight))
        scores = [HeadScores.of(of_head) for of_head in zip(*outputs, strict=True)]
    count = len(slim.heads)
    for number, head in enumerate(slim.heads):
        head.calibration.copy_(
            recalibrated(
                head.calibration,
                scores[count + number],
                scores[number],
                torch.cat(weights),
                settings.calibration_side,
            )
        )


@dataclass(frozen=True, slots=True)
class HeadScores:
    """Of one head, (images, classes) each: the `ood_score`, which thresholds are compared with, and the
    `odds`, which log-odds are a line of."""

    ood_score: NDArray[np.float64]
    odds: NDArray[np.float64]

    @classmethod
    def of(cls, outputs: Sequence[HeadOutput]) -> HeadScores:
        """From the head's outputs for some batches."""
        ood_score = [output.head.ood_score(output.margin, output.rest) for output in outputs]
        odds = [output.head.odds(output.margin, output.rest) for output in outputs]
        return cls(*(torch.cat(batches).double().cpu().numpy() for batches in (ood_score, odds)))


def recalibrated(
    numbers: Tensor,
    unpruned: HeadScores,
    slim: HeadScores,
    weights: Tensor,
    fewest: int = DEFAULT_SETTINGS.calibration_side,
) -> Tensor:
    """`numbers` (fields, classes) for the slim network's scores of some images, given the unpruned one's;
    `weights` (images,). With less than `fewest` images on a side nothing is fitted."""
    calibration = numbers.clone()
    share = weights.double().numpy()
    for row in range(numbers.shape[1]):
        field = dict(zip(CALIBRATION_FIELDS, numbers[:, row].tolist(), strict=True))
        before, after = unpruned.odds[:, row], slim.odds[:, row]
        odds = field["slope"] * before + field["intercept"]
        yes = odds > 0
        if yes.sum() >= fewest:
            (mean, deviation), (old_mean, old_deviation) = (
                _moments(scores.ood_score[yes, row], share[yes]) for scores in (slim, unpruned)
            )
            stretch = deviation / old_deviation if old_deviation else 1.0
            offset = field["margin_mean"] - old_mean
            calibration[_PLACE["margin_mean"], row] = mean + stretch * offset
            calibration[_PLACE["margin_std"], row] *= stretch
        if numbers.shape[1] == 1 and yes.sum() >= fewest and (~yes).sum() >= fewest:
            # Log-odds are at even prior odds; these images have others, which weights make even.
            prior = float(np.average(yes, weights=share))
            here = _probability(odds + np.log(prior / (1 - prior)))
            even = share * (here / prior + (1 - here) / (1 - prior))
            fitted = fit_log_odds(after, even, _probability(odds))
            calibration[_PLACE["slope"], row], calibration[_PLACE["intercept"], row] = fitted
    return calibration


def _moments(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted mean and standard deviation."""
    mean = float(np.average(values, weights=weights))
    return mean, float(np.sqrt(np.average(np.square(values - mean), weights=weights)))


def _probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds.clip(-30, 30))))
