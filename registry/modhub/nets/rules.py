"""How channels pass through an operator, and how the operator shrinks when some of them are cut.

A rule and its inverse stand side by side: `trace` says which channels an output's channels are, `cut`
rewrites the node for inputs and outputs of which only some channels are left. Channels are bookkept by ids:
the same id at two values is the same channel, which lives and dies as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.nets.graph import Node
from modhub.nets.operators import OPERATORS, Shape, keeps_zero

__all__ = ["RULES", "Cutting", "Ledger", "Rule", "Shrunk", "Trace", "merged_dimension"]

Ids: TypeAlias = NDArray[np.int64]
Kept: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Trace:
    """The channels of one value: their ids, which are zero everywhere (padded), and their dimension."""

    ids: Ids
    zero: Kept
    axis: int

    def passed(self, node: Node) -> Trace:
        """The same channels after an operator that treats each by itself."""
        if keeps_zero(node.op, node.attributes):
            return self
        return replace(self, zero=np.zeros_like(self.zero))


class Ledger(Protocol):
    """Who remembers ids and what is known about them."""

    def fresh(self, count: int, name: str) -> Ids:
        """New channels, made by node `name`."""

    def tie(self, first: Ids, second: Ids) -> None:
        """Pairwise the same from here on."""

    def freeze(self, ids: Ids, reason: str) -> None:
        """They cannot be cut, and why: a clause that follows the group's name."""


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
    ledger.freeze(ids, f"comes out of '{node.name}' ({node.op}), which mixes channels")
    return Trace(ids, np.zeros(out[0], np.bool_), 0)


