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
        slope, intercept = float(numbers[_PLACE["slope"]]), float(numbers[_PLACE["intercept"]])
        chance = 1 / (1 + np.exp(-(slope * before + intercept).clip(-30, 30)))
        yes = chance > 0.5
        if yes.sum() >= _FEWEST:
            shift, stretch = _moved(before[yes], after[yes])
            calibration[_PLACE["margin_mean"], row] += shift
            calibration[_PLACE["margin_std"], row] *= stretch
        if len(head.rows) == 1 and yes.sum() >= _FEWEST and (~yes).sum() >= _FEWEST:
            share = chance / chance.sum() + (1 - chance) / (1 - chance).sum()
            fitted = fit_log_odds(after, share, chance / chance.sum() / share)
            calibration[_PLACE["slope"], row], calibration[_PLACE["intercept"], row] = fitted
    return replace(head, calibration=calibration)


def _moved(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
    """How far the mean has moved, and by which factor the spread has grown."""
    return float(after.mean() - before.mean()), float(after.std() / max(float(before.std()), 1e-9))
