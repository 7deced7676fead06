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
    bounds = {"low": -1e30 if low is None else low, "high": 1e30 if high is None else high}
    return e.emit("clamp", [c.value], c.shape, bounds)


def _leaky_relu(e: Emitter, c: Call) -> str:
    return e.emit("leaky_relu", [c.value], c.shape, {"slope": c.get(1, "negative_slope", 0.01)})


def _elu(e: Emitter, c: Call) -> str:
    if c.get(2, "scale", 1) != 1 or c.get(3, "input_scale", 1) != 1:
        raise NoEquivalentError("with a scale")
    return e.emit("elu", [c.value], c.shape, {"alpha": c.get(1, "alpha", 1.0)})


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


def _mean(e: Emitter, c: Call) -> str:
    shape = e.shape(c.value)
    dims = c.get(1, "dim")
    if dims is None:
        raise NoEquivalentError("across the batch")
    dims = tuple(sorted(_dim(dim, shape) for dim in ([dims] if isinstance(dims, int) else dims)))
    return e.emit("mean", [c.value], c.shape, {"dims": dims, "keep": bool(c.get(2, "keepdim", False))})


def _norm(e: Emitter, c: Call) -> str:
    if c.get(1, "ord", 2) != 2 or c.get(2, "dim") is None:
        raise NoEquivalentError("of another order than 2")
    shape = e.shape(c.value)
    dims = c.get(2, "dim")
    where = tuple(sorted(_dim(dim, shape) for dim in ([dims] if isinstance(dims, int) else dims)))
    return e.emit("norm", [c.value], c.shape, {"dims": where, "keep": bool(c.get(3, "keepdim", False))})


def _reshape(e: Emitter, c: Call) -> str:
    if e.shape(c.value) == c.shape:
        return c.value
    if not c.shape:
        raise NoEquivalentError("to a single number per image")
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
    return _padded(e, value, tuple(before), tuple(after), mode, float(filling or 0.0))


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


def _upsample(e: Emitter, c: Call) -> str:
    return e.emit("upsample_nearest2d", [c.value], c.shape, {"size": c.shape[1:]})


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
    "avg_pool2d": _avg_pool,
    "batch_norm": _batch_norm,
    "cat": _concat,
    "channel_shuffle": _shuffle,
    "chunk": _chunk,
    "clamp": _clamp,
    "clamp_min": lambda e, c: _clamp(e, Call([c.args[0], c.args[1], None], {}, c.shape)),
    "clone": _alias,
    "concat": _concat,
    "constant_pad_nd": lambda e, c: _pad_as(e, c, "constant", c.get(2, "value", 0)),
    "contiguous": _alias,
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
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "linalg_vector_norm": _norm,
    "max_pool2d": _max_pool,
    "mean": _mean,
    "mish": _plain("mish"),
    "mul": _arithmetic(1, "multiply"),
    "neg": _negative,
    "pad": _pad,
    "permute": _permute,
    "prelu": _prelu,
    "relu": _plain("relu"),
    "relu6": _plain("clamp", low=0.0, high=6.0),
    "reshape": _reshape,
    "rsub": _rsub,
    "select": _select,
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _reshape,
    "sub": _arithmetic(-1, "add"),
    "tanh": _plain("tanh"),
    "to": _to,
    "transpose": _transpose,
    "unflatten": _reshape,
    "unsqueeze": _reshape,
    "upsample_nearest2d": _upsample,
    "view": _reshape,
}
"""ATen operator -> its reader; in-place forms have the same reader."""
