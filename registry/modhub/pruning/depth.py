"""In which order whole residual branches can go for a set of classes, measured on images.

The charges of channels are of second order and count each place of an image by itself. That ranks channels,
but a branch moves all places together: what the last blocks of a network say is averaged over the image,
where their channels' charges fall short by a factor of ten. So the network is asked once without each branch,
its mean in its place. What it says then, minus what it said, is a vector over images and classes; those of
several branches are added up, which sees that two of them do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modhub.nets import Branch, ChannelSpace, Network, Runner, channel_space, cost, slice_network

__all__ = ["Answers", "branch_order", "distance", "evenly"]

Answers = Callable[[Network], Tensor]
"""(images, classes) margins of a trunk with its batch-norms fused."""

_WORK = 1e12
"""Multiply-adds that asking without each branch may take."""
_IMAGES = (20, 200)
"""The fewest and the most images that are asked for."""
_BATCH = 50


@dataclass(frozen=True, slots=True)
class _Loss:
    """Of one branch: by what the answers move without it, (images, classes), and the time that saves."""

    effect: Tensor
    saving: float


def branch_order(dense: Network, images: Tensor, answers: Callable[[Tensor], Answers]) -> tuple[str, ...]:
    """All residual branches of `dense` by the names of their sums: next goes the one that adds the least to
    the squared distance of the answers, for the time it saves.

    `dense` has its batch-norms fused; `images` (images, channels, height, width) are normalised, and
    `answers` asks a network about some of them.
    """
    space = channel_space(dense)
    if not space.branches:
        return ()
    most = _WORK / max(len(space.branches) * cost(dense).flops, 1)
    asked = evenly(images, int(min(max(most, _IMAGES[0]), _IMAGES[1])))
    left = _losses(dense, space, asked, answers(asked))
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


def _losses(dense: Network, space: ChannelSpace, images: Tensor, answers: Answers) -> dict[str, _Loss]:
    whole, means = answers(dense), _means(dense, space.branches, images)
    found = {}
    for branch in space.branches:
        mask = space.full_mask()
        mask[branch.slots] = False
        without = slice_network(dense, mask, space=space)
        value = without.of(without.graph.node[branch.sum])["value"]
        without = without.with_tensors(branch.sum, value=_shaped(means[branch.sum], value))
        saving = cost(dense).time - cost(without).time
        found[branch.sum] = _Loss(answers(without) - whole, saving)
    return found


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
