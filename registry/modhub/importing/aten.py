"""ATen operators and what they are called here: one reader per operator, each emitting allow-listed nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modhub.importing.aten_moves import LAZY_MOVES, MOVES, overlapped, padded, pair, sliced
from modhub.importing.aten_products import PRODUCTS, linear, scaled
from modhub.importing.values import (
    Call,
    Emitter,
    NoEquivalentError,
    Value,
    aligned,
    emitted_constant,
    held_as,
    permuted,
    reshaped,
)

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Klambauer et al. 2017, arXiv 1706.02515, equation 14."""
_HUGE = 1e30
"""What stands for infinity in a graph."""
IN_PLACE: frozenset[str] = frozenset({"copy_"})


def _tensor(value: Any, what: str) -> Tensor | None:
    if isinstance(value, Value):
        raise NoEquivalentError(f"with a {what} that depends on the image")
    return None if value is None else torch.as_tensor(value)


def _alias(e: Emitter, c: Call) -> Any:
    return c.value


def _to(e: Emitter, c: Call) -> Any:
    dtypes = [item for item in (*c.args[1:], *c.kwargs.values()) if isinstance(item, torch.dtype)]
    if any(dtype is not torch.float32 for dtype in dtypes):
        raise NoEquivalentError("to another number format than float32")
    return c.value


def _plain(op: str, **attributes: Any) -> Callable[[Emitter, Call], Value]:
    return lambda e, c: e.emit(op, [c.value], attributes)


# -- layers -----------------------------------------------------------------------------------------------


def _image(value: Value) -> Value:
    if not value.plain or value.rank != 4:
        raise NoEquivalentError("of something that is no image")
    return value


def _per_channel(read: Callable[[Emitter, Call], Value]) -> Callable[[Emitter, Call], Value]:
    """A reader that treats every channel by itself, of windows too: their channels are one image's."""

    def reading(e: Emitter, c: Call) -> Value:
        value = c.value
        if value.plain or value.batch or value.rank != 4:
            return read(e, c)
        windows, channels, *extents = value.dims
        image = reshaped(e, value, (1, windows * channels, *extents), 0)
        inner = replace(c.on(image, *c.args[1:], **c.kwargs), dims=(1, windows * channels, *c.dims[2:]))
        out = reshaped(e, read(e, inner), c.dims, 0)
        return replace(out, outer=value.outer, inner=value.inner)

    return reading


