"""Masks of single positions of a value, as the method `concern` makes them.

A module stores them as `position_mask.<value>`, uint8 (channel, height, width) or (feature,), 1 where alive.
A value without a mask is alive everywhere. Position masks make nothing smaller or faster by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["POSITION_MASK", "position_masks", "position_tensors", "unite_positions"]

POSITION_MASK = "position_mask."


def position_masks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Value name → bool mask, from a module's tensors; feed it to `nets.mask_positions`."""
    return {
        name.removeprefix(POSITION_MASK): tensor.bool()
        for name, tensor in tensors.items()
        if name.startswith(POSITION_MASK)
    }


def position_tensors(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `position_masks`; a mask that is alive everywhere is left out."""
    return {
        f"{POSITION_MASK}{value}": mask.to(torch.uint8)
        for value, mask in masks.items()
        if not bool(mask.all())
    }


def unite_positions(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Alive where any part is alive: a value stays masked only if every part masks it."""
    shared = set.intersection(*(set(part) for part in parts)) if parts else set()
    united = {}
    for value in sorted(shared):
        mask = torch.stack([part[value].bool() for part in parts]).any(0)
        if not bool(mask.all()):
            united[value] = mask
    return united
