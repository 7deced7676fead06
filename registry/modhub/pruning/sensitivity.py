"""How much a class's margin hangs on each channel, by its gradient g at the positions of a value.

On trunks without attention it is E[Σ_positions g²], the diagonal of the Fisher information of the margin
(Theis et al. 2018, arXiv 1801.05787, §2.1, there for whole feature maps).

That takes errors at different positions for independent. Tokens are not: what a head says at one it says at
all. When a channel x is replaced by its mean μ, the margin moves by a = Σ_positions (x − μ) g to first order
(the Taylor criterion of Molchanov et al. 2017, arXiv 1611.06440, §2.2), and the sensitivity is E[a²] / Var x.
Channels of one slot go together, as in a head (Michel et al. 2019, arXiv 1905.10650, §2.3): their a are
summed. On convolutional networks both give much the same order, and published modules have the first.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.nets import Graph

Array: TypeAlias = NDArray[np.float64]
_TOGETHER = 256
"""Numbers kept for each channel, at most: of the slots with the most channels, each counts by itself."""
_FLOOR = 1e-6
"""Of the mean variance of a value: a channel that hardly moves is not divided by nothing."""


class SensitivitySums(Protocol):
    """Sums over the images of some classes, for one value."""

    sums: Tensor
    """(classes, …) float64."""

    def add(self, value: Tensor, gradient: Tensor, place: Tensor) -> None:
        """Both (batch, channels, …); image i is of class `place[i]`."""

    def sensitivity(self, mean: Array, variance: Array, images: int, row: int = 0) -> Array:
        """(channels,) from the channels' mean and variance over the `images` of the class `row`."""


def sensitivity_sums(graph: Graph, layout: NDArray[np.int64], classes: int = 1) -> SensitivitySums:
    """For a value of `graph` whose channels have the slots `layout` (channels,)."""
    if graph.schema_version > 1:
        return _Moves(layout, classes)
    return _Squares(len(layout), classes)


def over_positions(value: Tensor) -> Tensor:
    """(batch, channels, …) summed over positions: (batch, channels)."""
    return value if value.dim() == 2 else value.flatten(2).sum(2)


class _Squares:
    def __init__(self, channels: int, classes: int) -> None:
        self.sums = torch.zeros(classes, channels, dtype=torch.float64)

    def add(self, value: Tensor, gradient: Tensor, place: Tensor) -> None:
        self.sums.index_add_(0, place, over_positions(gradient.square()).double().cpu())

    def sensitivity(self, mean: Array, variance: Array, images: int, row: int = 0) -> Array:
        return (self.sums[row] / images).numpy()


class _Moves:
    """`sums` (classes, 3, slots, members, members) are products of u = Σ x·g with u, of u with v = Σ g, and
    of v with v, since the mean is known only at the end."""

    def __init__(self, layout: NDArray[np.int64], classes: int) -> None:
        self.members = _members(layout)
        most = self.members.shape[1]
        self.sums = torch.zeros(classes, 3, len(self.members), most, most, dtype=torch.float64)

    def add(self, value: Tensor, gradient: Tensor, place: Tensor) -> None:
        u, v = (self._by_slot(over_positions(each).double().cpu()) for each in (value * gradient, gradient))
        for row in sorted(set(place.tolist())):
            a, b = u[:, place == row], v[:, place == row]
            for kind, (left, right) in enumerate(((a, a), (a, b), (b, b))):
                self.sums[row, kind] += torch.einsum("sbi,sbj->sij", left, right)

    def sensitivity(self, mean: Array, variance: Array, images: int, row: int = 0) -> Array:
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
    layout = np.where(layout >= 0, layout, layout.max(initial=0) + 1 + np.arange(len(layout)))
    _, slots, counts = np.unique(layout, return_inverse=True, return_counts=True)
    most = int(counts.max(initial=1))
    while (np.where(counts > most, counts, 1).sum() * most**2) > _TOGETHER * len(layout):
        most = int(counts[counts < most].max(initial=1))
    slots = np.where((counts > most)[slots], len(counts) + np.arange(len(layout)), slots)
    _, slots, counts = np.unique(slots, return_inverse=True, return_counts=True)
    order = np.argsort(slots, kind="stable")
    starts = np.cumsum(counts) - counts
    members = np.full((len(counts), counts.max(initial=1)), -1, np.int64)
    members[slots[order], np.arange(len(order)) - starts[slots[order]]] = order
    return members
