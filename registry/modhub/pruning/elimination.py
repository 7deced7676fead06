"""Optimal elimination: the channels of one group removed one at a time, the least salient next.

With M the quadratic form of the margin's change in the channels' errors, and P = Σ⁻¹ the precision of the
channels that are left, removing channel j costs M_jj / P_jj: 1 / P_jj is its variance given the others. Then
M takes over what hung on j through its best linear guess, and j leaves P (a Schur complement): the surgeon's
step of Hassibi & Stork 1993 (NeurIPS 5), on activations instead of weights. Channels S that go together, as
those of a head of attention, cost tr(M_SS (P_SS)⁻¹).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
BLOCK = 64
"""Removed channels after which the matrices of those that are left are updated."""


@dataclass(frozen=True, slots=True)
class GroupValue:
    """The channels of one value that belong to a group: `slots` (channels,) inside the group, their precision
    and the quadratic form of the margin's change, both (channels, channels), or (channels,) where channels
    are taken for independent."""

    slots: NDArray[np.int64]
    precision: Array
    form: Array


def eliminate(size: int, values: Sequence[GroupValue], block: int = BLOCK) -> tuple[NDArray[np.int64], Array]:
    """The order (size,) in which the slots of a group go, and the saliency (size,) of each when it goes.

    A slot that several values share costs the sum over them. `block` changes the speed, not the result.
    """
    eliminations = [_Elimination(value, block) for value in values]
    order, saliency = np.zeros(size, np.int64), np.zeros(size)
    gone = np.zeros(size, np.bool_)
    for step in range(size):
        saliencies = sum((elimination.saliencies(size) for elimination in eliminations), np.zeros(size))
        saliencies[gone] = np.inf
        slot = int(saliencies.argmin())
        order[step], saliency[step] = slot, max(saliencies[slot], 0.0)
        gone[slot] = True
        for elimination in eliminations:
            elimination.remove(slot)
    return order, saliency


def initial_saliencies(size: int, values: Sequence[GroupValue]) -> Array:
    """(size,) what removing each slot costs while all others stay."""
    saliencies = np.zeros(size)
    for value in values:
        form = value.form if value.form.ndim == 1 else np.diagonal(value.form)
        np.add.at(saliencies, value.slots, form * conditional_variance(value.precision, value.slots))
    return saliencies


def conditional_variance(precision: Array, slots: NDArray[np.int64]) -> Array:
    """(channels,) the variance of each channel given those of the other `slots` (channels,)."""
    if precision.ndim == 1:
        return np.asarray(1 / precision)
    variance = np.asarray(1 / np.diagonal(precision))
    for members in shared(slots):
        variance[members] = np.diagonal(np.linalg.inv(precision[np.ix_(members, members)]))
    return variance


def shared(slots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The channels of each slot that has several."""
    numbers, counts = np.unique(slots, return_counts=True)
    return [np.flatnonzero(slots == number) for number in numbers[counts > 1]]


class _Elimination:
    """The channels of one value that are left.

    Each removal changes both matrices by a product of vectors. The vectors are collected and applied a block
    at a time; saliencies depend on the diagonals only, which are updated at once.
    """

    def __init__(self, value: GroupValue, block: int) -> None:
        self.slots = value.slots
        self._precision, self._form = value.precision.copy(), value.form.copy()
        self._precision_diagonal = np.diagonal(value.precision).copy()
        self._form_diagonal = np.diagonal(value.form).copy()
        self._alive = np.ones(len(value.slots), np.bool_)
        self._shared = shared(value.slots)
        # For each channel removed since the last update: its row of the precision, its row of the form, and
        # its best linear guess from the channels that are left.
        self._rows, self._forms, self._guesses = np.zeros((3, block, len(value.slots)))
        self._collected = 0

    def saliencies(self, size: int) -> Array:
        """(size,) what removing each slot next costs."""
        saliencies = np.zeros(size)
        np.add.at(
            saliencies,
            self.slots[self._alive],
            (self._form_diagonal / self._precision_diagonal)[self._alive],
        )
        for members in self._shared:
            if self._alive[members[0]]:
                precision, form = self._block(members)
                saliencies[self.slots[members[0]]] = np.trace(np.linalg.solve(precision, form))
        return saliencies

    def _block(self, members: NDArray[np.int64]) -> tuple[Array, Array]:
        """Both matrices of these channels as they are now."""
        done, block = self._collected, np.ix_(members, members)
        rows, forms, guesses = (
            vectors[:done, members] for vectors in (self._rows, self._forms, self._guesses)
        )
        crossed = forms.T @ guesses
        return self._precision[block] + rows.T @ guesses, self._form[block] + crossed + crossed.T

    def remove(self, slot: int) -> None:
        """Remove every channel of the slot."""
        for channel in np.flatnonzero((self.slots == slot) & self._alive):
            self._remove(int(channel))

    def _remove(self, channel: int) -> None:
        done = self._collected
        rows, forms, guesses = self._rows[:done], self._forms[:done], self._guesses[:done]
        row = self._precision[channel] + rows[:, channel] @ guesses
        pull = self._form[channel] + forms[:, channel] @ guesses + guesses[:, channel] @ forms
        guess = -row / row[channel]
        # a gᵀ + g aᵀ + w g gᵀ is (a + w/2 g) gᵀ and its transpose.
        pull += pull[channel] / 2 * guess
        self._alive[channel] = False
        for vector, collected in ((row, self._rows), (pull, self._forms), (guess, self._guesses)):
            vector[~self._alive] = 0.0
            collected[done] = vector
        self._precision_diagonal += row * guess
        self._form_diagonal += 2 * pull * guess
        self._collected += 1
        if self._collected == len(self._rows):
            self._precision += self._rows.T @ self._guesses
            crossed = self._forms.T @ self._guesses
            self._form += crossed + crossed.T
            self._collected = 0
