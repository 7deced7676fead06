"""In which order channels can go, for one class or a set of classes.

Removing channels of a value and guessing them from the kept ones leaves an error e; to second order the
margin moves by E[(gᵀe)²], g its gradient. With M the matrix of that quadratic form (at first the diagonal of
the sensitivities) and P = Σ⁻¹, the next channel j to go is the one with the smallest M_jj / P_jj: 1 / P_jj is
its variance given all kept channels. Then M takes over what hung on j through the guess, and j leaves P (a
Schur complement): the surgeon's step of Hassibi & Stork 1993, on activations instead of weights. Slots that
several values share are charged for all of them.
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
from modhub.pruning.statistics import ClassStatistics, Moments

__all__ = [
    "QuickOrder",
    "Removal",
    "importance",
    "mask_after",
    "order_work",
    "relevance_tensor",
    "removal_order",
    "slot_costs",
]

Array: TypeAlias = NDArray[np.float64]
_RIDGE = 1e-4
_EXACT = 1024
"""Groups with more slots than this are ordered by their first charges only."""
_BLOCK = 64
"""Channels that leave before the matrices of those that stay are brought up to date."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Slots in the order in which they go, and the (rising) charge per unit of cost at which each goes."""

    slots: NDArray[np.int64]
    price: Array


def removal_order(
    statistics: ClassStatistics, space: ChannelSpace, costs: Array, *, branches: bool = False
) -> Removal:
    """All slots that can go, the cheapest first. `costs` (slots,) is what removing each one saves.

    At least one slot of every group stays, but for those of residual branches where `branches` may go as a
    whole. The order inside a group does not depend on the other groups, so a prefix of the order for one
    budget is a prefix of that for any smaller one.
    """
    inside = _innermost(space) if branches else {}
    slots: list[NDArray[np.int64]] = []
    prices: dict[str, Array] = {}
    for group in space.groups:
        if not group.cuttable or group.size < 2:
            continue
        order, charges = _group_order(group, statistics, space)
        if group.name not in inside:
            order, charges = order[:-1], charges[:-1]
        slots.append(order)
        # A later slot may be cheaper than an earlier one of its group; it still goes after it.
        prices[group.name] = np.maximum.accumulate(charges / costs[order].clip(1e-12))
    # The last channels of a branch go together, when the dearest of them may.
    for members in _by_value(inside).values():
        dearest = max(prices[name][-1] for name in members)
        for name in members:
            prices[name][-1] = dearest
    return _merged(slots, list(prices.values()))


def _innermost(space: ChannelSpace) -> dict[str, str]:
    """Group -> the innermost branch that it is part of, by its sum; a branch with a group of one channel,
    which stays, is none."""
    found: dict[str, str] = {}
    for branch in sorted(space.branches, key=lambda branch: len(branch.slots)):
        groups = space.groups_of(branch)
        if all(group.size > 1 for group in groups):
            for group in groups:
                found.setdefault(group.name, branch.sum)
    return found


