"""Other orders in which channels can go than by saliency (`modhub.pruning.order`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modhub.nets import ChannelSpace, Mask
from modhub.pruning.order import PruningOrder


def best_slots(worth: NDArray[np.float64], space: ChannelSpace, share: float) -> Mask:
    """The mask (slots,) that keeps this share of the slots that can be cut, those worth most; of equals the
    first. It is closed."""
    cuttable = np.zeros(space.slots, np.bool_)
    for group in space.groups:
        cuttable[group.slots] = group.cuttable
    slots = np.flatnonzero(cuttable)
    gone = slots[np.argsort(-worth[slots], kind="stable")][round(share * len(slots)) :]
    mask = space.full_mask()
    mask[gone] = False
    return space.close(mask)


def relevance_order(
    worth: NDArray[np.float64], space: ChannelSpace, costs: NDArray[np.float64]
) -> PruningOrder:
    """The least worth per cost first, both (slots,), for modules without statistics; one slot of every group
    stays."""
    slots = np.concatenate(
        [
            group.start + np.argsort(worth[group.slots], kind="stable")[:-1]
            for group in space.groups
            if group.cuttable
        ]
        or [np.zeros(0, np.int64)]
    )
    saliency = worth[slots] / costs[slots].clip(1e-12)
    rank = np.argsort(saliency, kind="stable")
    return PruningOrder(slots[rank], saliency[rank])


def with_first(order: PruningOrder, first: Sequence[NDArray[np.int64]]) -> PruningOrder:
    """The same order, but that the slots of `first` go before all others."""
    front = np.concatenate([np.zeros(0, np.int64), *first])
    slots = np.concatenate([front, order.slots[~np.isin(order.slots, front)]])
    return PruningOrder(slots, np.arange(len(slots), dtype=np.float64))


def random_order(space: ChannelSpace, seed: int, *, branches: bool = False) -> PruningOrder:
    """The control: slots go in a random order, spread over the groups; one of each group stays.

    With `branches` each residual branch goes as a whole at a random moment, if anything of it is left.
    """
    draw = np.random.default_rng(seed)
    slots = [
        group.start + draw.permutation(group.size)[:-1]
        for group in space.groups
        if group.cuttable and group.size > 1
    ]
    every = draw.permutation(np.concatenate([np.zeros(0, np.int64), *slots]).astype(np.int64))
    if branches:
        moment = np.full(space.slots, np.inf)
        moment[every] = np.linspace(0, 1, len(every))
        for branch in space.branches:
            moment[branch.slots] = moment[branch.slots].clip(max=draw.uniform())
        every = np.argsort(moment, kind="stable")[: int(np.isfinite(moment).sum())]
    return PruningOrder(every, np.arange(len(every), dtype=np.float64))
