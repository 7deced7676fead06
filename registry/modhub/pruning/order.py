"""In which order channels can go, for one class or a set of classes.

Removing channels of a value and guessing them from those that stay leaves an error e; to second order the
margin moves by E[(gᵀe)²], g its gradient. That is the saliency of a channel: what the margin moves by when
it goes next (`modhub.pruning.elimination`, Hassibi & Stork 1993). Slots that several values share have the
sum of their saliencies; groups compare by saliency per multiply-add saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.nets import ChannelGroup, ChannelSpace, Mask, Network, cost, slice_network, weightless
from modhub.pruning.elimination import (
    BLOCK,
    GroupValue,
    conditional_variance,
    eliminate,
    initial_saliencies,
)
from modhub.pruning.statistics import ClassStatistics, Moments, positive

Array: TypeAlias = NDArray[np.float64]
_RIDGE = 1e-4
_EXACT = 1024
"""Groups with more slots than this are ordered by their initial saliencies only."""


@dataclass(frozen=True, slots=True)
class PruningOrder:
    """Slots in the order in which they go, and the (rising) saliency per unit of cost at which each goes."""

    slots: NDArray[np.int64]
    saliency: Array


def pruning_order(
    statistics: ClassStatistics,
    space: ChannelSpace,
    costs: Array,
    *,
    branches: bool = False,
    block: int = BLOCK,
) -> PruningOrder:
    """All slots that can go, the least saliency per cost first. `costs` (slots,) is what removing each saves.

    At least one slot of every group stays, but for those of residual branches where `branches` may go as a
    whole. The order inside a group does not depend on the other groups, so a prefix of the order for one
    budget is a prefix of that for any smaller one. `block` changes the speed only (see `eliminate`).
    """
    inside = _innermost(space) if branches else {}
    slots: list[NDArray[np.int64]] = []
    saliencies_by_group: dict[str, Array] = {}
    for group in space.groups:
        if not group.cuttable or group.size < 2:
            continue
        order, saliencies = _group_order(group, statistics, space, block)
        if group.name not in inside:
            order, saliencies = order[:-1], saliencies[:-1]
        slots.append(order)
        # A later slot may be less salient than an earlier one of its group; it still goes after it.
        saliencies_by_group[group.name] = np.maximum.accumulate(saliencies / costs[order].clip(1e-12))
    # The last channels of a branch go together, when the most salient of them may.
    for members in _by_value(inside).values():
        largest = max(saliencies_by_group[name][-1] for name in members)
        for name in members:
            saliencies_by_group[name][-1] = largest
    return _merged(slots, list(saliencies_by_group.values()))


def _innermost(space: ChannelSpace) -> dict[str, str]:
    """Group -> the innermost branch that it is part of, by its sum; a branch with a group of one channel,
    which stays, is none."""
    innermost: dict[str, str] = {}
    for branch in sorted(space.branches, key=lambda branch: len(branch.slots)):
        groups = space.groups_of(branch)
        if all(group.size > 1 for group in groups):
            for group in groups:
                innermost.setdefault(group.name, branch.sum)
    return innermost


def _by_value(names: Mapping[str, str]) -> dict[str, list[str]]:
    inverted: dict[str, list[str]] = {}
    for key, value in names.items():
        inverted.setdefault(value, []).append(key)
    return inverted


def _merged(slots: list[NDArray[np.int64]], saliencies: list[Array]) -> PruningOrder:
    if not slots:
        return PruningOrder(np.zeros(0, np.int64), np.zeros(0))
    all_slots, all_saliencies = np.concatenate(slots), np.concatenate(saliencies)
    rank = np.argsort(all_saliencies, kind="stable")
    return PruningOrder(all_slots[rank], all_saliencies[rank])


def mask_after(order: PruningOrder, count: int, space: ChannelSpace, multiple: int = 1) -> Mask:
    """What is kept when the first `count` slots of the order are gone.

    With a `multiple` the last slots that went of each group come back until it keeps a multiple of that, or
    all. A prefix of the order still keeps all that a longer one does.
    """
    mask = space.full_mask()
    mask[order.slots[:count]] = False
    if multiple > 1:
        for group in space.groups:
            gone = _gone_of(group, order, count)
            _give_back(mask, gone, -(group.size - len(gone)) % multiple)
    for branch in space.branches:
        # A branch goes as a whole or not at all.
        if mask[branch.slots].any():
            for group in space.groups_of(branch):
                if not mask[group.slots].any():
                    _give_back(mask, _gone_of(group, order, count), multiple)
    return space.close(mask)


def _gone_of(group: ChannelGroup, order: PruningOrder, count: int) -> NDArray[np.int64]:
    gone = order.slots[:count]
    return gone[(gone >= group.start) & (gone < group.start + group.size)]


def _give_back(mask: Mask, gone: NDArray[np.int64], count: int) -> None:
    mask[gone[max(len(gone) - count, 0) :]] = True


def importance(statistics: ClassStatistics, space: ChannelSpace) -> Array:
    """(slots,) what each slot is worth alone: sensitivity × variance, summed over the values it stands in."""
    worth = np.zeros(space.slots)
    for name, moments in statistics.moments.items():
        layout = space.of(name)
        alive = layout >= 0
        np.add.at(worth, layout[alive], (statistics.sensitivity[name] * moments.variance)[alive])
    return worth


def relevance_tensor(statistics: ClassStatistics, space: ChannelSpace) -> Tensor:
    """`importance` as a module carries it."""
    # A variance that is nothing may be computed as a little less.
    return as_relevance(importance(statistics, space).clip(0))


def as_relevance(worth: Array) -> Tensor:
    """What each slot is worth (slots,), from 0 on, as a module carries it: float16, the largest 1."""
    return torch.from_numpy(worth / positive(worth.max(initial=0.0))).half()


def slot_costs(network: Network, space: ChannelSpace) -> Array:
    """(slots,) multiply-adds that go with each slot while everything else stays."""
    network = weightless(network)
    whole = cost(network).flops
    saved = np.zeros(space.slots)
    # (values, slots) how often each slot stands in each value.
    places = np.zeros((len(space.values), space.slots), np.int64)
    for number, value in enumerate(space.values):
        layout = space.of(value)
        np.add.at(places[number], layout[layout >= 0], 1)
    for group in space.groups:
        if not group.cuttable or group.size < 2:
            continue
        # Slots of a group differ when some stand in more values than others: one probe per kind.
        kinds: dict[bytes, list[int]] = {}
        for slot in range(group.start, group.start + group.size):
            kinds.setdefault(places[:, slot].tobytes(), []).append(slot)
        for members in kinds.values():
            mask = space.full_mask()
            mask[members[0]] = False
            saving = whole - cost(slice_network(network, mask, space=space)).flops
            saved[members] = saving
    return saved


def order_work(space: ChannelSpace, values: Iterable[str]) -> int:
    """About how many numbers `pruning_order` changes for one class."""
    layouts = [space.of(name) for name in values]
    work = 0
    for group in space.groups:
        if group.cuttable and 2 <= group.size <= _EXACT:
            sizes = [
                int(((layout >= group.start) & (layout < group.start + group.size)).sum())
                for layout in layouts
            ]
            work += group.size * sum(size * size for size in sizes)
    return work


class QuickOrder:
    """`pruning_order` by initial saliencies only, for many classes that share one set of correlations.

    With Σ = DRD, D a class's deviations, the variance of a channel given all others is d² / (R⁻¹)_jj: R is
    inverted once for all classes.
    """

    def __init__(self, correlations: Mapping[str, NDArray[Any]], space: ChannelSpace, costs: Array) -> None:
        """`correlations` (channels, channels) by value; a value without them counts as uncorrelated."""
        self.costs = costs
        self.parts: list[tuple[ChannelGroup, list[tuple[str, NDArray[np.bool_], Array]]]] = []
        for group in space.groups:
            if not group.cuttable or group.size < 2:
                continue
            values = []
            for name in space.values:
                layout = space.of(name)
                inside = (layout >= group.start) & (layout < group.start + group.size)
                if name in correlations and inside.any():
                    values.append((name, inside, _unexplained(correlations[name], inside, layout[inside])))
            self.parts.append((group, values))
        self.layouts = {name: space.of(name) for name in correlations}

    def order(self, deviations: Mapping[str, Array], sensitivity: Mapping[str, Array]) -> PruningOrder:
        """For a class with these deviations and sensitivities, (channels,) by value."""
        slots, per_group = [], []
        for group, values in self.parts:
            saliencies = np.zeros(group.size)
            for name, inside, share in values:
                terms = sensitivity[name][inside] * deviations[name][inside] ** 2 * share
                np.add.at(saliencies, self.layouts[name][inside] - group.start, terms)
            order = np.argsort(saliencies, kind="stable")[:-1]
            slots.append(group.start + order)
            costs = self.costs[group.start + order].clip(1e-12)
            per_group.append(np.maximum.accumulate(saliencies[order] / costs))
        return _merged(slots, per_group)


def _unexplained(correlations: NDArray[Any], inside: NDArray[np.bool_], slots: NDArray[np.int64]) -> Array:
    """(channels,) share of each one's variance that other slots of its group do not explain."""
    if correlations.ndim == 1:
        return np.ones(int(inside.sum()))
    block = correlations[np.ix_(inside, inside)].astype(np.float64)
    block[np.diag_indices(len(block))] += _RIDGE
    return conditional_variance(np.linalg.inv(block).astype(np.float64), slots).clip(None, 1.0)


