"""The channels of one value, and how reshapes, sums and products of values carry them on.

Channels are bookkept by ids: the same id at two values is the same channel, which lives and dies as one. A
value has them along one dimension, along several (a head and the features in it) or along none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modhub.nets.graph import Node
from modhub.nets.operators import Shape, keeps_zero

Ids: TypeAlias = NDArray[np.int64]
Kept: TypeAlias = NDArray[np.bool_]


class Ledger(Protocol):
    """Who remembers ids and what is known about them."""

    splits: bool
    """Whether a reshape may lay channels over several dimensions. Modules on graphs of version 1 were
    published with slots that count channel i of every part as one."""

    def fresh(self, count: int, name: str) -> Ids:
        """New channels, made by node `name`."""

    def tie(self, first: Ids, second: Ids) -> None:
        """Pairwise the same from here on; broadcast to each other."""

    def freeze(self, ids: Ids, reason: str) -> None:
        """They cannot be cut, and why: a clause that follows the group's name."""

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The channels of one value: their ids and which are zero everywhere (padded), both of the extents of
    `axes`, the dimensions that count channels, in order."""

    ids: Ids
    zero: Kept
    axes: tuple[int, ...]

    @classmethod
    def of(cls, ids: Ids, *axes: int) -> Trace:
        return cls(ids, np.zeros(ids.shape, np.bool_), axes)

    @property
    def axis(self) -> int:
        """The dimension that counts channels; -1 where none does, or several."""
        return self.axes[0] if len(self.axes) == 1 else -1

    def passed(self, node: Node) -> Trace:
        """The same channels after an operator that treats each by itself."""
        if keeps_zero(node.op, node.attributes):
            return self
        return replace(self, zero=np.zeros_like(self.zero))

    def merged(self, dims: Collection[int], ledger: Ledger) -> Trace:
        """What is left when all channels along `dims` live and die together."""
        ids, zero = self.ids, self.zero
        for position in reversed(range(len(self.axes))):
            if self.axes[position] in dims:
                ledger.tie(ids.take([0], position), ids)
                ids, zero = np.asarray(ids.take(0, position)), np.asarray(zero.all(position))
        return Trace(ids, zero, tuple(a for a in self.axes if a not in dims))

    def on(self, axes: Sequence[int]) -> Trace:
        """The same channels in dimensions called otherwise, in any order."""
        order = np.argsort(axes)
        return Trace(self.ids.transpose(order), self.zero.transpose(order), tuple(axes[at] for at in order))

    def spread(self, axes: Sequence[int]) -> Trace:
        """With the dimensions `axes`, of extent 1 where it has no channels along them."""
        new = [at for at, axis in enumerate(axes) if axis not in self.axes]
        return Trace(np.expand_dims(self.ids, new), np.expand_dims(self.zero, new), tuple(axes))


def merged_dimension(shape: Shape, axis: int, target: Shape) -> tuple[int, int, int] | None:
    """Where a reshape puts the dimension `axis`: (dimension of the target, copies before, copies inside).

    The target's dimension holds, in this order, `before` × channels × `inside` numbers. None when the
    channels are split up or mixed with what is not whole.

    >>> merged_dimension((64, 7, 7), 0, (3136,))
    (0, 1, 49)
    """
    for position, size in enumerate(target):
        lead = math.prod(target[:position])
        for start in range(axis, -1, -1):
            for stop in range(axis + 1, len(shape) + 1):
                if math.prod(shape[:start]) == lead and math.prod(shape[start:stop]) == size:
                    return position, math.prod(shape[start:axis]), math.prod(shape[axis + 1 : stop])
    return None


def split_dimension(shape: Shape, axis: int, target: Shape) -> int | None:
    """The dimension of the target over which a reshape that splits the dimension `axis` lays its channels:
    k·n of them as (k, n), as split attention does. None when it does something else.

    >>> split_dimension((128, 7, 7), 0, (2, 64, 7, 7))
    1
    """
    for position, size in enumerate(target):
        rest = math.prod(target[position + 1 :])
        if size > 1 and shape[axis] % size == 0 and rest == math.prod(shape[axis + 1 :]):
            return position
    return None


def reshaped(trace: Trace, shape: Shape, target: Shape) -> Trace:
    """Each channel wherever its numbers go: merged with positions it is repeated, split up it lies along
    several dimensions.

    >>> heads = reshaped(Trace.of(np.arange(6), 1), (5, 6), (5, 3, 2))
    >>> heads.axes, heads.ids.tolist()
    ((1, 2), [[0, 1], [2, 3], [4, 5]])
    """
    ids, zero = trace.ids, trace.zero
    axes: list[int] = []
    for sources, targets in _factors(shape, target):
        inside = [axis for axis in trace.axes if axis in sources]
        if not inside:
            continue
        done = len(axes)
        extents = [shape[axis] for axis in inside]
        # Which channel of these dimensions each number of the part is.
        places = np.arange(math.prod(extents)).reshape([shape[d] if d in inside else 1 for d in sources])
        places = np.broadcast_to(places, [shape[d] for d in sources]).reshape([target[d] for d in targets])
        flat = (*ids.shape[:done], -1, *ids.shape[done + len(inside) :])
        ids, zero = (array.reshape(flat).take(places, done) for array in (ids, zero))
        axes += targets
        for at in reversed(range(done, len(axes))):
            if all((array == array.take([0], at)).all() for array in (ids, zero)):
                ids, zero = np.asarray(ids.take(0, at)), np.asarray(zero.take(0, at))
                del axes[at]
    return Trace(ids, zero, tuple(axes))


def _factors(shape: Shape, target: Shape) -> Iterator[tuple[range, range]]:
    """The dimensions of both sides that hold the same numbers, as finely as may be."""
    i = j = 0
    while i < len(shape) or j < len(target):
        first, second = i, j
        left = right = 1
        while left != right or first == i or second == j:
            # The last dimensions of extent 1 belong to the last part.
            if (left <= right and i < len(shape)) or j == len(target):
                if i == len(shape):
                    break
                left, i = left * shape[i], i + 1
            else:
                right, j = right * target[j], j + 1
        yield range(first, i), range(second, j)


def joined(
    traces: Sequence[Trace],
    shapes: Sequence[Shape],
    ledger: Ledger,
    zero_of: Callable[[Sequence[Kept]], Kept] = np.logical_and.reduce,
) -> Trace | None:
    """Values that meet number by number, broadcast: the channels that meet are one.

    Along a dimension where one of them has full extent and no channels, those of the others stay together.
    A value with a single channel is spread over the others and ties nothing. None where channels of one meet
    nothing that counts them.
    """
    out = tuple(max(extents) for extents in zip(*shapes, strict=True))
    traces = [
        _without_single(trace, [a for a in trace.axes if shape[a] < out[a]])
        for trace, shape in zip(traces, shapes, strict=True)
    ]
    every = {axis for trace in traces for axis in trace.axes}
    closed = {
        axis
        for axis in every
        for trace, shape in zip(traces, shapes, strict=True)
        if axis not in trace.axes and shape[axis] > 1
    }
    axes = sorted(every - closed)
    if any(trace.axes and not set(trace.axes) - closed for trace in traces):
        return None
    parts = [trace.merged(closed, ledger) for trace in traces]
    full = [part for part in parts if part.axes == tuple(axes)]
    if not full:
        return None
    for part in parts:
        if part.axes:
            ledger.tie(full[0].ids, part.spread(axes).ids)
    zeros = [np.broadcast_to(part.spread(axes).zero, full[0].ids.shape) for part in parts]
    return Trace(full[0].ids, np.asarray(zero_of(zeros)), tuple(axes))


def _without_single(trace: Trace, axes: Collection[int]) -> Trace:
    """Without dimensions of extent 1, which are broadcast."""
    at = tuple(position for position, axis in enumerate(trace.axes) if axis in axes)
    kept = tuple(axis for axis in trace.axes if axis not in axes)
    return Trace(trace.ids.squeeze(at), trace.zero.squeeze(at), kept)


def product(left: Trace, right: Trace, shapes: Sequence[Shape], ledger: Ledger, reason: str) -> Trace | None:
    """(…, n, k) · (…, k, m). None where no dimension of the result counts channels.

    Dimensions before the last two are heads: all that one head reads, on both sides, goes with it. Without
    heads channels that are summed over meet pairwise, and rows of the one or columns of the other pass on.
    What fits neither is frozen for that `reason`.
    """
    rank = len(shapes[0])
    row, column = rank - 2, rank - 1
    left, right = (
        _without_single(trace, [a for a in trace.axes if shape[a] == 1])
        for trace, shape in zip((left, right), shapes, strict=True)
    )
    heads = {axis for trace in (left, right) for axis in trace.axes if axis < row}
    if heads:
        parts = []
        for trace in (left, right):
            if trace.axes and not heads.intersection(trace.axes):
                # Every head reads it.
                ledger.freeze(trace.ids, reason)
                trace = Trace(trace.ids.flat[0:1].reshape(()), np.asarray(False), ())
            parts.append(trace.merged({row, column}, ledger))
        together = joined(parts, [shape[:row] for shape in shapes], ledger)
        if together is None:
            for part in parts:
                ledger.freeze(part.ids, reason)
        return together
    summed, rows, columns = left.axes == (column,) and right.axes == (row,), (row,), (column,)
    if summed:
        ledger.tie(left.ids, right.ids)
        return None
    for trace, usable in ((left, rows), (right, columns)):
        if trace.axes not in ((), usable) or (left.axes == rows and right.axes == columns):
            ledger.freeze(trace.ids, reason)
    if left.axes == rows and right.axes != columns:
        return Trace.of(left.ids, row)
    if right.axes == columns and left.axes != rows:
        return Trace.of(right.ids, column)
    return None
