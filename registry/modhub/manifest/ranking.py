"""The order of several modules of one class, by the metrics recorded in their manifests.

Metrics of images that the parent was not trained on come first: those of training images overestimate. Then
modules are ordered by the lower end of Wilson's interval (E. B. Wilson, Probable inference, 1927) of their
balanced accuracy, so that of two modules without an error the one measured on more images is ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from modhub.manifest.parts import Sample

__all__ = ["at_least", "ranking_key"]

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
    share = metrics.get("balanced_accuracy")
    # The mean of two shares, of `positives` and of `negatives` images, varies no more than one share of that.
    count = 2 * min(positives, negatives)
    if share is None:
        recall = metrics.get("recall")
        if recall is None:
            return None
        share, count = (recall + metrics.get("precision", recall)) / 2, positives
    return _wilson(share, count)


def _wilson(share: float, count: int) -> float:
    if not count:
        return 0.0
    square = _DEVIATIONS**2 / count
    spread = math.sqrt(share * (1 - share) * square + square**2 / 4)
    return max(0.0, (share + square / 2 - spread) / (1 + square))