def _group_order(
    group: ChannelGroup, statistics: ClassStatistics, space: ChannelSpace, block: int
) -> tuple[NDArray[np.int64], Array]:
    """All slots of a group, and the saliency at which each goes."""
    values = [
        value
        for name, moments in statistics.moments.items()
        if (value := _value_of(group, space.of(name), moments, statistics.sensitivity[name])) is not None
    ]
    if group.size > _EXACT or any(value.precision.ndim == 1 for value in values):
        saliencies = initial_saliencies(group.size, values)
        order = np.argsort(saliencies, kind="stable")
        return group.start + order, saliencies[order]
    order, saliencies = eliminate(group.size, values, block)
    return group.start + order, saliencies


def _value_of(
    group: ChannelGroup, layout: NDArray[np.int64], moments: Moments, sensitivity: Array
) -> GroupValue | None:
    inside = (layout >= group.start) & (layout < group.start + group.size)
    if not inside.any():
        return None
    slots = layout[inside] - group.start
    slope = sensitivity[inside]
    if moments.covariance.ndim == 1 or len(slots) > _EXACT:
        return GroupValue(slots, 1 / moments.variance[inside].clip(1e-30), slope)
    covariance: Array = moments.covariance[np.ix_(inside, inside)].astype(np.float64)
    floor = _RIDGE * positive(np.diagonal(covariance).mean())
    inverse = np.linalg.inv(covariance + np.eye(len(covariance)) * floor)
    return GroupValue(slots, np.asarray(inverse, np.float64), np.diag(slope))
