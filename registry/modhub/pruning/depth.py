"""In which order whole residual branches can go for a set of classes, measured on images.

Saliencies of channels are of second order and count each position of an image by itself. That ranks
channels, but a branch moves all positions together: what the last blocks add is averaged over the image,
where their channels' saliencies fall short by a factor of ten. So the network is run once without each
branch, the branch's mean in its place. By how much the margins move is a vector over images and classes; the
vectors of several branches are added, so that two branches which do the same do not count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from modhub.nets import Branch, ChannelSpace, Network, Runner, channel_space, cost, slice_network

Margins: TypeAlias = Callable[[Network], Tensor]
"""(images, classes) margins of a trunk with its batch-norms fused."""

_BATCH = 50


@dataclass(frozen=True, slots=True)
class _Loss:
    """Of one branch: by what the margins move without it, (images, classes), and the time that saves."""

    effect: Tensor
    saving: float


def branch_order(dense: Network, images: Tensor, margins: Margins) -> tuple[str, ...]:
    """All residual branches of `dense` by the names of their sums: next goes the one that adds the least to
    the squared distance of the margins, for the time it saves.

    `dense` has its batch-norms fused; `images` (images, channels, height, width) are normalised, and
    `margins` gives those of a network on them. One pass of the network for each branch, and two more.
    """
    space = channel_space(dense)
    if not space.branches:
        return ()
    left = _losses(dense, space, images, margins)
    order: list[str] = []
    gone = torch.zeros(())
    while left:
        before = distance(gone)
        name = min(left, key=lambda name: (distance(gone + left[name].effect) - before) / left[name].saving)
        gone = gone + left.pop(name).effect
        order.append(name)
    return tuple(order)


def distance(effect: Tensor) -> float:
    """The mean square of (images, classes)."""
    return float(effect.square().mean())


def evenly(images: Tensor, most: int) -> Tensor:
    """At most `most` of them, evenly spaced."""
    return images[torch.linspace(0, len(images) - 1, min(len(images), most)).round().long()]


def _losses(dense: Network, space: ChannelSpace, images: Tensor, margins: Margins) -> dict[str, _Loss]:
    unpruned, means = margins(dense), _means(dense, space.branches, images)
    losses = {}
    for branch in space.branches:
        mask = space.full_mask()
        mask[branch.slots] = False
        without = slice_network(dense, mask, space=space)
        value = without.of(without.graph.node[branch.sum])["value"]
        without = without.with_tensors(branch.sum, value=_shaped(means[branch.sum], value))
        saving = cost(dense).time - cost(without).time
        losses[branch.sum] = _Loss(margins(without) - unpruned, saving)
    return losses


def _means(dense: Network, branches: Sequence[Branch], images: Tensor) -> dict[str, Tensor]:
    """What each branch adds on the average: (…) the sum's shape without the batch."""
    values = {name for branch in branches for name in (branch.sum, branch.other)}
    runner = Runner(dense)
    totals = {branch.sum: torch.zeros(()) for branch in branches}
    with torch.inference_mode():
        for batch in torch.split(images, _BATCH):
            seen = runner.observe(batch, values)
            for branch in branches:
                added = (seen[branch.sum] - seen[branch.other]).sum(0)
                totals[branch.sum] = totals[branch.sum] + added / len(images)
    return {name: total.clone() for name, total in totals.items()}


def _shaped(mean: Tensor, value: Tensor) -> Tensor:
    """Averaged wherever the value has one number for many."""
    alike = [dim for dim, size in enumerate(value.shape) if size == 1]
    return mean.mean(alike, keepdim=True).contiguous() if alike else mean
