"""The head of one module: the class's row, and one row for everything else (Pan & Rajan 2022, §3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modhub.nets import TAIL_STEPS, Head

__all__ = ["channelled_head", "head_tensors", "tail_of"]


def channelled_head(weight: Tensor, bias: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """(2, features) and (2,): row `row`, and the mean of all others, zeros when there are none."""
    # A product with the matrix as it stands: copying all rows but one takes ten times as long.
    share = torch.full_like(bias, 1 / max(len(bias) - 1, 1))
    share[row] = 0
    return torch.stack([weight[row], share @ weight]), torch.stack([bias[row], share @ bias])


def head_tensors(head: Head, row: int) -> dict[str, Tensor]:
    """As they stand in a module: `head.weight`, `head.bias`, and `head.tail` (steps,) if it has one."""
    weight, bias = channelled_head(head.weight, head.bias, row)
    tensors = {"head.weight": weight, "head.bias": bias}
    if head.tail:
        tensors["head.tail"] = torch.tensor([TAIL_STEPS.index(step) for step in head.tail], dtype=torch.uint8)
    return tensors


def tail_of(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The steps that follow the head of a module with these tensors."""
    tail = tensors.get("head.tail")
    return (
        () if tail is None else tuple(TAIL_STEPS[int(step)] for step in tail if int(step) < len(TAIL_STEPS))
    )
