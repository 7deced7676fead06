"""A slim network's margins are not its parent's: least squares draws them together, and towards their mean.

Ranking classes does not mind. A single class that answers yes or no does, and so does "none of these": both
compare a margin with fixed numbers. So these numbers are fitted again, to what the parent says of the same
images: its log-odds as soft labels (Platt 1999, on both sides alike), and the mean and spread of the margins
of images that it calls its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modhub.compose.heads import CALIBRATION_FIELDS, HeadTensors
from modhub.decompose.calibration import fit_log_odds

__all__ = ["recalibrated"]

_FEWEST = 20
"""Images on a side; with fewer nothing is fitted."""
_PLACE = {name: number for number, name in enumerate(CALIBRATION_FIELDS)}


def recalibrated(head: HeadTensors, whole: Tensor, slim: Tensor) -> HeadTensors:
    """`head` with calibrations for the margins `slim` (images, classes) of the slim network, given the
    parent's, `whole`, of the same images."""
    calibration = head.calibration.clone()
    for row in range(len(head.rows)):
        numbers = head.calibration[:, row]
        before, after = (each[:, row].double().cpu().numpy() for each in (whole, slim))
        odds = float(numbers[_PLACE["slope"]]) * before + float(numbers[_PLACE["intercept"]])
        yes = odds > 0
        if yes.sum() >= _FEWEST:
            stretch = float(after[yes].std() / max(float(before[yes].std()), 1e-9))
            away = float(numbers[_PLACE["margin_mean"]]) - float(before[yes].mean())
            calibration[_PLACE["margin_mean"], row] = float(after[yes].mean()) + stretch * away
            calibration[_PLACE["margin_std"], row] *= stretch
        if len(head.rows) == 1 and yes.sum() >= _FEWEST and (~yes).sum() >= _FEWEST:
            # Log-odds are at even prior odds; these images have others, which weights make even.
            prior = float(yes.mean())
            here = _chance(odds + np.log(prior / (1 - prior)))
            fitted = fit_log_odds(after, here / prior + (1 - here) / (1 - prior), _chance(odds))
            calibration[_PLACE["slope"], row], calibration[_PLACE["intercept"], row] = fitted
    return replace(head, calibration=calibration)


def _chance(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds.clip(-30, 30))))
