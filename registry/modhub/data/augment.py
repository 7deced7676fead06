"""Harder copies of training images.

A parent is surer of the images it was trained on than of any others. Random crops of 70 to 100 % of each
side, flips, and changes of brightness, contrast and saturation by up to 30 % bring its margins on training
images down to what it shows on unseen ones; calibration is fitted on a mixture of both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MIRRORED = 0.5


def mirrored(count: int, seed: int) -> Tensor:
    """(count,) bool: which copies that `augmented` makes with this seed stand in a mirror."""
    draw = torch.Generator().manual_seed(seed)
    _size, _stretch, mirror = (torch.rand(count, generator=draw) for _ in range(3))
    return mirror >= _MIRRORED


def augmented(images: Tensor, seed: int) -> Tensor:
    """One changed copy of each image, uint8 (batch, channel, height, width); same seed, same copy."""
    draw = torch.Generator().manual_seed(seed)
    count = len(images)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=draw)

    size = 0.7 + 0.3 * uniform()
    stretch = torch.exp((uniform() - 0.5) * 0.3)
    mirror = (uniform() < _MIRRORED).float() * 2 - 1
    room = (1 - size).clamp(min=0.12)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0] = size * stretch * mirror
    place[:, 1, 1] = size / stretch
    place[:, 0, 2] = (uniform() * 2 - 1) * room
    place[:, 1, 2] = (uniform() * 2 - 1) * room
    values = images.float()
    grid = F.affine_grid(place, list(values.shape), align_corners=False)
    values = F.grid_sample(values, grid, padding_mode="reflection", align_corners=False)
    values = values * (1 + 0.3 * (uniform(1, 1, 1) * 2 - 1))
    middle = values.mean((1, 2, 3), keepdim=True)
    values = (values - middle) * (1 + 0.3 * (uniform(1, 1, 1) * 2 - 1)) + middle
    grey = values.mean(1, keepdim=True)
    values = (values - grey) * (1 + 0.3 * (uniform(1, 1, 1) * 2 - 1)) + grey
    return values.clamp(0, 255).round().byte()
