"""Multinomial logistic regression that starts from a linear head and is pulled to it.

The pull is a normal prior around the head (MAP adaptation, Chelba & Acero 2006): with few images the head
stays what it was, with many it becomes the regression.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
_STEPS = 8


def refined_head(
    features: Array, targets: NDArray[np.int64], weight: Array, bias: Array, strength: float
) -> tuple[Array, Array]:
    """`weight` (classes, features) and `bias` (classes,) refined on `features` (images, features), whose
    variances are about 1, of classes `targets` (images,).

    Minimises the sum of the images' cross-entropies plus `strength` / 2 times the squared distance from the
    given head. A few steps of L-BFGS: it need not converge to be better than the head.
    """
    inputs = torch.from_numpy(np.concatenate([features, np.ones((len(features), 1))], 1))
    wanted = torch.from_numpy(targets)
    start = torch.from_numpy(np.concatenate([weight, bias[:, None]], 1))
    rows = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([rows], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = torch.nn.functional.cross_entropy(inputs @ rows.T, wanted)
        total = entropy + strength / (2 * len(inputs)) * (rows - start).square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = rows.detach().numpy()
    return found[:, :-1].copy(), found[:, -1].copy()


def refinement_work(images: int, features: int, classes: int) -> int:
    """About how many multiply-adds `refined_head` takes."""
    return 3 * _STEPS * images * features * classes
