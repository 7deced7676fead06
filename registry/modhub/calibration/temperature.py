"""The temperature of a parent: how sure its softmax may be (Guo et al. 2017, arXiv 1706.04599, §4.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_temperature"]

_LOWEST, _HIGHEST = 0.02, 20.0
_STEPS = 40


def fit_temperature(
    logits: NDArray[np.float64], targets: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """τ > 0 that minimises the weighted cross-entropy of softmax(τ · logits), logits (images, labels).

    τ is the inverse of the paper's T. Found by golden-section search between 0.02 and 20.
    """

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
    return math.exp((low + high) / 2)
