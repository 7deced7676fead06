"""How channels pass through an operator, and how the operator shrinks when some of them are cut.

A rule and its inverse stand side by side: `trace` says which channels an output's channels are, `cut`
rewrites the node for inputs and outputs of which only some channels are left. By then every value has its
channels along one dimension (`modhub.nets.channels`); where all are kept it may be any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modhub.nets.graph import Node
from modhub.nets.operators import OPERATORS, Shape, keeps_zero
from modhub.nets.traces import (
    Ids,
    Kept,
    Ledger,
    Trace,
    joined,
    merged_dimension,
    product,
    reshaped,
    split_dimension,
)

__all__ = ["RULES", "Cutting", "Rule", "Shrunk", "rule_of"]

_MOST_PLACES = 1 << 22
"""Numbers over which a reshape is followed that is more than a merge."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """What a node is cut by: per input and for the output, which channels are kept and their dimension."""

    node: Node
    tensors: Mapping[str, Tensor]
    shapes: Sequence[Shape]
    kept: Sequence[Kept]
    axes: Sequence[int]
    out_shape: Shape
    out_kept: Kept
    out_axis: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The node after cutting."""

    op: str
    attributes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


TraceRule: TypeAlias = Callable[[Node, Sequence[Shape], Shape, Sequence[Trace], Ledger], Trace]
CutRule: TypeAlias = Callable[[Cutting], Shrunk | None]
"""None: nothing is left to do, the output is the first input."""


@dataclass(frozen=True, slots=True)
class Rule:
    trace: TraceRule
    cut: CutRule


def _frozen(node: Node, out: Shape, ins: Sequence[Trace], ledger: Ledger) -> Trace:
    """Where no rule applies: everything that goes in and everything that comes out is kept."""
    for trace in ins:
        ledger.freeze(trace.ids, f"is mixed across channels by '{node.name}' ({node.op})")
    ids = ledger.fresh(out[0], node.name)
    ledger.freeze(ids, _comes_out_of(node))
    return Trace.of(ids, 0)


def _comes_out_of(node: Node) -> str:
    return f"comes out of '{node.name}' ({node.op}), which mixes channels"