def _trace_mixed(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Products of values: all that meets there stays whole."""
    return _frozen(node, out, ins, ledger)


def _trace_constant(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Tokens: their features are the last dimension, and go with those of what they are joined to."""
    return Trace(ledger.fresh(out[-1], node.name), np.zeros(out[-1], np.bool_), len(out) - 1)


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
    dims, axis = node.attributes["dims"], ins[0].axis
    if axis in dims and node.op != "norm" and node.attributes["keep"]:
        return Trace(ledger.fresh(1, node.name), np.zeros(1, np.bool_), axis)
    if axis in dims:
        return _frozen(node, out, ins, ledger)
    gone = 0 if node.attributes["keep"] else sum(dim < axis for dim in dims)
    return replace(ins[0], axis=axis - gone)


def _cut_mean(c: Cutting) -> Shrunk:
    dims = c.node.attributes["dims"]
    if c.axes[0] not in dims or c.kept[0].all():
        return _unchanged(c)
    count = c.node.attributes["count"] or math.prod(c.shapes[0][dim] for dim in dims)
    return _with(c, count=count)


def _trace_softmax(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    mixes = node.attributes["dim"] == ins[0].axis
    return _frozen(node, out, ins, ledger) if mixes else ins[0].passed(node)


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
    alive = np.zeros(out[0], np.bool_)
    if groups == channels_in and groups > 1:
        return Trace(np.repeat(ins[0].ids, out[0] // groups), alive, 0)
    ids = ledger.fresh(out[0], node.name)
    if groups > 1:
        members = np.concatenate([ins[0].ids.reshape(groups, -1), ids.reshape(groups, -1)], axis=1)
        for column in members.T[1:]:
            ledger.tie(members[:, 0], column)
    return Trace(ids, alive, 0)


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
    if ins[0].axis != len(shapes[0]) - 1:
        return ins[0].passed(node)
    return Trace(ledger.fresh(out[-1], node.name), np.zeros(out[-1], np.bool_), len(out) - 1)


def _cut_linear(c: Cutting) -> Shrunk:
    if c.axes[0] != len(c.shapes[0]) - 1:
        return _unchanged(c)
    tensors = {**c.tensors, "weight": _take(_take(c.tensors["weight"], 0, c.out_kept), 1, c.kept[0])}
    if "bias" in tensors:
        tensors["bias"] = _take(tensors["bias"], 0, c.out_kept)
    return _with(c, tensors, in_features=int(c.kept[0].sum()), out_features=int(c.out_kept.sum()))


# -- several values ---------------------------------------------------------------------------------------


def _trace_tied(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Channel by channel; a value with a single channel is spread over the others and ties nothing."""
    axes = {trace.axis for trace in ins}
    if len(axes) != 1:
        return _frozen(node, out, ins, ledger)
    (axis,) = axes
    full = [trace for trace in ins if len(trace.ids) == out[axis]]
    for trace in full[1:]:
        ledger.tie(full[0].ids, trace.ids)
    zeros = np.stack([np.broadcast_to(trace.zero, out[axis]) for trace in ins])
    if node.op == "divide":
        zeros = zeros[:1]
    zero: Kept = np.asarray(zeros.any(axis=0) if node.op == "multiply" else zeros.all(axis=0))
    return Trace(full[0].ids, zero, axis)


def _trace_concat(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    axes = {trace.axis for trace in ins}
    if len(axes) != 1:
        return _frozen(node, out, ins, ledger)
    (axis,) = axes
    if axis == node.attributes["dim"]:
        return Trace(np.concatenate([t.ids for t in ins]), np.concatenate([t.zero for t in ins]), axis)
    for trace in ins[1:]:
        ledger.tie(ins[0].ids, trace.ids)
    zero: Kept = np.asarray(np.stack([t.zero for t in ins]).all(axis=0))
    return Trace(ins[0].ids, zero, axis)


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
    if node.attributes.get("dim", 0) != ins[0].axis:
        return ins[0] if node.op == "slice" else _frozen(node, out, ins, ledger)
    source = _source(node, len(ins[0].ids))
    return Trace(ins[0].ids[source], ins[0].zero[source], ins[0].axis)


def _cut_moved(c: Cutting) -> Shrunk | None:
    """A contiguous slice where one does, and a gather by index where none does."""
    if c.node.attributes.get("dim", 0) != c.axes[0]:
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
    return ins[0] if node.attributes["dim"] != ins[0].axis else _frozen(node, out, ins, ledger)


def _trace_pad(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    axis = ins[0].axis
    before, after = node.attributes["before"][axis], node.attributes["after"][axis]
    if not before and not after:
        return ins[0].passed(node)
    if not keeps_zero(node.op, node.attributes) or node.attributes["mode"] != "constant":
        return _frozen(node, out, ins, ledger)
    # The zeros get ids of their own, so that adding them to real channels ties each to the one it meets.
    first, last = np.split(ledger.fresh(before + after, node.name), [before])
    zero = np.concatenate([np.ones(before, np.bool_), ins[0].zero, np.ones(after, np.bool_)])
    return Trace(np.concatenate([first, ins[0].ids, last]), zero, axis)


def _cut_pad(c: Cutting) -> Shrunk | None:
    axis = c.out_axis
    before, after = list(c.node.attributes["before"]), list(c.node.attributes["after"])
    stop = len(c.out_kept) - after[axis]
    before[axis], after[axis] = int(c.out_kept[: before[axis]].sum()), int(c.out_kept[stop:].sum())
    if not any(before) and not any(after):
        return None
    return _with(c, before=tuple(before), after=tuple(after))


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


def _split_dimension(shape: Shape, axis: int, target: Shape) -> int | None:
    """The dimension of the target over which a reshape that splits the dimension `axis` lays its channels:
    k·n of them as (k, n), as split attention does. None when it does something else.

    >>> _split_dimension((128, 7, 7), 0, (2, 64, 7, 7))
    1
    """
    for position, size in enumerate(target):
        rest = math.prod(target[position + 1 :])
        if size > 1 and shape[axis] % size == 0 and rest == math.prod(shape[axis + 1 :]):
            return position
    return None


def _trace_reshape(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    """Merged with positions, each channel is repeated; split up, channel i of every part is one."""
    place = merged_dimension(shapes[0], ins[0].axis, out)
    split = _split_dimension(shapes[0], ins[0].axis, out) if place is None else None
    if split is not None:
        parts = ins[0].ids.reshape(-1, out[split])
        for part in parts[1:]:
            ledger.tie(parts[0], part)
        zero: Kept = np.asarray(ins[0].zero.reshape(parts.shape).all(axis=0))
        return Trace(parts[0], zero, split)
    if place is None:
        return _frozen(node, out, ins, ledger)
    axis, before, inside = place
    source = np.tile(np.repeat(np.arange(len(ins[0].ids)), inside), before)
    return Trace(ins[0].ids[source], ins[0].zero[source], axis)


def _cut_reshape(c: Cutting) -> Shrunk:
    return _with(c, shape=_resized(c.node.attributes["shape"], c.out_axis, c.out_kept))


def _trace_permute(
    node: Node, shapes: Sequence[Shape], out: Shape, ins: Sequence[Trace], ledger: Ledger
) -> Trace:
    return replace(ins[0], axis=node.attributes["dims"].index(ins[0].axis))


RULES: Mapping[str, Rule] = {
    "same": Rule(_trace_same, _unchanged),
    "first": Rule(_trace_first, _cut_first),
    "aligned": Rule(_trace_same, _cut_aligned),
    "layer_norm": Rule(_trace_same, _cut_layer_norm),
    "group_norm": Rule(_trace_group_norm, _cut_group_norm),
    "mean": Rule(_trace_mean, _cut_mean),
    "positions": Rule(_trace_mean, _unchanged),
    "constant": Rule(_trace_constant, _cut_aligned),
    "mixes": Rule(_trace_mixed, _unchanged),
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
