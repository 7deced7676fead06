"""ATen operators and what they are called here: one reader per operator, each emitting allow-listed nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from modhub.nets.operators import Shape

__all__ = ["IN_PLACE", "READERS", "Call", "Emitter", "NoEquivalentError"]

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Klambauer et al. 2017, arXiv 1706.02515, equation 14."""
_HUGE = 1e30
"""What stands for infinity in a graph."""
IN_PLACE: frozenset[str] = frozenset({"copy_"})


class NoEquivalentError(Exception):
    """An operator on the list is used in a way that is not; its text says how."""


class Emitter(Protocol):
    """Where readers put nodes."""

    def emit(
        self,
        op: str,
        inputs: list[str],
        shape: Shape,
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> str:
        """Append a node; returns its value's name."""
        ...

    def shape(self, value: str) -> Shape:
        """Without the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One ATen call: values are names (str), weights are tensors; `shape` is the output's, without batch."""

    args: list[Any]
    kwargs: Mapping[str, Any]
    shape: Shape

    def get(self, position: int, name: str, default: Any = None) -> Any:
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def value(self) -> str:
        if not isinstance(self.args[0], str):
            raise NoEquivalentError("of a constant by the image")
        return self.args[0]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _tensor(value: Any, what: str) -> Tensor | None:
    if isinstance(value, str):
        raise NoEquivalentError(f"with a {what} that depends on the image")
    return None if value is None else torch.as_tensor(value)


def _alias(e: Emitter, c: Call) -> Any:
    return c.value


def _to(e: Emitter, c: Call) -> Any:
    dtypes = [item for item in (*c.args[1:], *c.kwargs.values()) if isinstance(item, torch.dtype)]
    if any(dtype is not torch.float32 for dtype in dtypes):
        raise NoEquivalentError("to another number format than float32")
    return c.value


def _plain(op: str, **attributes: Any) -> Callable[[Emitter, Call], str]:
    return lambda e, c: e.emit(op, [c.value], c.shape, attributes)


def _conv2d(e: Emitter, c: Call) -> str:
    weight = _tensor(c.args[1], "weight")
    if weight is None or weight.dim() != 4:
        raise NoEquivalentError("that is not two-dimensional")
    out_channels, per_group, *kernel = weight.shape
    groups = c.get(6, "groups", 1)
    dilation = _pair(c.get(5, "dilation", 1))
    padding = c.get(4, "padding", 0)
    value = c.value
    if isinstance(padding, str):
        amounts = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = [amount // 2 for amount in amounts]
        if any(amount % 2 for amount in amounts):
            before, after = (0, *padding), (0, *(a - p for a, p in zip(amounts, padding, strict=True)))
            value = _padded(e, value, before, after, "constant", 0.0)
            padding = [0, 0]
    attributes = {
        "in_channels": per_group * groups,
        "out_channels": out_channels,
        "kernel": tuple(kernel),
        "stride": _pair(c.get(3, "stride", 1)),
        "padding": _pair(padding),
        "dilation": dilation,
        "groups": groups,
    }
    tensors = {"weight": weight, "bias": _tensor(c.get(2, "bias"), "bias")}
    return e.emit("conv2d", [value], c.shape, attributes, tensors)


def _convolution(e: Emitter, c: Call) -> str:
    if c.args[6] or any(c.args[7]):
        raise NoEquivalentError("that is transposed")
    return _conv2d(e, Call([*c.args[:6], c.args[8]], {}, c.shape))


def _conv1d(e: Emitter, c: Call) -> str:
    """Over the channels of one row, as efficient channel attention does."""
    weight = _tensor(c.args[1], "weight")
    row = len(c.shape) == 2 and e.shape(c.value) == c.shape and c.shape[0] == 1
    plain = all(_single(c.get(at, name, 1)) == 1 for at, name in ((3, "stride"), (5, "dilation")))
    if weight is None or not row or not plain or weight.shape[2] % 2 == 0:
        raise NoEquivalentError("that is not over one row of channels, of which it keeps the number")
    tensors = {"weight": weight.flatten(), "bias": _tensor(c.get(2, "bias"), "bias")}
    return e.emit("channel_conv1d", [c.value], c.shape, {"kernel": weight.shape[2]}, tensors)


def _single(value: Any) -> Any:
    return value if isinstance(value, int) else value[0]


def _linear(e: Emitter, c: Call) -> str:
    weight = _tensor(c.args[1], "weight")
    if weight is None or weight.dim() != 2:
        raise NoEquivalentError("with a weight that is not a matrix")
    attributes = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    tensors = {"weight": weight, "bias": _tensor(c.get(2, "bias"), "bias")}
    return e.emit("linear", [c.value], c.shape, attributes, tensors)


def _batch_norm(e: Emitter, c: Call) -> str:
    weight, bias, mean, var = (_tensor(c.args[i], "statistic") for i in range(1, 5))
    if mean is None or var is None:
        raise NoEquivalentError("that normalises by the batch at hand")
    tensors = {"weight": weight, "bias": bias, "mean": mean, "var": var}
    return e.emit("batch_norm", [c.value], c.shape, {"eps": c.get(7, "eps", 1e-5)}, tensors)


def _group_norm(e: Emitter, c: Call) -> str:
    tensors = {"weight": _tensor(c.get(2, "weight"), "weight"), "bias": _tensor(c.get(3, "bias"), "bias")}
    attributes = {"groups": c.args[1], "eps": c.get(4, "eps", 1e-5)}
    return e.emit("group_norm", [c.value], c.shape, attributes, tensors)


def _instance_norm(e: Emitter, c: Call) -> str:
    """A group norm of groups of one channel; with running statistics a batch norm."""
    if not c.args[5]:
        return _batch_norm(e, c)
    return _group_norm(e, Call([c.value, c.shape[0], *c.args[1:3], c.args[7]], {}, c.shape))


def _layer_norm(e: Emitter, c: Call) -> str:
    shape = tuple(c.args[1])
    tensors = {"weight": _tensor(c.get(2, "weight"), "weight"), "bias": _tensor(c.get(3, "bias"), "bias")}
    attributes = {"shape": shape, "count": math.prod(shape), "eps": c.get(4, "eps", 1e-5)}
    return e.emit("layer_norm", [c.value], c.shape, attributes, tensors)


def _hardtanh(e: Emitter, c: Call) -> str:
    low, high = c.get(1, "min_val", -1.0), c.get(2, "max_val", 1.0)
    return e.emit("clamp", [c.value], c.shape, {"low": low, "high": high})


def _clamp(e: Emitter, c: Call) -> str:
    low, high = c.get(1, "min"), c.get(2, "max")
    bounds = {"low": -_HUGE if low is None else low, "high": _HUGE if high is None else high}
    return e.emit("clamp", [c.value], c.shape, bounds)


def _leaky_relu(e: Emitter, c: Call) -> str:
    return e.emit("leaky_relu", [c.value], c.shape, {"slope": c.get(1, "negative_slope", 0.01)})


def _elu(e: Emitter, c: Call) -> str:
    if c.get(2, "scale", 1) != 1 or c.get(3, "input_scale", 1) != 1:
        raise NoEquivalentError("with a scale")
    return _scaled_elu(e, c, c.get(1, "alpha", 1.0))


def _scaled_elu(e: Emitter, c: Call, alpha: float, before: float = 1.0, after: float = 1.0) -> str:
    """after · elu(before · value)."""
    scaled = _with_constant(e, "multiply", c.value, before, 1.0, 1.0, c.shape)
    bent = e.emit("elu", [scaled], c.shape, {"alpha": alpha})
    return _with_constant(e, "multiply", bent, after, 1.0, 1.0, c.shape)


def _celu(e: Emitter, c: Call) -> str:
    alpha = c.get(1, "alpha", 1.0)
    return _scaled_elu(e, c, 1.0, 1 / alpha, alpha)


def _softplus(e: Emitter, c: Call) -> str:
    attributes = {"beta": c.get(1, "beta", 1), "threshold": c.get(2, "threshold", 20)}
    return e.emit("softplus", [c.value], c.shape, attributes)


def _power(e: Emitter, c: Call) -> str:
    exponent = c.args[1]
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, int | float):
        raise NoEquivalentError("to a power that is not one number")
    return e.emit("power", [c.value], c.shape, {"exponent": exponent})


def _gelu(e: Emitter, c: Call) -> str:
    return e.emit("gelu", [c.value], c.shape, {"approximate": c.get(1, "approximate", "none")})


def _prelu(e: Emitter, c: Call) -> str:
    weight = _tensor(c.args[1], "slope")
    if weight is None:
        raise NoEquivalentError("without a slope")
    if weight.numel() == 1:
        return e.emit("leaky_relu", [c.value], c.shape, {"slope": float(weight)})
    return e.emit("prelu", [c.value], c.shape, {}, {"weight": weight})


def _arithmetic(sign: float, op: str) -> Callable[[Emitter, Call], str]:
    """add, sub and mul of two values, of a value and a constant tensor, or of a value and a number."""

    def read(e: Emitter, c: Call) -> str:
        left, right = c.args[0], c.args[1]
        factor = sign * c.kwargs.get("alpha", 1)
        if isinstance(left, str) and isinstance(right, str):
            if factor != 1:
                right = e.emit("scale_shift", [right], e.shape(right), {"scale": factor, "shift": 0.0})
            left, right = (_of_rank(e, value, len(c.shape)) for value in (left, right))
            return e.emit(op, [left, right], c.shape)
        if isinstance(left, str):
            return _with_constant(e, op, left, right, 1.0, factor, c.shape)
        return _with_constant(e, op, right, left, factor, 1.0, c.shape)

    return read


def _with_constant(e: Emitter, op: str, value: str, other: Any, own: float, sign: float, shape: Shape) -> str:
    """own·value + sign·other, or value·other."""
    if isinstance(other, Tensor) and other.numel() == 1:
        other = float(other)
    if isinstance(other, int | float):
        scale, shift = (own, sign * other) if op == "add" else (other, 0.0)
        if (scale, shift) == (1, 0):
            return value
        return e.emit("scale_shift", [value], shape, {"scale": scale, "shift": shift})
    if not isinstance(other, Tensor):
        raise NoEquivalentError("with something that is not a number")
    if own != 1:
        value = e.emit("scale_shift", [value], e.shape(value), {"scale": own, "shift": 0.0})
    if other.dim() > len(shape):
        if other.shape[0] != 1:
            raise NoEquivalentError("with a constant for each image of the batch")
        held = other[0]
    else:
        held = other.reshape(*[1] * (len(shape) - other.dim()), *other.shape)
    if e.shape(value) != shape:
        raise NoEquivalentError("with a constant that is larger than the value")
    if op == "add":
        held = sign * held
    return e.emit(f"{op}_constant", [value], shape, {"shape": tuple(held.shape)}, {"value": held.float()})


def _of_rank(e: Emitter, value: str, rank: int) -> str:
    """The value itself; graphs have no operator that gives it more dimensions."""
    if (found := len(e.shape(value))) != rank:
        raise NoEquivalentError(f"of values of {found} and {rank} dimensions")
    return value


def _divide(e: Emitter, c: Call) -> str:
    other = c.args[1]
    if c.kwargs.get("rounding_mode"):
        raise NoEquivalentError("with rounding")
    if isinstance(other, str):
        left, right = (_of_rank(e, value, len(c.shape)) for value in (c.value, other))
        return e.emit("divide", [left, right], c.shape)
    inverse = 1 / other.float() if isinstance(other, Tensor) else 1 / other
    return _with_constant(e, "multiply", c.value, inverse, 1.0, 1.0, c.shape)


def _addcmul(e: Emitter, c: Call) -> str:
    base, one, two = c.args
    if c.kwargs.get("value", 1) != 1:
        raise NoEquivalentError("with a factor")
    if not isinstance(one, str) and not isinstance(two, str):
        raise NoEquivalentError("of two constants")
    product = _arithmetic(1, "multiply")(e, Call([one, two], {}, c.shape))
    return _arithmetic(1, "add")(e, Call([base, product], {}, c.shape))


def _negative(e: Emitter, c: Call) -> str:
    return e.emit("scale_shift", [c.value], c.shape, {"scale": -1.0, "shift": 0.0})


def _rsub(e: Emitter, c: Call) -> str:
    return _arithmetic(-1, "add")(e, Call([c.args[1], c.args[0]], c.kwargs, c.shape))


def _concat(e: Emitter, c: Call) -> str:
    values = c.args[0]
    if not all(isinstance(value, str) for value in values):
        raise NoEquivalentError("with a constant")
    if len(values) == 1:
        return str(values[0])
    return e.emit("concat", values, c.shape, {"dim": _dim(c.get(1, "dim", 0), c.shape)})


def _stack(e: Emitter, c: Call) -> str:
    dim = _dim(c.get(1, "dim", 0), c.shape)
    one = (*c.shape[:dim], 1, *c.shape[dim + 1 :])
    parts = [e.emit("reshape", [value], one, {"shape": one}) for value in c.args[0]]
    return _concat(e, Call([parts, dim + 1], {}, c.shape))


def _dim(dim: int, shape: Shape) -> int:
    """A dimension with the batch counted -> without it."""
    dim = dim + len(shape) + 1 if dim < 0 else dim
    if dim == 0:
        raise NoEquivalentError("across the batch")
    return dim - 1


def _max_pool(e: Emitter, c: Call) -> str:
    kernel = _pair(c.args[1])
    attributes = {
        "kernel": kernel,
        "stride": _pair(c.get(2, "stride") or kernel),
        "padding": _pair(c.get(3, "padding", 0)),
        "dilation": _pair(c.get(4, "dilation", 1)),
        "ceil": bool(c.get(5, "ceil_mode", False)),
    }
    return e.emit("max_pool2d", [c.value], c.shape, attributes)


def _avg_pool(e: Emitter, c: Call) -> str:
    if c.get(6, "divisor_override") is not None:
        raise NoEquivalentError("with a divisor")
    kernel = _pair(c.args[1])
    attributes = {
        "kernel": kernel,
        "stride": _pair(c.get(2, "stride") or kernel),
        "padding": _pair(c.get(3, "padding", 0)),
        "ceil": bool(c.get(4, "ceil_mode", False)),
        "count_padding": bool(c.get(5, "count_include_pad", True)),
    }
    return e.emit("avg_pool2d", [c.value], c.shape, attributes)


def _adaptive(op: str) -> Callable[[Emitter, Call], str]:
    def read(e: Emitter, c: Call) -> str:
        if len(c.shape) != 3:
            raise NoEquivalentError("of something that is no image")
        return e.emit(op, [c.value], c.shape, {"size": c.shape[1:]})

    return read


def _dims(dims: Any, shape: Shape) -> tuple[int, ...]:
    if dims is None:
        raise NoEquivalentError("across the batch")
    return tuple(sorted(_dim(dim, shape) for dim in ([dims] if isinstance(dims, int) else dims)))


def _over_dims(op: str, e: Emitter, c: Call) -> str:
    dims, keep = _dims(c.get(1, "dim"), e.shape(c.value)), bool(c.get(2, "keepdim", False))
    if keep or len(c.shape) < 2:
        return e.emit(op, [c.value], c.shape, {"dims": dims, "keep": keep})
    # Dropped in a step of its own: of several dimensions left, none would count what was one channel.
    kept = tuple(1 if dim in dims else extent for dim, extent in enumerate(e.shape(c.value)))
    value = e.emit(op, [c.value], kept, {"dims": dims, "keep": True})
    return e.emit("reshape", [value], c.shape, {"shape": c.shape})


def _sum(e: Emitter, c: Call) -> str:
    shape = e.shape(c.value)
    count = math.prod(shape[dim] for dim in _dims(c.get(1, "dim"), shape))
    return _with_constant(e, "multiply", _over_dims("mean", e, c), count, 1.0, 1.0, c.shape)


def _max(e: Emitter, c: Call) -> str:
    """The largest along a dimension, or of two values."""
    other = c.get(1, "dim")
    if isinstance(other, str):
        left, right = (_of_rank(e, value, len(c.shape)) for value in (c.value, other))
        return e.emit("maximum", [left, right], c.shape)
    if isinstance(other, Tensor):
        above = _with_constant(e, "add", c.value, other, 1.0, -1.0, c.shape)
        return _with_constant(e, "add", e.emit("relu", [above], c.shape), other, 1.0, 1.0, c.shape)
    return _over_dims("largest", e, c)


def _variance(e: Emitter, c: Call) -> str:
    shape = e.shape(c.value)
    dims, keep = _dims(c.get(1, "dim"), shape), c.get(3, "keepdim", False)
    count = math.prod(shape[dim] for dim in dims)
    correction = c.kwargs.get("correction", float(c.get(2, "unbiased", True)))
    if correction >= count:
        raise NoEquivalentError("of a single number")
    one = tuple(1 if dim in dims else extent for dim, extent in enumerate(shape))
    mean = e.emit("mean", [c.value], one, {"dims": dims, "keep": True})
    centred = _arithmetic(-1, "add")(e, Call([c.value, mean], {}, shape))
    square = e.emit("power", [centred], shape, {"exponent": 2})
    inner = [dim + 1 for dim in dims]
    found = _over_dims("mean", e, Call([square, inner, keep], {}, c.shape))
    return _with_constant(e, "multiply", found, count / (count - correction), 1.0, 1.0, c.shape)


def _deviation(e: Emitter, c: Call) -> str:
    return e.emit("power", [_variance(e, c)], c.shape, {"exponent": 0.5})


def _softmax(e: Emitter, c: Call) -> str:
    if len(c.shape) == 1:
        raise NoEquivalentError("of all features")
    return e.emit("softmax", [c.value], c.shape, {"dim": _dim(c.args[1], c.shape)})


def _mean(e: Emitter, c: Call) -> str:
    return _over_dims("mean", e, c)


def _norm(e: Emitter, c: Call) -> str:
    if c.get(1, "ord", 2) != 2 or c.get(2, "dim") is None:
        raise NoEquivalentError("of another order than 2")
    dims = _dims(c.get(2, "dim"), e.shape(c.value))
    return e.emit("norm", [c.value], c.shape, {"dims": dims, "keep": bool(c.get(3, "keepdim", False))})


def _reshape(e: Emitter, c: Call) -> str:
    if e.shape(c.value) == c.shape:
        return c.value
    if not c.shape:
        raise NoEquivalentError("to a single number per image")
    if math.prod(e.shape(c.value)) != math.prod(c.shape):
        raise NoEquivalentError("of a value that was spread")
    return e.emit("reshape", [c.value], c.shape, {"shape": c.shape})


def _permute(e: Emitter, c: Call) -> str:
    dims = [dim % (len(c.shape) + 1) for dim in c.args[1]]
    if dims[0] != 0:
        raise NoEquivalentError("of the batch dimension")
    return e.emit("permute", [c.value], c.shape, {"dims": tuple(dim - 1 for dim in dims[1:])})


def _transpose(e: Emitter, c: Call) -> str:
    order = list(range(len(c.shape) + 1))
    one, two = (dim % len(order) for dim in c.args[1:3])
    order[one], order[two] = order[two], order[one]
    return _permute(e, Call([c.value, order], {}, c.shape))


def _padded(
    e: Emitter, value: str, before: tuple[int, ...], after: tuple[int, ...], mode: str, filling: float
) -> str:
    shape = tuple(n + b + a for n, b, a in zip(e.shape(value), before, after, strict=True))
    attributes = {"before": before, "after": after, "mode": mode, "value": filling}
    return e.emit("pad", [value], shape, attributes)


def _pad(e: Emitter, c: Call) -> str:
    return _pad_as(e, c, str(c.get(2, "mode", "constant")), c.get(3, "value"))


def _pad_as(e: Emitter, c: Call, mode: str, filling: float | None) -> str:
    """A negative amount cuts; it is done first."""
    if mode not in ("constant", "reflect", "replicate"):
        raise NoEquivalentError(f"with mode '{mode}'")
    amounts = list(c.args[1])
    value = c.value
    rank = len(c.shape)
    before, after = [0] * rank, [0] * rank
    for position in range(len(amounts) // 2):
        dim = rank - 1 - position
        if dim < 0:
            if any(amounts[2 * position : 2 * position + 2]):
                raise NoEquivalentError("of the batch dimension")
            continue
        low, high = amounts[2 * position], amounts[2 * position + 1]
        if low < 0 or high < 0:
            extent = e.shape(value)[dim]
            value = _sliced(e, value, dim, max(-low, 0), extent - max(-high, 0), 1)
        before[dim], after[dim] = max(low, 0), max(high, 0)
    if not any(before) and not any(after):
        return value
    return _padded(e, value, tuple(before), tuple(after), mode, max(float(filling or 0.0), -_HUGE))


def _sliced(e: Emitter, value: str, dim: int, start: int, stop: int, step: int) -> str:
    shape = e.shape(value)
    if (start, stop, step) == (0, shape[dim], 1):
        return value
    count = len(range(start, stop, step))
    out = (*shape[:dim], count, *shape[dim + 1 :])
    return e.emit("slice", [value], out, {"dim": dim, "start": start, "stop": stop, "step": step})


def _slice(e: Emitter, c: Call) -> str:
    dim, start, stop, step = c.get(1, "dim", 0), c.get(2, "start"), c.get(3, "end"), c.get(4, "step", 1)
    shape = e.shape(c.value)
    if dim % (len(shape) + 1) == 0:
        if (start or 0) == 0 and (stop is None or stop > 1 << 30) and step == 1:
            return c.value
        raise NoEquivalentError("of the batch")
    dim = _dim(dim, shape)
    first, last, _ = slice(start, stop, step).indices(shape[dim])
    return _sliced(e, c.value, dim, first, last, step)


def _select(e: Emitter, c: Call) -> str:
    shape = e.shape(c.value)
    dim = _dim(c.args[1], shape)
    index = c.args[2] % shape[dim]
    one = _sliced(e, c.value, dim, index, index + 1, 1)
    return e.emit("reshape", [one], c.shape, {"shape": c.shape})


def _split(e: Emitter, c: Call) -> list[str]:
    shape = e.shape(c.value)
    dim = _dim(c.get(2, "dim", 0), shape)
    sizes = c.args[1]
    if isinstance(sizes, int):
        sizes = [min(sizes, shape[dim] - start) for start in range(0, shape[dim], sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(_sliced(e, c.value, dim, start, start + size, 1))
        start += size
    return parts


def _chunk(e: Emitter, c: Call) -> list[str]:
    dim = _dim(c.get(2, "dim", 0), e.shape(c.value))
    size = -(-e.shape(c.value)[dim] // c.args[1])
    return _split(e, Call([c.value, size, dim + 1], {}, c.shape))


def _unbind(e: Emitter, c: Call) -> list[str]:
    shape = e.shape(c.value)
    dim = _dim(c.get(1, "dim", 0), shape)
    return [_select(e, Call([c.value, dim + 1, index], {}, c.shape)) for index in range(shape[dim])]


def _upsample(op: str) -> Callable[[Emitter, Call], str]:
    def read(e: Emitter, c: Call) -> str:
        _, *extents = e.shape(c.value)
        for extent, scale, wanted in zip(extents, c.args[-1] or (), c.shape[1:], strict=False):
            if extent * scale != wanted:
                raise NoEquivalentError("by a factor that leaves a fraction of a pixel")
        corners = {} if op == "upsample_nearest2d" else {"align_corners": bool(c.args[2])}
        return e.emit(op, [c.value], c.shape, {"size": c.shape[1:], **corners})

    return read


def _shuffle(e: Emitter, c: Call) -> str:
    return e.emit("channel_shuffle", [c.value], c.shape, {"groups": c.args[1]})


def _expand(e: Emitter, c: Call) -> str:
    """Left to the operator that reads it, which broadcasts by itself."""
    return c.value


READERS: Mapping[str, Callable[[Emitter, Call], Any]] = {
    "_adaptive_avg_pool2d": _adaptive("adaptive_avg_pool2d"),
    "_unsafe_view": _reshape,
    "adaptive_avg_pool2d": _adaptive("adaptive_avg_pool2d"),
    "adaptive_max_pool2d": _adaptive("adaptive_max_pool2d"),
    "add": _arithmetic(1, "add"),
    "addcmul": _addcmul,
    "alias": _alias,
    "alpha_dropout": _alias,
    "amax": _max,
    "avg_pool2d": _avg_pool,
    "batch_norm": _batch_norm,
    "cat": _concat,
    "celu": _celu,
    "channel_shuffle": _shuffle,
    "chunk": _chunk,
    "clamp": _clamp,
    "clamp_min": lambda e, c: _clamp(e, Call([c.args[0], c.args[1], None], {}, c.shape)),
    "clone": _alias,
    "concat": _concat,
    "constant_pad_nd": lambda e, c: _pad_as(e, c, "constant", c.get(2, "value", 0)),
    "contiguous": _alias,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "convolution": _convolution,
    "detach": _alias,
    "div": _divide,
    "dropout": _alias,
    "elu": _elu,
    "expand": _expand,
    "expand_as": _expand,
    "feature_dropout": _alias,
    "flatten": _reshape,
    "gelu": _gelu,
    "group_norm": _group_norm,
    "hardsigmoid": _plain("hardsigmoid"),
    "hardswish": _plain("hardswish"),
    "hardtanh": _hardtanh,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "linalg_vector_norm": _norm,
    "max": _max,
    "max_pool2d": _max_pool,
    "maximum": _max,
    "mean": _mean,
    "mish": _plain("mish"),
    "mul": _arithmetic(1, "multiply"),
    "neg": _negative,
    "pad": _pad,
    "permute": _permute,
    "pow": _power,
    "prelu": _prelu,
    "reciprocal": _plain("power", exponent=-1.0),
    "relu": _plain("relu"),
    "relu6": _plain("clamp", low=0.0, high=6.0),
    "reshape": _reshape,
    "rsqrt": _plain("power", exponent=-0.5),
    "rsub": _rsub,
    "select": _select,
    "selu": lambda e, c: _scaled_elu(e, c, _SELU_ALPHA, after=_SELU_SCALE),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "slice": _slice,
    "softmax": _softmax,
    "softplus": _softplus,
    "split": _split,
    "split_with_sizes": _split,
    "sqrt": _plain("power", exponent=0.5),
    "square": _plain("power", exponent=2.0),
    "squeeze": _reshape,
    "stack": _stack,
    "std": _deviation,
    "sub": _arithmetic(-1, "add"),
    "sum": _sum,
    "tanh": _plain("tanh"),
    "to": _to,
    "transpose": _transpose,
    "unbind": _unbind,
    "unflatten": _reshape,
    "unsqueeze": _reshape,
    "upsample_bilinear2d": _upsample("upsample_bilinear2d"),
    "upsample_nearest2d": _upsample("upsample_nearest2d"),
    "var": _variance,
    "view": _reshape,
}
"""ATen operator -> its reader; in-place forms have the same reader."""
