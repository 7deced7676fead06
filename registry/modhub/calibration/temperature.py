"""The temperature of a parent: how sure its softmax may be (Guo et al. 2017, arXiv 1706.04599, §4.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LOWEST, _HIGHEST = 0.01, 100.0
"""Of τ times the spread of the logits."""
_STEPS = 100
_TOLERANCE = 1e-9


def fit_temperature(
    logits: NDArray[np.float64], targets: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """τ > 0 that minimises the weighted cross-entropy of softmax(τ · logits), logits (images, labels).

    τ is the inverse of the paper's T. The loss is convex in it: found by Newton's method, with bisection
    where a step leaves the bracket, in units of the logits' own spread: for logits k times as large it is
    1/k of that. Logits that are all alike have 1.
    """
    spread = float(
        np.sqrt(np.average(np.square(logits - logits.mean(1, keepdims=True)).mean(1), weights=weights))
    )
    if not spread:
        return 1.0
    logits = logits / spread
    logits -= logits.max(1, keepdims=True)
    wanted = float(weights @ logits[np.arange(len(targets)), targets])
    low, high, scale = _LOWEST, _HIGHEST, 1.0
    for _ in range(_STEPS):
        shares = np.exp(scale * logits)
        shares /= shares.sum(1, keepdims=True)
        shares *= logits
        expected = shares.sum(1)
        slope = float(weights @ expected) - wanted
        curvature = float(weights @ (np.einsum("ij,ij->i", shares, logits) - expected**2))
        low, high = (low, scale) if slope > 0 else (scale, high)
        step = scale - slope / curvature if curvature > 0 else high
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - scale) <= _TOLERANCE * scale:
            break
        scale = following
    return scale / spread
