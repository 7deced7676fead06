"""Which channels of a network live and die together.

Every channel that a convolution or linear layer makes gets an id; operators pass ids on, and some tie them:
y + x makes channel i of y and channel i of x one, a depthwise convolution makes output i and input i one, a
grouped convolution makes all channels of a group one. Channels that are one share a **slot**. Slots that are
made by one layer, or tied to some of another's, form a **group**. A **mask** says for each slot whether it is
kept.

Worked example, y = relu(bn(conv2(x))) + pad(x), x with 2 channels, y with 4, one zero channel padded on each
side: x has the slots (1, 2), pad(x) has (-1, 1, 2, -1), y has (0, 1, 2, 3): one group of 4 slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modhub.errors import CompositionError
from modhub.nets.branches import Branch, residual_branches
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.operators import Shape
from modhub.nets.rules import rule_of
from modhub.nets.traces import Ids, Kept, Trace

Mask = NDArray[np.bool_]
"""(slots,), True = kept."""


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """`size` slots from `start` on, named after the first layer that makes them.

    `reason` says why the group cannot be cut; None when it can.
    """

    name: str
    start: int
    size: int
    reason: str | None = None

    @property
    def cuttable(self) -> bool:
        return self.reason is None

    @property
    def slots(self) -> slice:
        return slice(self.start, self.start + self.size)


class ChannelSpace:
    """All slots of a graph. Made by `channel_space`."""

    def __init__(
        self, graph: Graph, groups: tuple[ChannelGroup, ...], traces: Mapping[str, Trace], slot_of: Ids
    ) -> None:
        self.graph = graph
        self.groups = groups
        self.slots = sum(group.size for group in groups)
        self._traces = traces
        self._layouts = {name: slot_of[trace.ids] for name, trace in traces.items()}
        self._frozen = np.zeros(self.slots, np.bool_)
        for group in groups:
            self._frozen[group.slots] = not group.cuttable
        free = [group.slots for group in groups if group.cuttable]
        self.branches: tuple[Branch, ...] = residual_branches(graph, self._layouts, free, self.slots)

    @property
    def values(self) -> tuple[str, ...]:
        """All values of the graph, the image first."""
        return tuple(self._traces)

    def of(self, value: str) -> Ids:
        """(channels,) slot of each channel of `value`; -1 for a channel that is zero whatever the image."""
        return np.where(self._traces[value].zero, -1, self._layouts[value])

    def axis(self, value: str) -> int:
        """The dimension of `value` that counts channels, the batch not counted."""
        return self._traces[value].axis

    def kept(self, mask: Mask, value: str) -> Kept:
        """(channels,) which channels of `value` a network sliced by `mask` still has."""
        return mask[self._layouts[value]]

    def full_mask(self) -> Mask:
        return np.ones(self.slots, np.bool_)

    def union(self, masks: Iterable[Mask]) -> Mask:
        """Kept where any mask keeps; of no masks, what `close` keeps of nothing."""
        united = np.zeros(self.slots, np.bool_)
        for mask in masks:
            united |= self._checked(mask)
        return self.close(united)

    def close(self, mask: Mask) -> Mask:
        """The smallest mask with all of `mask` that a network can be sliced by.

        Groups that cannot be cut are kept; every value keeps at least one channel (its first, if none), but
        for those of branches that are gone as a whole. Closing a closed mask changes nothing, and the union
        of closed masks is closed.
        """
        closed = self._checked(mask) | self._frozen
        gone = {name for branch in self.gone(closed) for name in branch.nodes}
        for value, layout in self._layouts.items():
            if value not in gone and not closed[layout].any():
                closed[layout[0]] = True
        return closed

    def gone(self, mask: Mask) -> tuple[Branch, ...]:
        """The branches of which `mask` keeps nothing."""
        return tuple(branch for branch in self.branches if not mask[branch.slots].any())

    def groups_of(self, branch: Branch) -> tuple[ChannelGroup, ...]:
        """The groups that a branch's slots are."""
        return tuple(group for group in self.groups if np.isin(group.start, branch.slots))

    def split(self, mask: Mask) -> dict[str, Mask]:
        """Group name -> its part of the mask."""
        mask = self._checked(mask)
        return {group.name: mask[group.slots] for group in self.groups}

    def join(self, parts: Mapping[str, Mask]) -> Mask:
        """The inverse of `split`; groups not named are kept."""
        mask = self.full_mask()
        for group in self.groups:
            if group.name in parts:
                mask[group.slots] = parts[group.name]
        return mask

    def _checked(self, mask: Mask) -> Mask:
        if mask.shape != (self.slots,) or mask.dtype != np.bool_:
            raise CompositionError(
                f"The mask has {mask.size} entries of type {mask.dtype}; the network has {self.slots} slots.",
                hint="A mask belongs to one trunk; check that both come from the same parent.",
            )
        return mask


