"""One class against the rest: its head, and the log-odds of its answer.

The head of a module has the class's row, and one row for everything else (Pan & Rajan 2022, §3.3).
`slope`, `intercept` turn what it answers into log-odds at even prior odds (Platt 1999, with his soft
targets).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[np.float64]
_LEAST = 1e-12


def one_against_rest_head(weight: Tensor, bias: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """(2, features) and (2,): row `row`, and the mean of all others, zeros when there are none."""
    # A product with the matrix as it stands: copying all rows but one takes ten times as long.
    share = torch.full_like(bias, 1 / max(len(bias) - 1, 1))
    share[row] = 0
    return torch.stack([weight[row], share @ weight]), torch.stack([bias[row], share @ bias])


def log_sum_exp(logits: Array) -> Array:
    """(images,) of logits (images, labels)."""
    top = logits.max(1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(1)))


def log_share(logit: Array, total: Array) -> Array:
    """(images,) log of the share that `logit` (images,) has in the softmax of logits whose `log_sum_exp` is
    `total` (images,)."""
    # A share of 1 would have no odds.
    return np.minimum(logit - total, -_LEAST)


def odds_of(share: Array) -> Array:
    """(images,) log(p / (1 − p)) of log p (images,)."""
    return np.asarray(share - np.log(-np.expm1(share)))


def platt(answer: Array, positive: NDArray[np.bool_], weights: Array) -> tuple[float, float]:
    """slope > 0 and intercept of the log-odds at even prior odds: each side weighs the same in all."""
    share = np.where(positive, weights / weights[positive].sum(), weights / weights[~positive].sum())
    softened_yes = (positive.sum() + 1) / (positive.sum() + 2)
    softened_no = 1 / ((~positive).sum() + 2)
    return fit_log_odds(answer, share, np.where(positive, softened_yes, softened_no))


def fit_log_odds(answer: Array, share: Array, chance: Array) -> tuple[float, float]:
    """slope > 0 and intercept of the log-odds whose cross-entropy with `chance` (images,) is least, each
    image with the weight of its `share`. Newton's method, damped."""
    scale = float(np.abs(answer).mean()) or 1.0
    design = np.stack([answer / scale, np.ones_like(answer)], 1)
    line = np.array([1.0, 0.0])
    for _ in range(50):
        guess = 1 / (1 + np.exp(-(design @ line).clip(-30, 30)))
        gradient = design.T @ (share * (guess - chance)) + 1e-6 * line
        curve = (design * (share * guess * (1 - guess))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        line = line - step
        if float(np.abs(step).max()) < 1e-8:
            break
    return max(float(line[0]), 1e-6) / scale, float(line[1])


def balanced_accuracy(accepted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    """Mean of the shares of positives accepted and of negatives refused."""
    return float((accepted[positive].mean() + (~accepted[~positive]).mean()) / 2)