def _by_value(names: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in names.items():
        found.setdefault(value, []).append(key)
    return found


def _merged(slots: list[NDArray[np.int64]], prices: list[Array]) -> Removal:
    if not slots:
        return Removal(np.zeros(0, np.int64), np.zeros(0))
    all_slots, all_prices = np.concatenate(slots), np.concatenate(prices)
    rank = np.argsort(all_prices, kind="stable")
    return Removal(all_slots[rank], all_prices[rank])


def mask_after(removal: Removal, count: int, space: ChannelSpace, multiple: int = 1) -> Mask:
    """What is kept when the first `count` slots of the order are gone.

    With a `multiple` the last slots that went of each group come back until it keeps a multiple of that, or
    all. A prefix of the order still keeps all that a longer one does.
    """
    mask = space.full_mask()
    mask[removal.slots[:count]] = False
    if multiple > 1:
        for group in space.groups:
            gone = _gone_of(group, removal, count)
            _give_back(mask, gone, -(group.size - len(gone)) % multiple)
    for branch in space.branches:
        # A branch goes as a whole or not at all.
        if mask[branch.slots].any():
            for group in space.groups_of(branch):
                if not mask[group.slots].any():
                    _give_back(mask, _gone_of(group, removal, count), multiple)
    return space.close(mask)


def _gone_of(group: ChannelGroup, removal: Removal, count: int) -> NDArray[np.int64]:
    gone = removal.slots[:count]
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
    """`importance` as a module carries it: float16 (slots,), the largest 1."""
    worth = importance(statistics, space)
    return torch.from_numpy(worth / max(worth.max(initial=0.0), 1e-30)).half()


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
    """About how many numbers `removal_order` changes for one class."""
    layouts = [space.of(name) for name in values]
    work = 0
    for group in space.groups:
        if group.cuttable and 2 <= group.size <= _EXACT:
            inside = [
                int(((each >= group.start) & (each < group.start + group.size)).sum()) for each in layouts
            ]
            work += group.size * sum(size * size for size in inside)
    return work


class QuickOrder:
    """`removal_order` by first charges only, for many classes that share one set of correlations.

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
                    values.append((name, inside, _left_alone(correlations[name], inside)))
            self.parts.append((group, values))
        self.layouts = {name: space.of(name) for name in correlations}

    def order(self, deviations: Mapping[str, Array], sensitivity: Mapping[str, Array]) -> Removal:
        """For a class with these deviations and sensitivities, (channels,) by value."""
        slots, prices = [], []
        for group, values in self.parts:
            charges = np.zeros(group.size)
            for name, inside, share in values:
                charge = sensitivity[name][inside] * deviations[name][inside] ** 2 * share
                np.add.at(charges, self.layouts[name][inside] - group.start, charge)
            order = np.argsort(charges, kind="stable")[:-1]
            slots.append(group.start + order)
            prices.append(np.maximum.accumulate(charges[order] / self.costs[group.start + order].clip(1e-12)))
        return _merged(slots, prices)


def _left_alone(correlations: NDArray[Any], inside: NDArray[np.bool_]) -> Array:
    """(channels,) share of each one's variance that the others of its group do not explain."""
    if correlations.ndim == 1:
        return np.ones(int(inside.sum()))
    block = correlations[np.ix_(inside, inside)].astype(np.float64)
    block[np.diag_indices(len(block))] += _RIDGE
    return np.asarray(1 / np.diagonal(np.linalg.inv(block)).clip(1.0))


@dataclass(frozen=True, slots=True)
class _Value:
    """One value's share of a group: the slots of its channels, their precision and the quadratic form of the
    margin's changes, both (channels, channels), or where channels are taken for independent (channels,)."""

    slots: NDArray[np.int64]
    precision: Array
    form: Array


class _Leaving:
    """The channels of a value leave one by one; what the margin asked of one is asked of those it is guessed
    from.

    Each that leaves changes both matrices by a product of vectors. These are collected, and taken in a block
    at a time; what a channel is charged hangs on the diagonals only, which are changed at once.
    """

    def __init__(self, value: _Value) -> None:
        self.slots = value.slots
        self._precision, self._form = value.precision.copy(), value.form.copy()
        self._own_precision, self._own_form = (
            np.diagonal(value.precision).copy(),
            np.diagonal(value.form).copy(),
        )
        self._alive = np.ones(len(value.slots), np.bool_)
        # Three vectors for each channel that left since the last block: its row of the precision, what was
        # asked of it, and its guess from the others.
        self._rows, self._asked, self._guess = np.zeros((3, _BLOCK, len(value.slots)))
        self._collected = 0

    def charges(self, count: int) -> Array:
        """(count,) what each slot costs to leave next, of the channels that are still there."""
        charges = np.zeros(count)
        np.add.at(charges, self.slots[self._alive], (self._own_form / self._own_precision)[self._alive])
        return charges

    def leave(self, slot: int) -> None:
        """Every channel of the slot."""
        for channel in np.flatnonzero((self.slots == slot) & self._alive):
            self._leave(int(channel))

    def _leave(self, channel: int) -> None:
        done = self._collected
        rows, asked, guess = self._rows[:done], self._asked[:done], self._guess[:done]
        row = self._precision[channel] + rows[:, channel] @ guess
        pull = self._form[channel] + asked[:, channel] @ guess + guess[:, channel] @ asked
        share = -row / row[channel]
        # a gᵀ + g aᵀ + w g gᵀ is (a + w/2 g) gᵀ and its transpose.
        pull += pull[channel] / 2 * share
        self._alive[channel] = False
        away = ~self._alive
        for vector, kept in ((row, self._rows), (pull, self._asked), (share, self._guess)):
            vector[away] = 0.0
            kept[done] = vector
        self._own_precision += row * share
        self._own_form += 2 * pull * share
        self._collected += 1
        if self._collected == _BLOCK:
            self._precision += self._rows.T @ self._guess
            crossed = self._asked.T @ self._guess
            self._form += crossed + crossed.T
            self._collected = 0


def _group_order(
    group: ChannelGroup, statistics: ClassStatistics, space: ChannelSpace
) -> tuple[NDArray[np.int64], Array]:
    """All slots of a group, and the charge at which each goes."""
    values = [
        value
        for name, moments in statistics.moments.items()
        if (value := _value_of(group, space.of(name), moments, statistics.sensitivity[name])) is not None
    ]
    if group.size > _EXACT or any(value.precision.ndim == 1 for value in values):
        return _by_first_charge(group, values)
    leaving = [_Leaving(value) for value in values]
    order, paid = np.zeros(group.size, np.int64), np.zeros(group.size)
    gone = np.zeros(group.size, np.bool_)
    for step in range(group.size):
        charges = sum((each.charges(group.size) for each in leaving), np.zeros(group.size))
        charges[gone] = np.inf
        slot = int(charges.argmin())
        order[step], paid[step] = group.start + slot, max(charges[slot], 0.0)
        gone[slot] = True
        for each in leaving:
            each.leave(slot)
    return order, paid


def _value_of(
    group: ChannelGroup, layout: NDArray[np.int64], moments: Moments, sensitivity: Array
) -> _Value | None:
    inside = (layout >= group.start) & (layout < group.start + group.size)
    if not inside.any():
        return None
    slots = layout[inside] - group.start
    slope = sensitivity[inside]
    if moments.covariance.ndim == 1 or len(slots) > _EXACT:
        return _Value(slots, 1 / moments.variance[inside].clip(1e-12), slope)
    covariance: Array = moments.covariance[np.ix_(inside, inside)].astype(np.float64)
    floor = _RIDGE * max(float(np.diagonal(covariance).mean()), 1e-12)
    inverse = np.linalg.inv(covariance + np.eye(len(covariance)) * floor)
    return _Value(slots, np.asarray(inverse, np.float64), np.diag(slope))


def _by_first_charge(group: ChannelGroup, values: list[_Value]) -> tuple[NDArray[np.int64], Array]:
    charges = np.zeros(group.size)
    for value in values:
        precision = value.precision if value.precision.ndim == 1 else np.diagonal(value.precision)
        form = value.form if value.form.ndim == 1 else np.diagonal(value.form)
        np.add.at(charges, value.slots, form / precision)
    order = np.argsort(charges, kind="stable")
    return group.start + order, charges[order]
