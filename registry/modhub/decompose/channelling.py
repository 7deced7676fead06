"""The head of one module: the class's row, and one row for everything else (Pan & Rajan 2022, §3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modhub.nets import TAIL_STEPS, Head

__all__ = ["channelled_head", "head_tensors", "tail_of"]


def channelled_head(weight: Tensor, bias: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """(2, features) and (2,): row `row`, and the mean of all others, zeros when there are none."""
    others = [index for index in range(len(weight)) if index != row]
    rest = (weight[others].mean(0), bias[others].mean()) if others else (weight[row] * 0, bias[row] * 0)
    return torch.stack([weight[row], rest[0]]), torch.stack([bias[row], rest[1]])


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
