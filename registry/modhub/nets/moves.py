"""The rules of operators that move channels and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from modhub.nets.graph import Node
from modhub.nets.operators import Shape, keeps_zero
from modhub.nets.rule import Cutting, Rule, Shrunk, frozen, resized, rewritten, unchanged
from modhub.nets.traces import Ids, Ledger, Trace, merged_dimension, reshaped, split_dimension

__all__ = ["MOVES"]

_MOST_PLACES = 1 << 22
"""Numbers over which a reshape is followed that is more than a merge."""


def _source(node: Node, count: int) -> Ids:
    """For each channel of the output the channel of the input that it is; `count` channels go in."""
    a = node.attributes
    if node.op == "slice":
        return np.arange(a["start"], a["stop"], a["step"], dtype=np.int64)
    return np.arange(count, dtype=np.int64).reshape(a["groups"], -1).T.reshape(-1)


def _trace_moved(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    dim = node.attributes.get("dim", 0)
    if dim not in ins[0].axes or (node.op == "channel_shuffle" and ins[0].axis != dim):
        return ins[0] if node.op == "slice" else frozen(node, out, ins, ledger)
    at = ins[0].axes.index(dim)
    source = _source(node, ins[0].ids.shape[at])
    return Trace(ins[0].ids.take(source, at), ins[0].zero.take(source, at), ins[0].axes)


def _cut_moved(c: Cutting) -> Shrunk | None:
    """A contiguous slice where one does, and a gather by index where none does."""
    if not c.node.attributes.get("dim", 0) == c.axes[0] == c.out_axis:
        return unchanged(c)
    rank = np.cumsum(c.kept[0]) - 1
    source = rank[_source(c.node, len(c.kept[0]))[c.out_kept]]
    count, kept = len(source), int(c.kept[0].sum())
    if np.array_equal(source, np.arange(source[0], source[0] + count)):
        start = int(source[0])
        if count == kept:
            return None
        return Shrunk("slice", {"dim": c.axes[0], "start": start, "stop": start + count, "step": 1}, {})
    if c.node.op == "channel_shuffle":
        groups = c.node.attributes["groups"]
        if kept % groups == 0 and np.array_equal(source, _source(c.node, kept)):
            return unchanged(c)
    attributes = {"dim": c.axes[0], "count": count}
    return Shrunk("select", attributes, {"index": torch.from_numpy(source.astype(np.int64))})


def _trace_select(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Which channels it selects stands in a tensor, and a space is made from the graph alone."""
    if ins[0].axes == (node.attributes["dim"],):
        return frozen(node, out, ins, ledger)
    return ins[0].merged({node.attributes["dim"]}, ledger)


def _trace_pad(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    before, after = node.attributes["before"], node.attributes["after"]
    padded = {axis for axis in ins[0].axes if before[axis] or after[axis]}
    if padded != set(ins[0].axes) or not padded:
        return ins[0].merged(padded, ledger).passed(node)
    axis = ins[0].axis
    if axis < 0 or not keeps_zero(node.op, node.attributes) or node.attributes["mode"] != "constant":
        return frozen(node, out, ins, ledger)
    # The zeros get ids of their own, so that adding them to real channels ties each to the one it meets.
    first, last = np.split(ledger.fresh(before[axis] + after[axis], node.name), [before[axis]])
    zeros = [np.ones(len(first), np.bool_), ins[0].zero, np.ones(len(last), np.bool_)]
    return Trace(np.concatenate([first, ins[0].ids, last]), np.concatenate(zeros), (axis,))


def _cut_pad(c: Cutting) -> Shrunk | None:
    axis = c.out_axis
    before, after = list(c.node.attributes["before"]), list(c.node.attributes["after"])
    stop = len(c.out_kept) - after[axis]
    before[axis], after[axis] = int(c.out_kept[: before[axis]].sum()), int(c.out_kept[stop:].sum())
    if not any(before) and not any(after):
        return None
    return rewritten(c, before=tuple(before), after=tuple(after))


def _trace_reshape(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Merged with positions, each channel is repeated; split up, they lie along several dimensions, or
    channel i of every part is one."""
    trace, shape = ins[0], shapes[0]
    if trace.axis >= 0 and (place := merged_dimension(shape, trace.axis, out)) is not None:
        axis, before, inside = place
        source = np.tile(np.repeat(np.arange(len(trace.ids)), inside), before)
        return Trace(trace.ids[source], trace.zero[source], (axis,))
    if ledger.splits:
        if math.prod(out) > _MOST_PLACES:
            return frozen(node, out, ins, ledger)
        return reshaped(trace, shape, out)
    split = split_dimension(shape, trace.axis, out)
    if split is None:
        return frozen(node, out, ins, ledger)
    parts = trace.ids.reshape(-1, out[split])
    return Trace(parts, trace.zero.reshape(parts.shape), (-1, split)).merged({-1}, ledger)


def _cut_reshape(c: Cutting) -> Shrunk:
    return rewritten(c, shape=resized(c.node.attributes["shape"], c.out_axis, c.out_kept))


def _trace_permute(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return ins[0].on([node.attributes["dims"].index(axis) for axis in ins[0].axes])


MOVES = {
    "slice": Rule(_trace_moved, _cut_moved),
    "channel_shuffle": Rule(_trace_moved, _cut_moved),
    "select": Rule(_trace_select, unchanged),
    "pad": Rule(_trace_pad, _cut_pad),
    "reshape": Rule(_trace_reshape, _cut_reshape),
    "permute": Rule(_trace_permute, unchanged),
}