def _windowed_conv2d(e: Emitter, c: Call) -> Value:
    """Windows one below the other in one image, so far apart that none sees its neighbour."""
    value, weight = c.value, c.args[1]
    windows, channels, height, width = value.dims
    stride, dilation = pair(c.get(3, "stride", 1))[0], pair(c.get(5, "dilation", 1))[0]
    padding = c.get(4, "padding", 0)
    if isinstance(padding, str):
        raise NoEquivalentError("that pads windows by itself")
    above, beside = pair(padding)
    reach = dilation * (weight.shape[2] - 1) + 1
    period = -(-max(height + 2 * above, reach) // stride) * stride
    image = reshaped(e, value, (1, windows, channels, height, width), 0)
    if period > height:
        image = padded(e, image, (0, 0, above, 0), (0, 0, period - height - above, 0), "constant", 0.0)
    image = permuted(e, image, [0, 2, 1, 3, 4])
    image = reshaped(e, image, (1, channels, windows * period, width), 0)
    if reach > stride:
        image = padded(e, image, (0, 0, 0), (0, reach - stride, 0), "constant", 0.0)
    rest = (pair(c.get(3, "stride", 1)), [0, beside], pair(c.get(5, "dilation", 1)), c.get(6, "groups", 1))
    out = _conv2d(e, c.on(image, weight, c.get(2, "bias"), *rest))
    _, shape, rows, columns = c.dims
    out = reshaped(e, out, (1, shape, windows, period // stride, columns), 0)
    out = sliced(e, permuted(e, out, [0, 2, 1, 3, 4]), 2, 0, rows)
    out = reshaped(e, out, c.dims, 0)
    return replace(out, outer=value.outer, inner=value.inner)


def _conv2d(e: Emitter, c: Call) -> Value:
    if c.value.batch == 0 and c.value.merged and c.value.rank == 4 and isinstance(c.args[1], Tensor):
        return _windowed_conv2d(e, c)
    weight = _tensor(c.args[1], "weight")
    if weight is None or weight.dim() != 4:
        raise NoEquivalentError("that is not two-dimensional")
    out_channels, per_group, *kernel = weight.shape
    groups = c.get(6, "groups", 1)
    dilation = pair(c.get(5, "dilation", 1))
    padding = c.get(4, "padding", 0)
    value = _image(c.value)
    if isinstance(padding, str):
        amounts = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = [amount // 2 for amount in amounts]
        if any(amount % 2 for amount in amounts):
            before, after = (0, *padding), (0, *(a - p for a, p in zip(amounts, padding, strict=True)))
            value = padded(e, value, before, after, "constant", 0.0)
            padding = [0, 0]
    attributes = {
        "in_channels": per_group * groups,
        "out_channels": out_channels,
        "kernel": tuple(kernel),
        "stride": pair(c.get(3, "stride", 1)),
        "padding": pair(padding),
        "dilation": dilation,
        "groups": groups,
    }
    tensors = {"weight": weight, "bias": _tensor(c.get(2, "bias"), "bias")}
    return e.emit("conv2d", [value], attributes, tensors)


def _convolution(e: Emitter, c: Call) -> Value:
    if c.args[6] or any(c.args[7]):
        raise NoEquivalentError("that is transposed")
    return _conv2d(e, c.on(*c.args[:6], c.args[8]))


def _conv1d(e: Emitter, c: Call) -> Value:
    """Over the channels of one row, as efficient channel attention does; else one of height 1."""
    weight = _tensor(c.args[1], "weight")
    if weight is None:
        raise NoEquivalentError("without a weight")
    value = c.value
    row = value.plain and value.rank == 3 and value.shape[0] == 1 and value.dims == c.dims
    plain = all(_single(c.get(at, name, 1)) == 1 for at, name in ((3, "stride"), (5, "dilation")))
    if not row or not plain or weight.shape[2] % 2 == 0:
        rest = [_tall(c.get(at, name, least), least) for at, name, least in _CONV1D]
        inner = c.on(value, weight.unsqueeze(2), c.get(2, "bias"), *rest, c.get(6, "groups", 1))
        return _as_image(e, inner, _conv2d)
    tensors = {"weight": weight.flatten(), "bias": _tensor(c.get(2, "bias"), "bias")}
    return e.emit("channel_conv1d", [value], {"kernel": weight.shape[2]}, tensors)


_CONV1D = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))


def _single(value: Any) -> Any:
    return value if isinstance(value, int) else value[0]


def _tall(value: Any, least: int) -> Any:
    """An argument over positions as one over rows and columns of an image of height 1."""
    return value if isinstance(value, str) else [least, _single(value)]


def _as_image(e: Emitter, c: Call, reader: Callable[[Emitter, Call], Value]) -> Value:
    """(batch, channel, length) read as (batch, channel, 1, length)."""
    value, dims = c.value, (*c.dims[:2], 1, *c.dims[2:])
    image = reshaped(e, value, (*value.dims[:2], 1, *value.dims[2:]), value.batch)
    out = reader(e, replace(c.on(image, *c.args[1:], **c.kwargs), dims=dims))
    return reshaped(e, out, c.dims, c.batch)


def _transposed_conv2d(e: Emitter, c: Call) -> Value:
    """A linear layer at every place, whose numbers are laid down and added where they meet."""
    weight, value = _tensor(c.args[1], "weight"), _image(c.value)
    if weight is None or weight.dim() != 4 or c.get(6, "groups", 1) != 1:
        raise NoEquivalentError("in groups")
    channels_in, channels_out, *kernel = weight.shape
    stride, padding, dilation = (
        pair(c.get(at, name, least))
        for at, name, least in ((3, "stride", 1), (4, "padding", 0), (7, "dilation", 1))
    )
    per_place = weight.permute(1, 2, 3, 0).reshape(-1, channels_in, 1, 1)
    spread = _conv2d(e, c.on(value, per_place.contiguous()))
    _, _, height, width = value.dims
    spread = reshaped(e, spread, (1, channels_out, math.prod(kernel) * height * width), 0)
    out = overlapped(e, spread, c.dims[2:], tuple(kernel), stride, padding, dilation)
    bias = c.get(2, "bias")
    return out if bias is None else _with_constant(e, "add", out, bias.view(-1, 1, 1), 1.0, 1.0)


def _batch_norm(e: Emitter, c: Call) -> Value:
    weight, bias, mean, var = (_tensor(c.args[i], "statistic") for i in range(1, 5))
    if mean is None or var is None:
        raise NoEquivalentError("that normalises by the batch at hand")
    eps = c.get(7, "eps", 1e-5)
    if c.value.rank < 2 or c.value.axis(1) != 0:
        # Channels that are no first dimension are scaled and shifted.
        scale = torch.rsqrt(var.double() + eps) * (1.0 if weight is None else weight.double())
        shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
        form = (-1, *[1] * (c.value.rank - 2))
        scaled_value = _with_constant(e, "multiply", c.value, scale.float().view(form), 1.0, 1.0)
        return _with_constant(e, "add", scaled_value, shift.float().view(form), 1.0, 1.0)
    tensors = {"weight": weight, "bias": bias, "mean": mean, "var": var}
    return e.emit("batch_norm", [c.value], {"eps": eps}, tensors)


def _group_norm(e: Emitter, c: Call) -> Value:
    if not c.value.plain:
        raise NoEquivalentError("of something that is no image")
    tensors = {"weight": _tensor(c.get(2, "weight"), "weight"), "bias": _tensor(c.get(3, "bias"), "bias")}
    attributes = {"groups": c.args[1], "eps": c.get(4, "eps", 1e-5)}
    return e.emit("group_norm", [c.value], attributes, tensors)


def _instance_norm(e: Emitter, c: Call) -> Value:
    """A group norm of groups of one channel; with running statistics a batch norm."""
    if not c.args[5]:
        return _batch_norm(e, c)
    return _group_norm(e, c.on(c.value, c.value.shape[0], *c.args[1:3], c.args[7]))


def _normalised(value: Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of the graph that the last dimensions of the program are."""
    return tuple(value.axis(value.rank - len(shape) + at) for at in range(len(shape)))


def _layer_norm(e: Emitter, c: Call) -> Value:
    shape = tuple(c.args[1])
    _normalised(c.value, shape)
    tensors = {"weight": _tensor(c.get(2, "weight"), "weight"), "bias": _tensor(c.get(3, "bias"), "bias")}
    attributes = {"shape": shape, "count": math.prod(shape), "eps": c.get(4, "eps", 1e-5)}
    return e.emit("layer_norm", [c.value], attributes, tensors)


def _rms_norm(e: Emitter, c: Call) -> Value:
    """x / sqrt(mean(x²) + eps) · weight."""
    value = c.value
    dims = _normalised(value, tuple(c.args[1]))
    eps = c.get(3, "eps")
    square = e.emit("power", [value], {"exponent": 2.0})
    mean = e.emit("mean", [square], {"dims": dims, "keep": True})
    above = scaled(e, mean, 1.0, torch.finfo(torch.float32).eps if eps is None else eps)
    factor = e.emit("power", [above], {"exponent": -0.5})
    out = e.emit("multiply", [value, factor])
    weight = c.get(2, "weight")
    return out if weight is None else _with_constant(e, "multiply", out, weight, 1.0, 1.0)


def _max_pool(e: Emitter, c: Call) -> Value:
    kernel = pair(c.args[1])
    attributes = {
        "kernel": kernel,
        "stride": pair(c.get(2, "stride") or kernel),
        "padding": pair(c.get(3, "padding", 0)),
        "dilation": pair(c.get(4, "dilation", 1)),
        "ceil": bool(c.get(5, "ceil_mode", False)),
    }
    return e.emit("max_pool2d", [_image(c.value)], attributes)


def _avg_pool(e: Emitter, c: Call) -> Value:
    if c.get(6, "divisor_override") is not None:
        raise NoEquivalentError("with a divisor")
    kernel = pair(c.args[1])
    attributes = {
        "kernel": kernel,
        "stride": pair(c.get(2, "stride") or kernel),
        "padding": pair(c.get(3, "padding", 0)),
        "ceil": bool(c.get(4, "ceil_mode", False)),
        "count_padding": bool(c.get(5, "count_include_pad", True)),
    }
    return e.emit("avg_pool2d", [_image(c.value)], attributes)


def _avg_pool1d(e: Emitter, c: Call) -> Value:
    kernel = _tall(c.args[1], 1)
    stride, padding = _tall(c.get(2, "stride") or c.args[1], 1), _tall(c.get(3, "padding", 0), 0)
    rest = (c.get(4, "ceil_mode", False), c.get(5, "count_include_pad", True))
    return _as_image(e, c.on(c.value, kernel, stride, padding, *rest), _avg_pool)


def _max_pool1d(e: Emitter, c: Call) -> Value:
    kernel = _tall(c.args[1], 1)
    stride, padding = _tall(c.get(2, "stride") or c.args[1], 1), _tall(c.get(3, "padding", 0), 0)
    rest = (_tall(c.get(4, "dilation", 1), 1), c.get(5, "ceil_mode", False))
    return _as_image(e, c.on(c.value, kernel, stride, padding, *rest), _max_pool)


def _adaptive(op: str) -> Callable[[Emitter, Call], Value]:
    return lambda e, c: e.emit(op, [_image(c.value)], {"size": c.dims[2:]})


def _adaptive1d(op: str) -> Callable[[Emitter, Call], Value]:
    return lambda e, c: _as_image(e, c, _adaptive(op))


def _upsample(op: str) -> Callable[[Emitter, Call], Value]:
    """The two ways that graphs know; by fractions of a pixel what every kernel is, a matrix for each axis."""

    def read(e: Emitter, c: Call) -> Value:
        _, _, *extents = _image(c.value).dims
        scales = zip(extents, c.args[-1] or (), c.dims[2:], strict=False)
        if any(extent * scale != wanted for extent, scale, wanted in scales):
            return _interpolated(op)(e, c)
        corners = {} if op == "upsample_nearest2d" else {"align_corners": bool(c.args[2])}
        return e.emit(op, [c.value], {"size": c.dims[2:], **corners})

    return read


def _interpolated(op: str) -> Callable[[Emitter, Call], Value]:
    """Interpolation is linear, and the same for all rows and for all columns."""

    def read(e: Emitter, c: Call) -> Value:
        value = _image(c.value)
        for dim in (3, 2):
            extent = value.dims[dim]
            impulses = torch.eye(extent).view(extent, 1, *((1, extent) if dim == 3 else (extent, 1)))
            images = impulses.expand(extent, 1, *c.value.dims[2:])
            with torch.no_grad():
                answers = getattr(torch.ops.aten, op)(images, *c.args[1:], **c.kwargs)
            matrix = answers[:, 0, 0] if dim == 3 else answers[:, 0, :, 0]
            turn = [0, 1, 3, 2] if dim == 2 else [0, 1, 2, 3]
            value = permuted(e, linear(e, permuted(e, value, turn), matrix.T.contiguous()), turn)
        return value

    return read


# -- activations ------------------------------------------------------------------------------------------


def _hardtanh(e: Emitter, c: Call) -> Value:
    low, high = c.get(1, "min_val", -1.0), c.get(2, "max_val", 1.0)
    return e.emit("clamp", [c.value], {"low": low, "high": high})


def _clamp(e: Emitter, c: Call) -> Value:
    low, high = c.get(1, "min"), c.get(2, "max")
    bounds = {"low": -_HUGE if low is None else low, "high": _HUGE if high is None else high}
    return e.emit("clamp", [c.value], bounds)


def _leaky_relu(e: Emitter, c: Call) -> Value:
    return e.emit("leaky_relu", [c.value], {"slope": c.get(1, "negative_slope", 0.01)})


def _elu(e: Emitter, c: Call) -> Value:
    if c.get(2, "scale", 1) != 1 or c.get(3, "input_scale", 1) != 1:
        raise NoEquivalentError("with a scale")
    return _scaled_elu(e, c, c.get(1, "alpha", 1.0))


def _scaled_elu(e: Emitter, c: Call, alpha: float, before: float = 1.0, after: float = 1.0) -> Value:
    """after · elu(before · value)."""
    bent = e.emit("elu", [scaled(e, c.value, before)], {"alpha": alpha})
    return scaled(e, bent, after)


def _celu(e: Emitter, c: Call) -> Value:
    alpha = c.get(1, "alpha", 1.0)
    return _scaled_elu(e, c, 1.0, 1 / alpha, alpha)


def _softplus(e: Emitter, c: Call) -> Value:
    attributes = {"beta": c.get(1, "beta", 1), "threshold": c.get(2, "threshold", 20)}
    return e.emit("softplus", [c.value], attributes)


def _gelu(e: Emitter, c: Call) -> Value:
    return e.emit("gelu", [c.value], {"approximate": c.get(1, "approximate", "none")})


def _glu(e: Emitter, c: Call) -> Value:
    axis = c.value.axis(c.get(1, "dim", -1))
    half = c.value.shape[axis] // 2
    parts = [
        e.emit("slice", [c.value], {"dim": axis, "start": start, "stop": start + half, "step": 1})
        for start in (0, half)
    ]
    return e.emit("multiply", [parts[0], e.emit("sigmoid", parts[1:])])


def _prelu(e: Emitter, c: Call) -> Value:
    weight = _tensor(c.args[1], "slope")
    if weight is None:
        raise NoEquivalentError("without a slope")
    if weight.numel() == 1:
        return e.emit("leaky_relu", [c.value], {"slope": float(weight)})
    if c.value.axis(1) != 0:
        raise NoEquivalentError("of something that is no image")
    return e.emit("prelu", [c.value], {}, {"weight": weight})


def _softmax(e: Emitter, c: Call) -> Value:
    if len(c.value.shape) == 1:
        raise NoEquivalentError("of all features")
    return e.emit("softmax", [c.value], {"dim": c.value.axis(c.args[1])})


# -- arithmetic -------------------------------------------------------------------------------------------


def _power(e: Emitter, c: Call) -> Value:
    exponent = c.args[1]
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, int | float):
        raise NoEquivalentError("to a power that is not one number")
    return e.emit("power", [c.value], {"exponent": exponent})


def _arithmetic(sign: float, op: str) -> Callable[[Emitter, Call], Value]:
    """add, sub and mul of two values, of a value and a constant tensor, or of a value and a number."""

    def read(e: Emitter, c: Call) -> Value:
        left, right = c.args[0], c.args[1]
        factor = sign * c.kwargs.get("alpha", 1)
        if isinstance(left, Value) and isinstance(right, Value):
            return e.emit(op, aligned(e, [left, scaled(e, right, factor)]))
        if isinstance(left, Value):
            return _with_constant(e, op, left, right, 1.0, factor)
        return _with_constant(e, op, right, left, factor, 1.0)

    return read


def _with_constant(e: Emitter, op: str, value: Value, other: Any, factor: float, sign: float) -> Value:
    """own·value + sign·other, or value·other."""
    rank = max(value.rank, other.dim() if isinstance(other, Tensor) else 0)
    if isinstance(other, Tensor) and other.numel() == 1:
        other = float(other)
    if isinstance(other, int | float):
        scale, shift = (factor, sign * other) if op == "add" else (other, 0.0)
        return _raised(e, scaled(e, value, scale, shift), rank)
    if not isinstance(other, Tensor):
        raise NoEquivalentError("with something that is not a number")
    value = _raised(e, value, rank)
    if factor != 1:
        value = e.emit("scale_shift", [value], {"scale": factor, "shift": 0.0})
    held = held_as(other, value, rank)
    if op == "add":
        held = sign * held
    held = held.float()
    if all(n in (1, extent) for n, extent in zip(held.shape, value.shape, strict=True)):
        return e.emit(f"{op}_constant", [value], {"shape": tuple(held.shape)}, {"value": held})
    constant = emitted_constant(e, sign * other if op == "add" else other, value)
    return e.emit(op, [value, constant])


def _raised(e: Emitter, value: Value, rank: int) -> Value:
    """With dimensions of one entry in front, up to an exported rank."""
    more = rank - value.rank
    if not more:
        return value
    return reshaped(e, value, (*[1] * more, *value.dims), value.batch + more)


def _divide(e: Emitter, c: Call) -> Value:
    left, right = c.args[:2]
    if c.kwargs.get("rounding_mode"):
        raise NoEquivalentError("with rounding")
    if isinstance(left, Value) and isinstance(right, Value):
        return e.emit("divide", aligned(e, [left, right]))
    if isinstance(right, Value):
        inverse = e.emit("power", [right], {"exponent": -1.0})
        return _with_constant(e, "multiply", inverse, left, 1.0, 1.0)
    reciprocal: Any = 1 / right.float() if isinstance(right, Tensor) else 1 / right
    return _with_constant(e, "multiply", left, reciprocal, 1.0, 1.0)


def _addcmul(e: Emitter, c: Call) -> Value:
    base, first, second = c.args
    if c.kwargs.get("value", 1) != 1:
        raise NoEquivalentError("with a factor")
    if not isinstance(first, Value) and not isinstance(second, Value):
        raise NoEquivalentError("of two constants")
    return _arithmetic(1, "add")(e, c.on(base, _arithmetic(1, "multiply")(e, c.on(first, second))))


def _negative(e: Emitter, c: Call) -> Value:
    return scaled(e, c.value, -1.0)


def _rsub(e: Emitter, c: Call) -> Value:
    return _arithmetic(-1, "add")(e, c.on(c.args[1], c.args[0], **c.kwargs))


def _masked_fill(e: Emitter, c: Call) -> Value:
    """Where a constant mask is True another number."""
    mask, filling = c.args[1], c.args[2]
    if not isinstance(mask, Tensor):
        raise NoEquivalentError("by a mask that depends on the image")
    return _where(e, c.on(~mask, c.value, torch.as_tensor(filling, dtype=torch.float32)))


def _where(e: Emitter, c: Call) -> Value:
    mask, here, there = c.args
    if not isinstance(mask, Tensor):
        raise NoEquivalentError("by a mask that depends on the image")
    parts: list[Any] = []
    for part, wanted in ((here, mask), (there, ~mask)):
        if isinstance(part, Value):
            rank = max(part.rank, mask.dim())
            value = _raised(e, part, rank)
            constant = held_as(wanted, value, rank)
            if any(n not in (1, extent) for n, extent in zip(constant.shape, value.shape, strict=True)):
                raise NoEquivalentError("by a mask that is larger than the value")
            parts.append(
                e.emit("position_mask", [value], {"shape": tuple(constant.shape)}, {"value": constant})
            )
        else:
            filling = torch.as_tensor(part, dtype=torch.float32).clamp(-_HUGE, _HUGE)
            parts.append(torch.where(wanted, filling, torch.zeros(())))
    return _arithmetic(1, "add")(e, c.on(*parts))


# -- over dimensions --------------------------------------------------------------------------------------


def _dims(dims: Any, value: Value) -> tuple[int, ...]:
    if dims is None or dims == []:
        raise NoEquivalentError("across the batch")
    return tuple(sorted(value.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)))


def _over_dims(op: str, e: Emitter, c: Call) -> Value:
    value = c.value
    dims, keep = _dims(c.get(1, "dim"), value), bool(c.get(2, "keepdim", False))
    left = tuple(extent for dim, extent in enumerate(value.shape) if dim not in dims)
    if keep or len(left) < 2:
        return _placed(e.emit(op, [value], {"dims": dims, "keep": keep}), c)
    # Dropped in a step of its own: of several dimensions left, none would count what was one channel.
    value = e.emit(op, [value], {"dims": dims, "keep": True})
    return _placed(e.emit("reshape", [value], {"shape": left}), c)


def _placed(value: Value, c: Call) -> Value:
    """The batch where the output has it."""
    return replace(value, batch=c.batch)


def _sum(e: Emitter, c: Call) -> Value:
    count = math.prod(c.value.shape[dim] for dim in _dims(c.get(1, "dim"), c.value))
    return scaled(e, _over_dims("mean", e, c), count)


def _max(e: Emitter, c: Call) -> Value:
    """The largest along a dimension, or of two values."""
    other = c.get(1, "dim")
    if isinstance(other, Value):
        return e.emit("maximum", aligned(e, [c.value, other]))
    if isinstance(other, Tensor):
        above = _with_constant(e, "add", c.value, other, 1.0, -1.0)
        return _with_constant(e, "add", e.emit("relu", [above]), other, 1.0, 1.0)
    return _over_dims("largest", e, c)


def _min(e: Emitter, c: Call) -> Value:
    """The largest of what is negated."""
    rest: list[Any] = c.args[1:]
    if rest and isinstance(rest[0], Value):
        rest = [scaled(e, rest[0], -1.0)]
    elif rest and isinstance(rest[0], Tensor):
        rest = [-rest[0]]
    return scaled(e, _max(e, c.on(scaled(e, c.value, -1.0), *rest, **c.kwargs)), -1.0)


def _variance(e: Emitter, c: Call) -> Value:
    value = c.value
    dims, keep = _dims(c.get(1, "dim"), value), c.get(3, "keepdim", False)
    count = math.prod(value.shape[dim] for dim in dims)
    correction = c.kwargs.get("correction", float(c.get(2, "unbiased", True)))
    if correction >= count:
        raise NoEquivalentError("of a single number")
    mean = e.emit("mean", [value], {"dims": dims, "keep": True})
    centred = _arithmetic(-1, "add")(e, c.on(value, mean))
    square = e.emit("power", [centred], {"exponent": 2})
    return scaled(e, _over_dims("mean", e, c.on(square, c.get(1, "dim"), keep)), count / (count - correction))


def _deviation(e: Emitter, c: Call) -> Value:
    return e.emit("power", [_variance(e, c)], {"exponent": 0.5})


def _mean(e: Emitter, c: Call) -> Value:
    return _over_dims("mean", e, c)


def _norm(e: Emitter, c: Call) -> Value:
    if c.get(1, "ord", 2) != 2 or c.get(2, "dim") is None:
        raise NoEquivalentError("of another order than 2")
    attributes = {"dims": _dims(c.get(2, "dim"), c.value), "keep": bool(c.get(3, "keepdim", False))}
    return _placed(e.emit("norm", [c.value], attributes), c)


READERS: Mapping[str, Callable[[Emitter, Call], Any]] = {
    **MOVES,
    **PRODUCTS,
    "_upsample_bicubic2d_aa": _interpolated("_upsample_bicubic2d_aa"),
    "_upsample_bilinear2d_aa": _interpolated("_upsample_bilinear2d_aa"),
    "_adaptive_avg_pool2d": _per_channel(_adaptive("adaptive_avg_pool2d")),
    "abs": lambda e, c: e.emit("maximum", [c.value, scaled(e, c.value, -1.0)]),
    "adaptive_avg_pool1d": _adaptive1d("adaptive_avg_pool2d"),
    "adaptive_avg_pool2d": _per_channel(_adaptive("adaptive_avg_pool2d")),
    "adaptive_max_pool1d": _adaptive1d("adaptive_max_pool2d"),
    "adaptive_max_pool2d": _per_channel(_adaptive("adaptive_max_pool2d")),
    "add": _arithmetic(1, "add"),
    "addcmul": _addcmul,
    "alpha_dropout": _alias,
    "amax": _max,
    "amin": _min,
    "avg_pool1d": _avg_pool1d,
    "avg_pool2d": _per_channel(_avg_pool),
    "batch_norm": _batch_norm,
    "celu": _celu,
    "clamp": _clamp,
    "clamp_max": lambda e, c: _clamp(e, c.on(c.value, None, c.args[1])),
    "clamp_min": lambda e, c: _clamp(e, c.on(c.value, c.args[1], None)),
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "conv_transpose2d": _transposed_conv2d,
    "convolution": _convolution,
    "div": _divide,
    "dropout": _alias,
    "elu": _elu,
    "exp": _plain("exp"),
    "feature_dropout": _alias,
    "gelu": _gelu,
    "glu": _glu,
    "group_norm": _group_norm,
    "hardsigmoid": _plain("hardsigmoid"),
    "hardswish": _plain("hardswish"),
    "hardtanh": _hardtanh,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "linalg_vector_norm": _norm,
    "masked_fill": _masked_fill,
    "max": _max,
    "max_pool1d": _max_pool1d,
    "max_pool2d": _per_channel(_max_pool),
    "maximum": _max,
    "mean": _mean,
    "min": _min,
    "minimum": _min,
    "mish": _plain("mish"),
    "mul": _arithmetic(1, "multiply"),
    "neg": _negative,
    "pow": _power,
    "prelu": _prelu,
    "reciprocal": _plain("power", exponent=-1.0),
    "relu": _plain("relu"),
    "relu6": _plain("clamp", low=0.0, high=6.0),
    "rms_norm": _rms_norm,
    "rsqrt": _plain("power", exponent=-0.5),
    "rsub": _rsub,
    "selu": lambda e, c: _scaled_elu(e, c, _SELU_ALPHA, after=_SELU_SCALE),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "softmax": _softmax,
    "softplus": _softplus,
    "sqrt": _plain("power", exponent=0.5),
    "square": _plain("power", exponent=2.0),
    "std": _deviation,
    "sub": _arithmetic(-1, "add"),
    "sum": _sum,
    "tanh": _plain("tanh"),
    "to": _to,
    "type_as": _alias,
    "upsample_bicubic2d": _interpolated("upsample_bicubic2d"),
    "upsample_bilinear2d": _per_channel(_upsample("upsample_bilinear2d")),
    "upsample_nearest2d": _per_channel(_upsample("upsample_nearest2d")),
    "var": _variance,
    "where": _where,
}
"""ATen operator -> its reader; in-place forms have the same reader."""

LAZY = LAZY_MOVES | {
    "add",
    "baddbmm",
    "bmm",
    "div",
    "matmul",
    "max",
    "maximum",
    "mul",
    "rsub",
    "sub",
    "to",
    "type_as",
}
"""Readers that take an expanded value as it was: they broadcast by themselves."""
