"""ATen operators that move numbers: reshapes, permutations, slices, gathers, windows and paddings.

What takes numbers from places that do not depend on the image (roll, flip, repeat, unfold, an index by a
constant) is one `select` along one dimension, and an overlap-add (fold) is a `select` and a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhub.importing.values import (
    Call,
    Emitter,
    NoEquivalentError,
    Value,
    emitted_constant,
    permuted,
    reshaped,
)
from modhub.nets.operators import Shape

_HUGE = 1e30


def pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def whole(e: Emitter, value: Value) -> Value:
    """What the program has expanded, at its full size."""
    if value.spread is None:
        return value
    spread, value = value.spread, replace(value, spread=None)
    for axis, (extent, wanted) in enumerate(zip(value.shape, spread, strict=True)):
        if extent != wanted:
            value = selected(e, value, axis, np.zeros(wanted, np.int64))
    return value


def selected(e: Emitter, value: Value, axis: int, index: Any) -> Value:
    """The entries `index` (count,) along a dimension of the graph."""
    tensor = torch.from_numpy(np.array(index, np.int64))
    if np.array_equal(index, np.arange(value.shape[axis])):
        return value
    return e.emit("select", [value], {"dim": axis, "count": len(tensor)}, {"index": tensor})


def sliced(e: Emitter, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    if (start, stop, step) == (0, value.shape[axis], 1):
        return value
    return e.emit("slice", [value], {"dim": axis, "start": start, "stop": stop, "step": step})


def padded(
    e: Emitter, value: Value, before: Sequence[int], after: Sequence[int], mode: str, filling: float
) -> Value:
    attributes = {"before": tuple(before), "after": tuple(after), "mode": mode, "value": filling}
    return e.emit("pad", [value], attributes)


def overlapped(
    e: Emitter, value: Value, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> Value:
    """(channels, kernel · places) -> (channels, *size), each number added where it lies; the batch first."""
    places = _places(size, kernel, stride, padding, dilation)
    inside = math.prod(size)
    flat = places.flatten()
    there = flat >= 0
    order = np.argsort(np.where(there, flat, inside), kind="stable")
    targets = flat[order][: int(there.sum())]
    counts = np.bincount(targets, minlength=inside)
    most = int(counts.max())
    # Row i names the numbers that meet at place i; the last stands for a zero.
    rows = np.full((inside, most), flat.size, np.int64)
    rows[targets, np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)] = order[
        : len(targets)
    ]
    channels = value.shape[0]
    value = padded(e, value, (0, 0), (0, 1), "constant", 0.0)
    value = selected(e, value, 1, rows.flatten())
    value = e.emit("reshape", [value], {"shape": (channels, *size, most)})
    if most == 1:
        return e.emit("reshape", [value], {"shape": (channels, *size)})
    dim = len(size) + 1
    value = e.emit("mean", [value], {"dims": (dim,), "keep": True})
    value = e.emit("reshape", [value], {"shape": (channels, *size)})
    return e.emit("scale_shift", [value], {"scale": float(most), "shift": 0.0})


def _places(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Any:
    """(kernel height · width, places) index into (height · width), -1 in the padding."""
    axes = []
    for extent, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        count = (extent + 2 * p - d * (k - 1) - 1) // s + 1
        at = np.arange(k)[:, None] * d + np.arange(count)[None, :] * s - p
        axes.append(np.where((at >= 0) & (at < extent), at, -1))
    rows, columns = axes
    there = (rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]
    index = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    return np.where(there, index, -1).reshape(math.prod(kernel), -1)


def _alias(e: Emitter, c: Call) -> Value:
    return c.value


def _reshape(e: Emitter, c: Call) -> Value:
    return reshaped(e, c.value, c.dims, c.batch)


def _permute(e: Emitter, c: Call) -> Value:
    return permuted(e, c.value, [dim % c.value.rank for dim in c.args[1]])


def _transpose(e: Emitter, c: Call) -> Value:
    order = list(range(c.value.rank))
    first, second = (dim % len(order) for dim in c.args[1:3])
    order[first], order[second] = order[second], order[first]
    return permuted(e, c.value, order)


def _matrix_transpose(e: Emitter, c: Call) -> Value:
    return _transpose(e, c.on(c.value, -2, -1))


def _move_axis(e: Emitter, c: Call) -> Value:
    rank = c.value.rank
    sources, targets = (
        [dim % rank for dim in ([dims] if isinstance(dims, int) else dims)] for dims in c.args[1:3]
    )
    order = [dim for dim in range(rank) if dim not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return permuted(e, c.value, order)


def _expand(e: Emitter, c: Call) -> Value:
    """Left to the operators that broadcast by themselves."""
    value = whole(e, c.value)
    more = len(c.dims) - value.rank
    if more:
        dims = (*[1] * more, *value.dims)
        value = reshaped(e, value, dims, value.batch + more)
    return value


def _concat(e: Emitter, c: Call) -> Value:
    values = [value for value in c.args[0] if not (isinstance(value, Tensor) and value.numel() == 0)]
    like = next(value for value in values if isinstance(value, Value))
    if len(values) == 1:
        return like
    dim = c.get(1, "dim", 0) % like.rank
    axis = like.axis(dim)
    parts = []
    for value in values:
        part = value if isinstance(value, Value) else whole(e, emitted_constant(e, value, like))
        if (part.batch, part.merged, part.rank) != (like.batch, like.merged, like.rank):
            raise NoEquivalentError("across the batch")
        parts.append(part)
    return replace(
        e.emit("concat", parts, {"dim": axis}), batch=like.batch, outer=like.outer, inner=like.inner
    )


def _stack(e: Emitter, c: Call) -> Value:
    dim = c.get(1, "dim", 0) % len(c.dims)
    if dim == c.batch:
        raise NoEquivalentError("across the batch")
    shape = (*c.dims[:dim], 1, *c.dims[dim + 1 :])
    parts = [
        reshaped(e, value, shape, c.batch) if isinstance(value, Value) else value.unsqueeze(dim)
        for value in c.args[0]
    ]
    return _concat(e, c.on(parts, dim))


def _pad(e: Emitter, c: Call) -> Value:
    return _pad_as(e, c, str(c.get(2, "mode", "constant")), c.get(3, "value"))


def _pad_as(e: Emitter, c: Call, mode: str, filling: float | None) -> Value:
    """A negative amount cuts; it is done first."""
    if mode not in ("constant", "reflect", "replicate"):
        raise NoEquivalentError(f"with mode '{mode}'")
    amounts = list(c.args[1])
    value = c.value
    before, after = [0] * len(value.shape), [0] * len(value.shape)
    for position in range(len(amounts) // 2):
        low, high = amounts[2 * position], amounts[2 * position + 1]
        if not low and not high:
            continue
        axis = _padded_axis(value, value.rank - 1 - position)
        if low < 0 or high < 0:
            value = sliced(e, value, axis, max(-low, 0), value.shape[axis] - max(-high, 0))
        before[axis], after[axis] = max(low, 0), max(high, 0)
    if not any(before) and not any(after):
        return value
    return padded(e, value, before, after, mode, max(float(filling or 0.0), -_HUGE))


def _padded_axis(value: Value, dim: int) -> int:
    if dim == value.batch:
        raise NoEquivalentError("of the batch dimension")
    return value.axis(dim)


def _slice(e: Emitter, c: Call) -> Value | Tensor:
    dim, start, stop, step = c.get(1, "dim", 0), c.get(2, "start"), c.get(3, "end"), c.get(4, "step", 1)
    if dim % c.value.rank == c.value.batch:
        if (start or 0) == 0 and c.dims == c.value.dims and step == 1:
            return c.value
        raise NoEquivalentError("of the batch")
    axis = c.value.axis(dim)
    first, last, _ = slice(start, stop, step).indices(c.value.shape[axis])
    if first >= last:
        return torch.empty(0)  # No tokens before the patches: what is joined to them is they alone.
    return sliced(e, c.value, axis, first, last, step)


def _select(e: Emitter, c: Call) -> Value:
    axis = c.value.axis(c.args[1])
    index = c.args[2] % c.value.shape[axis]
    return reshaped(e, sliced(e, c.value, axis, index, index + 1), c.dims, c.batch)


def _split(e: Emitter, c: Call) -> list[Value]:
    axis = c.value.axis(c.get(2, "dim", 0))
    extent, sizes = c.value.shape[axis], c.args[1]
    if isinstance(sizes, int):
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(sliced(e, c.value, axis, start, start + size))
        start += size
    return parts


def _chunk(e: Emitter, c: Call) -> list[Value]:
    dim = c.get(2, "dim", 0)
    size = -(-c.value.shape[c.value.axis(dim)] // c.args[1])
    return _split(e, c.on(c.value, size, dim))


def _tensor_split(e: Emitter, c: Call) -> list[Value]:
    dim, parts = c.get(2, "dim", 0), c.args[1]
    extent = c.value.shape[c.value.axis(dim)]
    sizes = [len(part) for part in np.array_split(np.arange(extent), parts)]
    return _split(e, c.on(c.value, sizes, dim))


def _unbind(e: Emitter, c: Call) -> list[Value]:
    dim = c.get(1, "dim", 0)
    return [_select(e, c.on(c.value, dim, at)) for at in range(c.value.shape[c.value.axis(dim)])]


def _shuffle(e: Emitter, c: Call) -> Value:
    return e.emit("channel_shuffle", [c.value], {"groups": c.args[1]})


def _roll(e: Emitter, c: Call) -> Value:
    value = c.value
    shifts, dims = (_listed(c.get(at, name, [])) for at, name in ((1, "shifts"), (2, "dims")))
    if not dims:
        raise NoEquivalentError("of all dimensions at once")
    for shift, dim in zip(shifts, dims, strict=True):
        axis = value.axis(dim)
        value = selected(e, value, axis, np.roll(np.arange(value.shape[axis]), shift))
    return value


def _flip(e: Emitter, c: Call) -> Value:
    value = c.value
    for dim in _listed(c.args[1]):
        axis = value.axis(dim)
        value = selected(e, value, axis, np.arange(value.shape[axis])[::-1])
    return value


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _images_repeated(e: Emitter, value: Value, count: int, *, inside: bool) -> Value:
    """Every image `count` times: one after the other (`inside`), or the whole batch again and again."""
    at = value.batch + (len(value.merged) if inside else 0)
    widened = e.emit("reshape", [value], {"shape": (*value.shape[:at], 1, *value.shape[at:])})
    many = selected(e, widened, at, np.zeros(count, np.int64))
    outer, inner = (value.outer, value.inner * count) if inside else (value.outer * count, value.inner)
    merged = (extent for extent in (outer, inner) if extent > 1)
    after = value.shape[value.batch + len(value.merged) :]
    shape = (*value.shape[: value.batch], *merged, *after)
    if shape != many.shape:
        many = e.emit("reshape", [many], {"shape": shape})
    return replace(many, outer=outer, inner=inner)


def _repeat(e: Emitter, c: Call) -> Value:
    """The value again and again; in front of its dimensions new ones may appear."""
    times = _listed(c.args[1])
    value = c.value
    more = len(c.dims) - value.rank
    if more:
        value = reshaped(e, value, (*[1] * more, *value.dims), value.batch + more)
    for dim, count in enumerate([1] * (value.rank - len(times)) + times):
        if count != 1 and dim == value.batch:
            value = _images_repeated(e, value, count, inside=False)
        elif count != 1:
            axis = value.axis(dim)
            value = selected(e, value, axis, np.tile(np.arange(value.shape[axis]), count))
    return value


def _repeat_interleave(e: Emitter, c: Call) -> Value:
    count, dim = c.args[1], c.get(2, "dim")
    if not isinstance(count, int) or dim is None:
        raise NoEquivalentError("of a number that depends on the place")
    if dim % c.value.rank == c.value.batch:
        return _images_repeated(e, c.value, count, inside=True)
    axis = c.value.axis(dim)
    return selected(e, c.value, axis, np.repeat(np.arange(c.value.shape[axis]), count))


def _index_select(e: Emitter, c: Call) -> Value:
    if not isinstance(c.args[2], Tensor):
        raise NoEquivalentError("by an index that depends on the image")
    return selected(e, c.value, c.value.axis(c.args[1]), c.args[2].numpy())


def _index(e: Emitter, c: Call) -> Value:
    """By constants: neighbouring dimensions become one, of which entries are selected."""
    value, indices = c.value, c.args[1]
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    if not all(isinstance(indices[dim], Tensor) for dim in dims):
        raise NoEquivalentError("by an index that depends on the image")
    if dims != list(range(dims[0], dims[-1] + 1)):
        raise NoEquivalentError("by indices of dimensions that are no neighbours")
    places: Sequence[Tensor]
    if any(indices[dim].dtype is torch.bool for dim in dims):
        if len(dims) > 1:
            raise NoEquivalentError("by a mask beside an index")
        mask = indices[dims[0]]
        dims = list(range(dims[0], dims[0] + mask.dim()))
        places = mask.nonzero(as_tuple=True)
    else:
        shape = np.broadcast_shapes(*(tuple(indices[dim].shape) for dim in dims))
        places = [indices[dim].expand(shape) for dim in dims]
    extents = [value.shape[value.axis(dim)] for dim in dims]
    flat = np.ravel_multi_index(
        [index.numpy() % n for index, n in zip(places, extents, strict=True)], extents
    )
    before, after = value.dims[: dims[0]], value.dims[dims[-1] + 1 :]
    batch = value.batch if value.batch < dims[0] else value.batch - len(dims) + 1
    value = reshaped(e, value, (*before, math.prod(extents), *after), batch)
    value = selected(e, value, value.axis(dims[0]), flat.flatten())
    return reshaped(e, value, c.dims, c.batch)


def _gather(e: Emitter, c: Call) -> Value:
    index, dim = c.args[2], c.args[1] % c.value.rank
    if not isinstance(index, Tensor):
        raise NoEquivalentError("by an index that depends on the image")
    row = index.movedim(dim, 0).flatten(1)
    if not bool((row == row[:, :1]).all()) or any(
        n != m for at, (n, m) in enumerate(zip(c.value.dims, c.dims, strict=True)) if at != dim
    ):
        raise NoEquivalentError("by an index that differs from place to place")
    return selected(e, c.value, c.value.axis(dim), row[:, 0].numpy())


def _windows(e: Emitter, c: Call) -> Value:
    """`Tensor.unfold`: windows along a dimension, their numbers in a new last one."""
    dim, size, step = c.args[1] % c.value.rank, c.args[2], c.args[3]
    value, axis = c.value, c.value.axis(dim)
    count = (value.shape[axis] - size) // step + 1
    index = np.arange(count)[:, None] * step + np.arange(size)
    value = selected(e, value, axis, index.flatten())
    dims = (*value.dims[:dim], count, size, *value.dims[dim + 1 :])
    value = reshaped(e, value, dims, value.batch + (value.batch > dim))
    return permuted(e, value, [*(at for at in range(len(dims)) if at != dim + 1), dim + 1])


def _unfold(e: Emitter, c: Call) -> Value:
    """im2col: (channel, height, width) -> (channel · kernel, places)."""
    kernel, dilation, padding, stride = (pair(argument) for argument in c.args[1:5])
    value = c.value
    if not value.plain or value.rank != 4:
        raise NoEquivalentError("of something that is no image")
    if any(padding):
        value = padded(e, value, (0, *padding), (0, *padding), "constant", 0.0)
    channels, *size = value.shape
    index = _places(tuple(size), kernel, stride, (0, 0), dilation)
    value = reshaped(e, value, (1, channels, math.prod(size)), 0)
    value = selected(e, value, 1, index.flatten())
    return reshaped(e, value, c.dims, c.batch)


def _fold(e: Emitter, c: Call) -> Value:
    """col2im: (channel · kernel, places) -> (channel, height, width), numbers that meet added."""
    size, kernel, dilation, padding, stride = (pair(argument) for argument in c.args[1:6])
    value = c.value
    if not value.plain or value.rank != 3:
        raise NoEquivalentError("of something that is no row of windows")
    count = math.prod(kernel)
    value = reshaped(e, value, (1, value.shape[0] // count, count * value.shape[1]), 0)
    return overlapped(e, value, size, kernel, stride, padding, dilation)


def _pixel_shuffle(e: Emitter, c: Call) -> Value:
    value, factor = c.value, c.args[1]
    _, channels, height, width = value.dims
    kept = channels // factor**2
    value = reshaped(e, value, (value.dims[0], kept, factor, factor, height, width), 0)
    return reshaped(e, permuted(e, value, [0, 1, 4, 2, 5, 3]), c.dims, c.batch)


def _pixel_unshuffle(e: Emitter, c: Call) -> Value:
    value, factor = c.value, c.args[1]
    images, channels, height, width = value.dims
    dims = (images, channels, height // factor, factor, width // factor, factor)
    value = reshaped(e, value, dims, 0)
    return reshaped(e, permuted(e, value, [0, 1, 3, 5, 2, 4]), c.dims, c.batch)


MOVES: Mapping[str, Callable[[Emitter, Call], Any]] = {
    "_unsafe_view": _reshape,
    "alias": _alias,
    "cat": _concat,
    "channel_shuffle": _shuffle,
    "chunk": _chunk,
    "clone": _alias,
    "col2im": _fold,
    "concat": _concat,
    "constant_pad_nd": lambda e, c: _pad_as(e, c, "constant", c.get(2, "value", 0)),
    "contiguous": _alias,
    "detach": _alias,
    "expand": _expand,
    "expand_as": _expand,
    "flatten": _reshape,
    "flip": _flip,
    "gather": _gather,
    "im2col": _unfold,
    "index": _index,
    "index_select": _index_select,
    "matrix_H": _matrix_transpose,
    "mT": _matrix_transpose,
    "movedim": _move_axis,
    "moveaxis": _move_axis,
    "pad": _pad,
    "permute": _permute,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "reshape": _reshape,
    "reshape_as": _reshape,
    "roll": _roll,
    "select": _select,
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "swapaxes": _transpose,
    "t": lambda e, c: _transpose(e, c.on(c.value, 0, 1)),
    "tensor_split": _tensor_split,
    "tile": _repeat,
    "transpose": _transpose,
    "unbind": _unbind,
    "unflatten": _reshape,
    "unfold": _windows,
    "unsqueeze": _reshape,
    "view": _reshape,
    "view_as": _reshape,
}
LAZY_MOVES = frozenset(
    {"alias", "clone", "contiguous", "detach", "expand", "expand_as", "permute", "transpose"}
)
"""Readers that leave an expanded value as it is."""
