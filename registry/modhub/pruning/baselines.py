"""Other orders in which channels can go than that of their charges (`modhub.pruning.order`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modhub.nets import ChannelSpace
from modhub.pruning.order import Removal

__all__ = ["begun", "random_removal", "relevance_order"]


def relevance_order(worth: NDArray[np.float64], space: ChannelSpace, costs: NDArray[np.float64]) -> Removal:
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
    price = worth[slots] / costs[slots].clip(1e-12)
    rank = np.argsort(price, kind="stable")
    return Removal(slots[rank], price[rank])


def begun(removal: Removal, first: Sequence[NDArray[np.int64]]) -> Removal:
    """The same order, but that the slots of `first` go before all others."""
    begun = np.concatenate([np.zeros(0, np.int64), *first])
    slots = np.concatenate([begun, removal.slots[~np.isin(removal.slots, begun)]])
    return Removal(slots, np.arange(len(slots), dtype=np.float64))


def random_removal(space: ChannelSpace, seed: int, *, branches: bool = False) -> Removal:
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
    return Removal(every, np.arange(len(every), dtype=np.float64))