class _Ledger:
    """A union-find over ids, and one over the blocks in which they were made."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.splits = graph, graph.schema_version > 1
        self.parent: list[int] = []
        self.block: list[int] = []
        self.blocks: list[int] = []
        self.names: list[str] = []
        self.frozen: dict[int, str] = {}

    def fresh(self, count: int, name: str) -> Ids:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        self.block.extend([len(self.blocks)] * count)
        self.blocks.append(len(self.blocks))
        self.names.append(name)
        return np.arange(start, start + count, dtype=np.int64)

    def tie(self, first: Ids, second: Ids) -> None:
        pairs = np.broadcast_arrays(first, second)
        for a, b in zip(*(ids.ravel().tolist() for ids in pairs), strict=True):
            if a != b:
                _join(self.parent, a, b)
                _join(self.blocks, self.block[a], self.block[b])

    def freeze(self, ids: Ids, reason: str) -> None:
        for identity in ids.ravel().tolist():
            self.frozen.setdefault(identity, reason)

    def readers(self, name: str) -> tuple[Node, ...]:
        return self.graph.readers[name]

    def roots(self, ids: Ids) -> Ids:
        """The first of all channels that are one with each."""
        return np.array([_root(self.parent, identity) for identity in ids.ravel().tolist()]).reshape(
            ids.shape
        )


def _join(parent: list[int], a: int, b: int) -> None:
    """The smaller root wins, so that a class is named by its first member."""
    a, b = _root(parent, a), _root(parent, b)
    parent[max(a, b)] = min(a, b)


def _root(parent: list[int], a: int) -> int:
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


def channel_space(network: Graph | Network, *, keep_output: bool = False) -> ChannelSpace:
    """The slots and groups of a graph; pass a trunk.

    With `keep_output` the channels of the output are not to be cut: they are the classes.
    """
    graph = network.graph if isinstance(network, Network) else network
    ledger = _Ledger(graph)
    image = ledger.fresh(graph.input_shape[0], graph.input)
    ledger.freeze(image, "is the image")
    traces = {graph.input: Trace.of(image, 0)}
    for node in graph.nodes:
        shapes = [graph.shapes[name] for name in node.inputs]
        ins = [traces[name] for name in node.inputs]
        traces[node.name] = rule_of(node).trace(node, shapes, graph.shapes[node.name], ins, ledger)
    if keep_output:
        ledger.freeze(traces[graph.output].ids, "holds the classes")
    traces = {name: _along_one(trace, graph.shapes[name], ledger) for name, trace in traces.items()}
    groups, slot_of = _groups(ledger, traces)
    return ChannelSpace(graph, groups, traces, slot_of)


def _along_one(trace: Trace, shape: Shape, ledger: _Ledger) -> Trace:
    """The same channels along a single dimension, tied until one is enough: only so can a value be cut."""
    if len(trace.axes) == 1:
        return trace
    if not trace.axes:
        return Trace.of(np.full(shape[0], trace.ids), 0)
    roots = ledger.roots(trace.ids)
    counts = [_classes(np.moveaxis(roots, at, 0).reshape(roots.shape[at], -1)) for at in range(roots.ndim)]
    axis = trace.axes[int(np.argmax(counts))]
    return trace.merged(set(trace.axes) - {axis}, ledger)


def _classes(rows: Ids) -> int:
    """How many channels are left when those of each row are one."""
    parent = list(range(len(rows)))
    first: dict[int, int] = {}
    for number, row in enumerate(rows):
        for root in np.unique(row).tolist():
            _join(parent, first.setdefault(root, number), number)
    return len({_root(parent, number) for number in range(len(rows))})


def _groups(ledger: _Ledger, traces: Mapping[str, Trace]) -> tuple[tuple[ChannelGroup, ...], Ids]:
    alive = np.zeros(len(ledger.parent), np.bool_)
    for trace in traces.values():
        alive[trace.ids[~trace.zero]] = True
    members: dict[int, list[int]] = {}
    for identity, block in enumerate(ledger.block):
        members.setdefault(_root(ledger.blocks, block), []).append(identity)
    slot_of = np.full(len(ledger.parent), -1, np.int64)
    groups, start = [], 0
    for block, identities in sorted(members.items()):
        roots = list(dict.fromkeys(_root(ledger.parent, identity) for identity in identities))
        numbers = {root: start + position for position, root in enumerate(roots)}
        for identity in identities:
            slot_of[identity] = numbers[_root(ledger.parent, identity)]
        reason = next((ledger.frozen[i] for i in identities if i in ledger.frozen), None)
        if reason is None and not alive[identities].any():
            reason = "holds nothing but zeros"
        if reason is None and len(roots) == 1:
            reason = "has one channel" if len(identities) == 1 else "has all its channels tied into one"
        groups.append(ChannelGroup(ledger.names[block], start, len(roots), reason))
        start += len(roots)
    return tuple(groups), slot_of
