"""The order of several modules of one class, by the metrics recorded in their manifests.

Metrics of images that the parent was not trained on come first: those of training images overestimate. Then
modules are ordered by the lower end of Wilson's interval (E. B. Wilson, Probable inference, 1927) of their
balanced accuracy, so that of two modules without an error the one measured on more images is ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from modhub.formatting import percent
from modhub.manifest.parts import Sample

_DEVIATIONS = 1.96
"""95 % of a normal distribution lie within."""
_USUAL = 25
"""Images of the class and of others where a manifest does not say how many; about as many as were usual."""


def ranking_key(metrics: Mapping[str, float], sample: Sample | None) -> tuple[bool, float]:
    """The sort key of modules, the best last: whether the metrics are of unseen images, and `at_least`."""
    bound = at_least(metrics, sample)
    return (sample is not None and sample.unseen and bound is not None, -1.0 if bound is None else bound)


def at_least(metrics: Mapping[str, float], sample: Sample | None) -> float | None:
    """The lower bound of a module's balanced accuracy at 97.5 % confidence, None where nothing is recorded.

    Without a balanced accuracy it is the mean of recall and precision, or recall alone.
    """
    positives, negatives = (_USUAL, _USUAL) if sample is None else (sample.positives, sample.negatives)
    if (share := _share(metrics)) is None:
        return None
    # The mean of two shares, of `positives` and of `negatives` images, varies no more than one share of that.
    count = 2 * min(positives, negatives) if "balanced_accuracy" in metrics else positives
    return _wilson(share, count)


def shown_bound(metrics: Mapping[str, float], sample: Sample | None) -> str:
    """The balanced accuracy as tables show it: `at_least` where it was measured on images that the parent was
    not trained on, else the figure itself and that it is not so."""
    share, bound = _share(metrics), at_least(metrics, sample)
    if share is None or bound is None:
        return percent(None)
    if sample is not None and sample.unseen:
        return f"≥ {percent(bound)}"
    return f"{percent(share)} on {'unnamed' if sample is None else 'training'} images"


def _share(metrics: Mapping[str, float]) -> float | None:
    """The balanced accuracy; without one the mean of recall and precision, or recall alone."""
    if (share := metrics.get("balanced_accuracy")) is not None:
        return share
    recall = metrics.get("recall")
    return None if recall is None else (recall + metrics.get("precision", recall)) / 2


def _wilson(share: float, count: int) -> float:
    if not count:
        return 0.0
    square = _DEVIATIONS**2 / count
    spread = math.sqrt(share * (1 - share) * square + square**2 / 4)
    return max(0.0, (share + square / 2 - spread) / (1 + square))
