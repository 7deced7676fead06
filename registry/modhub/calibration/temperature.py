"""The temperature of a parent: how sure its softmax may be (Guo et al. 2017, arXiv 1706.04599, §4.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_temperature"]

_LOWEST, _HIGHEST = 0.01, 100.0
"""Of τ times the spread of the logits."""
_STEPS = 40


def fit_temperature(
    logits: NDArray[np.float64], targets: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """τ > 0 that minimises the weighted cross-entropy of softmax(τ · logits), logits (images, labels).

    τ is the inverse of the paper's T. Found by golden-section search in units of the logits' own spread: for
    logits k times as large it is 1/k of that. Logits that are all alike have 1.
    """
    spread = float(
        np.sqrt(np.average(np.square(logits - logits.mean(1, keepdims=True)).mean(1), weights=weights))
    )
    if not spread:
        return 1.0
    logits = logits / spread

    def loss(log_scale: float) -> float:
        scaled = logits * math.exp(log_scale)
        scaled = scaled - scaled.max(1, keepdims=True)
        picked = scaled[np.arange(len(targets)), targets] - np.log(np.exp(scaled).sum(1))
        return -float((weights * picked).sum())

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2) / spread
