"""How much a class's margin hangs on each channel.

When a channel x is replaced by its mean μ at all positions of an image, the margin moves by
a = Σ_positions (x − μ) · ∂margin/∂x, to first order (the Taylor criterion of Molchanov et al. 2017, arXiv
1611.06440, §2.2). The sensitivity is E[a²] / Var[x]: what the margin moves by, squared, per unit of the
channel's variance. Positions are summed before squaring, since what a channel says at one it often says at
all. Channels of one slot go together (a head of attention, Michel et al. 2019, arXiv 1905.10650, §2.3): their
a are summed, and share one sensitivity.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SlopeSums", "over_positions"]

Array: TypeAlias = NDArray[np.float64]
_TOGETHER = 256
"""A slot with more channels in a value than this counts each by itself."""
_FLOOR = 1e-6
"""Of the mean variance of a value: a channel that hardly moves is not divided by nothing."""


def over_positions(value: Tensor) -> Tensor:
    """(batch, channels, …) summed over positions: (batch, channels)."""
    return value if value.dim() == 2 else value.flatten(2).sum(2)


class SlopeSums:
    """Sums over the images of some classes, for one value whose channels have the slots `layout` (channels,).

    `sums` (classes, 3, slots, members, members) are products of u = Σ x · ∂m/∂x with u, of u with
    v = Σ ∂m/∂x, and of v with v, since the mean is known only at the end.
    """

    def __init__(self, layout: NDArray[np.int64], classes: int = 1) -> None:
        self.members = _members(layout)
        most = self.members.shape[1]
        self.sums = torch.zeros(classes, 3, len(self.members), most, most, dtype=torch.float64)

    def add(self, value: Tensor, gradient: Tensor, place: Tensor | None = None) -> None:
        """Both (batch, channels, …); image i is of class `place[i]`, or all are of class 0."""
        u, v = (self._by_slot(over_positions(each).double().cpu()) for each in (value * gradient, gradient))
        if place is None:
            place = torch.zeros(len(value), dtype=torch.int64)
        for row in sorted(set(place.tolist())):
            a, b = u[:, place == row], v[:, place == row]
            for kind, (left, right) in enumerate(((a, a), (a, b), (b, b))):
                self.sums[row, kind] += torch.einsum("sbi,sbj->sij", left, right)

    def sensitivity(self, mean: Array, variance: Array, images: int, row: int = 0) -> Array:
        """(channels,) from the channels' mean and variance over the `images` of the class `row`."""
        inside = self.members >= 0
        means = np.where(inside, mean[self.members], 0.0)
        spreads = np.where(inside, variance[self.members].clip(0), 0.0).sum(1)
        squares, mixed, slopes = (self.sums[row] / images).numpy()
        moved = (
            squares.sum((1, 2))
            - 2 * np.einsum("sij,sj->s", mixed, means)
            + np.einsum("si,sij,sj->s", means, slopes, means)
        )
        per_variance = moved.clip(0) / (spreads + _FLOOR * variance.clip(0).mean() + 1e-30)
        sensitivity = np.zeros(len(mean))
        sensitivity[self.members[inside]] = np.broadcast_to(per_variance[:, None], inside.shape)[inside]
        return sensitivity

    def _by_slot(self, sums: Tensor) -> Tensor:
        """(batch, channels) -> (slots, batch, members), 0 where a slot has fewer members."""
        padded = torch.cat([sums, torch.zeros_like(sums[:, :1])], 1)
        return padded[:, torch.from_numpy(self.members)].movedim(1, 0)


def _members(layout: NDArray[np.int64]) -> NDArray[np.int64]:
    """(slots, members) the channels of each slot; -1 where there are fewer."""
    _, slots, counts = np.unique(layout, return_inverse=True, return_counts=True)
    apart = (counts > _TOGETHER)[slots] | (layout < 0)
    slots = np.where(apart, len(counts) + np.arange(len(layout)), slots)
    _, slots, counts = np.unique(slots, return_inverse=True, return_counts=True)
    order = np.argsort(slots, kind="stable")
    starts = np.cumsum(counts) - counts
    members = np.full((len(counts), counts.max(initial=1)), -1, np.int64)
    members[slots[order], np.arange(len(order)) - starts[slots[order]]] = order
    return members