def _trace_constant(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Tokens: their features are the last dimension, and go with those of what they are joined to. What meets
    heads has a part for each of them, if it has more than one."""
    heads = len(out) > 2 and out[-3] > 1 and _is_multiplied(node, ledger)
    axis = len(out) - (3 if heads else 1)
    return Trace.of(ledger.fresh(out[axis], node.name), axis)


def _is_multiplied(node: Node, ledger: Ledger) -> bool:
    """Whether its value, number by number, goes into a product of values."""
    values = [node.name]
    while values:
        for reader in ledger.readers(values.pop()):
            if reader.op in ("attention", "matmul"):
                return True
            if OPERATORS[reader.op].rule in ("same", "aligned"):
                values.append(reader.name)
    return False


def _take(tensor: Tensor, dim: int, kept: Kept) -> Tensor:
    if kept.all():
        return tensor
    return tensor.index_select(dim, torch.from_numpy(np.flatnonzero(kept)))


def _unchanged(c: Cutting) -> Shrunk:
    return Shrunk(c.node.op, c.node.attributes, c.tensors)


def _with(c: Cutting, tensors: Mapping[str, Tensor] | None = None, **attributes: Any) -> Shrunk:
    changed = {**c.node.attributes, **attributes}
    return Shrunk(c.node.op, changed, c.tensors if tensors is None else tensors)


# -- each channel by itself -------------------------------------------------------------------------------


def _trace_same(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return ins[0].passed(node)


def _trace_first(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return ins[0].passed(node) if ins[0].axis == 0 else _frozen(node, out, ins, ledger)


def _cut_first(c: Cutting) -> Shrunk:
    return _with(c, {role: _take(tensor, 0, c.out_kept) for role, tensor in c.tensors.items()})


def _cut_aligned(c: Cutting) -> Shrunk:
    """Tensors of the value's own rank, or of size 1 where they are the same everywhere."""
    shape = c.node.attributes["shape"]
    if shape[c.out_axis] == 1:
        return _unchanged(c)
    tensors = {role: _take(tensor, c.out_axis, c.out_kept) for role, tensor in c.tensors.items()}
    return _with(c, tensors, shape=_resized(shape, c.out_axis, c.out_kept))


def _resized(shape: Shape, axis: int, kept: Kept) -> Shape:
    return (*shape[:axis], int(kept.sum()), *shape[axis + 1 :])


def _trace_layer_norm(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """What is normalised together inside a head stays together."""
    dims = range(len(out) - len(node.attributes["shape"]), len(out))
    inside = set(ins[0].axes).intersection(dims)
    return (ins[0] if inside == set(ins[0].axes) else ins[0].merged(inside, ledger)).passed(node)


def _cut_layer_norm(c: Cutting) -> Shrunk:
    """The count stays: sums over what is left are divided by what there was."""
    shape = c.node.attributes["shape"]
    dim = c.out_axis - (len(c.out_shape) - len(shape))
    if dim < 0:
        return _unchanged(c)
    tensors = {role: _take(tensor, dim, c.out_kept) for role, tensor in c.tensors.items()}
    return _with(c, tensors, shape=_resized(shape, dim, c.out_kept))


def _trace_group_norm(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """The channels of one group share their statistics, so they go together."""
    if ins[0].axis != 0:
        return _frozen(node, out, ins, ledger)
    members = ins[0].ids.reshape(node.attributes["groups"], -1)
    for column in members.T[1:]:
        ledger.tie(members[:, 0], column)
    return ins[0].passed(node)


def _cut_group_norm(c: Cutting) -> Shrunk:
    groups = int(c.out_kept.reshape(c.node.attributes["groups"], -1)[:, 0].sum())
    tensors = {role: _take(tensor, 0, c.out_kept) for role, tensor in c.tensors.items()}
    return _with(c, tensors, groups=groups)


def _trace_mean(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Over positions each channel stays; over channels one is left, and zeros are counted."""
    dims, trace = node.attributes["dims"], ins[0]
    over = set(trace.axes).intersection(dims)
    if over and over == set(trace.axes):
        if len(over) == 1 and node.op != "norm" and node.attributes["keep"]:
            return Trace.of(ledger.fresh(1, node.name), trace.axis)
        return _frozen(node, out, ins, ledger)
    trace = trace.merged(over, ledger)
    gone = () if node.attributes["keep"] else dims
    return replace(trace, axes=tuple(axis - sum(dim < axis for dim in gone) for axis in trace.axes))


def _cut_mean(c: Cutting) -> Shrunk:
    dims = c.node.attributes["dims"]
    if c.axes[0] not in dims or c.kept[0].all():
        return _unchanged(c)
    count = c.node.attributes["count"] or math.prod(c.shapes[0][dim] for dim in dims)
    return _with(c, count=count)


def _trace_softmax(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    dim = node.attributes["dim"]
    if ins[0].axes == (dim,):
        return _frozen(node, out, ins, ledger)
    return ins[0].merged({dim}, ledger).passed(node)


def _trace_channel_conv(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Output i reads the neighbours of input i, and goes with it."""
    return ins[0].passed(node) if ins[0].axis == 1 else _frozen(node, out, ins, ledger)


def _cut_channel_conv(c: Cutting) -> Shrunk:
    """The places under the kernel stay what they were, with zeros where channels are gone."""
    if c.out_kept.all():
        return _unchanged(c)
    channels, kernel = len(c.out_kept), c.node.attributes["kernel"]
    if "index" in c.tensors:
        under = c.tensors["index"].numpy()
    else:
        under = np.arange(channels)[:, None] + np.arange(kernel) - kernel // 2
    left = int(c.out_kept.sum())
    rank = np.append(np.where(c.out_kept, np.cumsum(c.out_kept) - 1, left), left)
    there = (under >= 0) & (under < channels)
    index = np.where(there, rank[under.clip(0, channels)], left)[c.out_kept]
    return _with(c, {**c.tensors, "index": torch.from_numpy(index.astype(np.int64))})


# -- weights that mix channels ----------------------------------------------------------------------------


def _trace_conv(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Dense: new channels. Depthwise: the same channels. Grouped: whole groups, in and out, go together."""
    groups, channels_in = node.attributes["groups"], node.attributes["in_channels"]
    if ins[0].axis != 0:
        return _frozen(node, out, ins, ledger)
    if groups == channels_in and groups > 1:
        return Trace.of(np.repeat(ins[0].ids, out[0] // groups), 0)
    ids = ledger.fresh(out[0], node.name)
    if groups > 1:
        members = np.concatenate([ins[0].ids.reshape(groups, -1), ids.reshape(groups, -1)], axis=1)
        for column in members.T[1:]:
            ledger.tie(members[:, 0], column)
    return Trace.of(ids, 0)


def _cut_conv(c: Cutting) -> Shrunk:
    if c.axes[0] != 0:
        return _unchanged(c)
    groups = c.node.attributes["groups"]
    weight = _take(c.tensors["weight"], 0, c.out_kept)
    if groups == 1:
        weight = _take(weight, 1, c.kept[0])
    else:
        groups = int(c.kept[0].reshape(groups, -1)[:, 0].sum())
    tensors = {**c.tensors, "weight": weight}
    if "bias" in tensors:
        tensors["bias"] = _take(tensors["bias"], 0, c.out_kept)
    channels = {"in_channels": int(c.kept[0].sum()), "out_channels": int(c.out_kept.sum())}
    return _with(c, tensors, **channels, groups=groups)


def _trace_linear(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Of the features of each head, which are one: the same heads. Over positions: the same channels."""
    last = len(out) - 1
    if ins[0].axes in ((), (last,)):
        return Trace.of(ledger.fresh(out[-1], node.name), last)
    return ins[0].merged({last}, ledger).passed(node)


def _cut_linear(c: Cutting) -> Shrunk:
    last = len(c.out_shape) - 1
    weight, out_kept = c.tensors["weight"], np.ones(c.out_shape[-1], np.bool_)
    if c.out_axis == last:
        weight, out_kept = _take(weight, 0, c.out_kept), c.out_kept
    if c.axes[0] == last:
        weight = _take(weight, 1, c.kept[0])
    tensors = {**c.tensors, "weight": weight}
    if "bias" in tensors:
        tensors["bias"] = _take(tensors["bias"], 0, out_kept)
    return _with(c, tensors, in_features=weight.shape[1], out_features=weight.shape[0])


# -- several values ---------------------------------------------------------------------------------------


def _trace_tied(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Channel by channel; a value with a single channel is spread over the others and ties nothing."""
    apart = len({trace.axes for trace in ins}) > 1 and all(trace.axis >= 0 for trace in ins)
    together = None if apart else joined(ins, shapes, ledger, _zero_of(node))
    return _frozen(node, out, ins, ledger) if together is None else together


def _zero_of(node: Node) -> Callable[[Sequence[Kept]], Kept]:
    """Which channels are zero, by those of every input that are."""
    if node.op == "divide":
        return lambda zeros: zeros[0]
    return np.logical_or.reduce if node.op == "multiply" else np.logical_and.reduce


def _trace_concat(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    dim = node.attributes["dim"]
    common = set.intersection(*(set(trace.axes) for trace in ins))
    if not common:
        return _frozen(node, out, ins, ledger)
    traces = [trace.merged(set(trace.axes) - common, ledger) for trace in ins]
    axes = traces[0].axes
    if dim in common:
        at = axes.index(dim)
        ids, zeros = ([getattr(trace, name) for trace in traces] for name in ("ids", "zero"))
        return Trace(np.concatenate(ids, at), np.concatenate(zeros, at), axes)
    for trace in traces[1:]:
        ledger.tie(traces[0].ids, trace.ids)
    zero: Kept = np.asarray(np.stack([trace.zero for trace in traces]).all(axis=0))
    return Trace(traces[0].ids, zero, axes)


# -- products of values -----------------------------------------------------------------------------------


def _trace_matmul(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return product(ins[0], ins[1], shapes, ledger, _meets_in(node)) or _without_channels(node, ledger)


def _trace_attention(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """A head of query, key, value and bias goes as a whole; several heads that read one key go with it."""
    query, key, value = shapes[:3]
    row, column = len(out) - 2, len(out) - 1
    nothing = cache(lambda: _without_channels(node, ledger))
    reason = _meets_in(node)
    turned = (*range(row), column, row)
    transposed = tuple(key[axis] for axis in turned)
    keys = ins[1].on([turned[axis] for axis in ins[1].axes])
    scores = product(ins[0], keys, [query, transposed], ledger, reason) or nothing()
    shape = (*(max(pair) for pair in zip(query[:row], key[:row], strict=True)), query[row], key[row])
    if len(ins) == 4:
        together = joined([scores, ins[3]], [shape, shapes[3]], ledger)
        if together is None:
            ledger.freeze(scores.ids, reason)
            ledger.freeze(ins[3].ids, reason)
        scores = together or nothing()
    if column in scores.axes:
        # The softmax mixes them.
        ledger.freeze(scores.ids, reason)
        scores = nothing()
    return product(scores, ins[2], [shape, value], ledger, reason) or nothing()


def _meets_in(node: Node) -> str:
    return f"meets what has other channels in '{node.name}' ({node.op})"


def _without_channels(node: Node, ledger: Ledger) -> Trace:
    """No dimension counts channels that could be cut; one slot stands for all of it."""
    ids = ledger.fresh(1, node.name)
    ledger.freeze(ids, _comes_out_of(node))
    return Trace.of(ids.reshape(()))


# -- channels moved ---------------------------------------------------------------------------------------


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
        return ins[0] if node.op == "slice" else _frozen(node, out, ins, ledger)
    at = ins[0].axes.index(dim)
    source = _source(node, ins[0].ids.shape[at])
    return Trace(ins[0].ids.take(source, at), ins[0].zero.take(source, at), ins[0].axes)


def _cut_moved(c: Cutting) -> Shrunk | None:
    """A contiguous slice where one does, and a gather by index where none does."""
    if not c.node.attributes.get("dim", 0) == c.axes[0] == c.out_axis:
        return _unchanged(c)
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
            return _unchanged(c)
    attributes = {"dim": c.axes[0], "count": count}
    return Shrunk("select", attributes, {"index": torch.from_numpy(source.astype(np.int64))})


def _trace_select(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Which channels it selects stands in a tensor, and a space is made from the graph alone."""
    if ins[0].axes == (node.attributes["dim"],):
        return _frozen(node, out, ins, ledger)
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
        return _frozen(node, out, ins, ledger)
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
    return _with(c, before=tuple(before), after=tuple(after))


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
            return _frozen(node, out, ins, ledger)
        return reshaped(trace, shape, out)
    split = split_dimension(shape, trace.axis, out)
    if split is None:
        return _frozen(node, out, ins, ledger)
    parts = trace.ids.reshape(-1, out[split])
    return Trace(parts, trace.zero.reshape(parts.shape), (-1, split)).merged({-1}, ledger)


def _cut_reshape(c: Cutting) -> Shrunk:
    return _with(c, shape=_resized(c.node.attributes["shape"], c.out_axis, c.out_kept))


def _trace_permute(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return ins[0].on([node.attributes["dims"].index(axis) for axis in ins[0].axes])


RULES: Mapping[str, Rule] = {
    "same": Rule(_trace_same, _unchanged),
    "first": Rule(_trace_first, _cut_first),
    "aligned": Rule(_trace_same, _cut_aligned),
    "layer_norm": Rule(_trace_layer_norm, _cut_layer_norm),
    "group_norm": Rule(_trace_group_norm, _cut_group_norm),
    "mean": Rule(_trace_mean, _cut_mean),
    "positions": Rule(_trace_mean, _unchanged),
    "constant": Rule(_trace_constant, _cut_aligned),
    "matmul": Rule(_trace_matmul, _unchanged),
    "attention": Rule(_trace_attention, _unchanged),
    "softmax": Rule(_trace_softmax, _unchanged),
    "conv2d": Rule(_trace_conv, _cut_conv),
    "channel_conv1d": Rule(_trace_channel_conv, _cut_channel_conv),
    "linear": Rule(_trace_linear, _cut_linear),
    "add": Rule(_trace_tied, _unchanged),
    "multiply": Rule(_trace_tied, _unchanged),
    "concat": Rule(_trace_concat, _unchanged),
    "slice": Rule(_trace_moved, _cut_moved),
    "channel_shuffle": Rule(_trace_moved, _cut_moved),
    "select": Rule(_trace_select, _unchanged),
    "pad": Rule(_trace_pad, _cut_pad),
    "reshape": Rule(_trace_reshape, _cut_reshape),
    "permute": Rule(_trace_permute, _unchanged),
}
"""The `rule` of every operator in `modhub.nets.operators.OPERATORS`."""


def rule_of(node: Node) -> Rule:
    return RULES[OPERATORS[node.op].rule]
