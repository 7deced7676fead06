"""The head of one module: the class's row, and one row for everything else (Pan & Rajan 2022, §3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["one_against_rest_head"]


def one_against_rest_head(weight: Tensor, bias: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """(2, features) and (2,): row `row`, and the mean of all others, zeros when there are none."""
    # A product with the matrix as it stands: copying all rows but one takes ten times as long.
    share = torch.full_like(bias, 1 / max(len(bias) - 1, 1))
    share[row] = 0
    return torch.stack([weight[row], share @ weight]), torch.stack([bias[row], share @ bias])
