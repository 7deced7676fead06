"""The allow-list: every operator that a network stored as data may use, each in one place.

A value is a tensor of shape (batch, …); shapes here leave the batch out. An image-like value is (channel,
height, width), a feature vector (feature,). For each operator the table says its attributes with their
ranges, the tensors it needs with their shapes, the shape of its output, how it runs, and by which rule of
`modhub.nets.rules` channels pass through it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from modhub.nets.attributes import Attribute, Attributes

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    # Shapes, sizes and work of a graph are known without torch, which is imported when an operator runs.
    class _Later:
        def __init__(self, name):
            self.name = name

        def __getattr__(self, attribute):
            return getattr(importlib.import_module(self.name), attribute)

    torch, F = _Later("torch"), _Later("torch.nn.functional")

__all__ = ["OPERATORS", "OperatorSpec", "Shape", "ShapeMismatchError", "TensorSpec", "use_torch"]

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Sequence[Shape]
Tensors: TypeAlias = "Mapping[str, Tensor]"
Run: TypeAlias = "Callable[[Attributes, Sequence[Tensor], Tensors], Tensor]"


def use_torch() -> None:
    """Have torch itself from now on: `torch.compile` sees nothing else, and a look-up less is faster."""
    for name in ("torch", "torch.nn.functional"):
        globals()["F" if "." in name else name] = importlib.import_module(name)


class ShapeMismatchError(Exception):
    """Inputs that do not fit the operator; the reader of the graph adds the place."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a node: its exact shape, and its torch `dtype` by name. Of an index, every number is less
    than `below`."""

    shape: Shape
    optional: bool = False
    dtype: str = "float32"
    below: int = 0


def _no_tensors(attributes: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorSpec:
    """One operator.

    `inputs` counts the values it reads (None: one or more). `rule` names how channels pass. `keeps_zero` says
    that a channel which is zero everywhere comes out zero everywhere. `scratch` is the shape of what running
    it takes for a while beside inputs and output, `work` its multiply-adds. `since` is the first version of
    graphs that has it.
    """

    inputs: int | None = 1
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    tensors: Callable[[Attributes, Shapes], Mapping[str, TensorSpec]] = _no_tensors
    shape: Callable[[Attributes, Shapes], Shape]
    run: Run
    rule: str
    keeps_zero: bool = False
    scratch: Callable[[Attributes, Shapes], Shape] | None = None
    work: Callable[[Attributes, Shapes, Shape], int] | None = None
    since: int = 1


# -- shapes -----------------------------------------------------------------------------------------------


def _same(a: Attributes, shapes: Shapes) -> Shape:
    return shapes[0]


def _image(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeMismatchError(f"reads (channel, height, width), not {list(shape)}")
    return shape


def _conv_shape(a: Attributes, shapes: Shapes) -> Shape:
    channels, height, width = _image(shapes[0])
    if channels != a["in_channels"]:
        raise ShapeMismatchError(f"reads {a['in_channels']} channels, not {channels}")
    if a["in_channels"] % a["groups"] or a["out_channels"] % a["groups"]:
        raise ShapeMismatchError(f"has channels that {a['groups']} groups do not divide")
    size = [
        (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for extent, kernel, stride, padding, dilation in zip(
            (height, width), a["kernel"], a["stride"], a["padding"], a["dilation"], strict=True
        )
    ]
    return (a["out_channels"], *size)


def _conv_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    return {
        "weight": TensorSpec((a["out_channels"], a["in_channels"] // a["groups"], *a["kernel"])),
        "bias": TensorSpec((a["out_channels"],), optional=True),
    }


def _channel_conv_shape(a: Attributes, shapes: Shapes) -> Shape:
    if len(shapes[0]) != 2 or shapes[0][0] != 1:
        raise ShapeMismatchError(f"reads (1, channel), not {list(shapes[0])}")
    if a["kernel"] % 2 == 0:
        raise ShapeMismatchError(f"has a kernel of {a['kernel']}, which has no middle")
    return shapes[0]


def _channel_conv_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    channels = shapes[0][1]
    return {
        "weight": TensorSpec((a["kernel"],)),
        "bias": TensorSpec((1,), optional=True),
        "index": TensorSpec((channels, a["kernel"]), optional=True, dtype="int64", below=channels + 1),
    }


def _pool_shape(a: Attributes, shapes: Shapes) -> Shape:
    channels, *extents = _image(shapes[0])
    size = []
    for axis, extent in enumerate(extents):
        kernel, stride, padding = a["kernel"][axis], a["stride"][axis], a["padding"][axis]
        dilation = a["dilation"][axis] if "dilation" in a else 1
        if 2 * padding > kernel:
            raise ShapeMismatchError("has padding of more than half its kernel")
        span = extent + 2 * padding - dilation * (kernel - 1) - 1
        count = (-(-span // stride) if a["ceil"] else span // stride) + 1
        # The last window may not start in the padding on the right (as in torch).
        if a["ceil"] and (count - 1) * stride >= extent + padding:
            count -= 1
        size.append(count)
    return (channels, *size)


def _linear_shape(a: Attributes, shapes: Shapes) -> Shape:
    if not shapes[0] or shapes[0][-1] != a["in_features"]:
        raise ShapeMismatchError(f"reads {a['in_features']} features, not {list(shapes[0])}")
    return (*shapes[0][:-1], a["out_features"])


def _linear_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    return {
        "weight": TensorSpec((a["out_features"], a["in_features"])),
        "bias": TensorSpec((a["out_features"],), optional=True),
    }


def _batch_norm_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    per_channel = (shapes[0][0],)
    return {
        "mean": TensorSpec(per_channel),
        "var": TensorSpec(per_channel),
        "weight": TensorSpec(per_channel, optional=True),
        "bias": TensorSpec(per_channel, optional=True),
    }


def _group_norm_shape(a: Attributes, shapes: Shapes) -> Shape:
    if shapes[0][0] % a["groups"]:
        raise ShapeMismatchError(f"reads channels that {a['groups']} groups divide, not {shapes[0][0]}")
    return shapes[0]


def _group_norm_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    per_channel = TensorSpec((shapes[0][0],), optional=True)
    return {"weight": per_channel, "bias": per_channel}


def _layer_norm_shape(a: Attributes, shapes: Shapes) -> Shape:
    if shapes[0][len(shapes[0]) - len(a["shape"]) :] != a["shape"]:
        raise ShapeMismatchError(f"normalises {list(a['shape'])}, not {list(shapes[0])}")
    if a["count"] < math.prod(a["shape"]):
        raise ShapeMismatchError("divides by less than it sums")
    return shapes[0]


def _layer_norm_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    spec = TensorSpec(a["shape"], optional=True)
    return {"weight": spec, "bias": spec}


def _broadcast(a: Attributes, shapes: Shapes) -> Shape:
    if len({len(shape) for shape in shapes}) != 1:
        raise ShapeMismatchError(f"reads values of different rank, {_listed(shapes)}")
    out = []
    for extents in zip(*shapes, strict=True):
        sizes = {extent for extent in extents if extent != 1}
        if len(sizes) > 1:
            raise ShapeMismatchError(f"reads values that do not fit each other, {_listed(shapes)}")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def _constant_shape(a: Attributes, shapes: Shapes) -> Shape:
    shape, constant = shapes[0], a["shape"]
    if len(constant) != len(shape) or any(k not in (1, n) for k, n in zip(constant, shape, strict=True)):
        raise ShapeMismatchError(
            f"has a constant of shape {list(constant)} for a value of shape {list(shape)}"
        )
    return shape


def _constant_tensors(a: Attributes, shapes: Shapes) -> Mapping[str, TensorSpec]:
    return {"value": TensorSpec(a["shape"])}


def _concat_shape(a: Attributes, shapes: Shapes) -> Shape:
    dim = a["dim"]
    rests = {(*shape[:dim], 0, *shape[dim + 1 :]) for shape in shapes}
    if len(rests) != 1 or dim >= len(shapes[0]):
        raise ShapeMismatchError(f"reads values that do not fit each other, {_listed(shapes)}")
    total = sum(shape[dim] for shape in shapes)
    return (*shapes[0][:dim], total, *shapes[0][dim + 1 :])


def _slice_shape(a: Attributes, shapes: Shapes) -> Shape:
    dim, shape = a["dim"], shapes[0]
    if dim >= len(shape) or not a["start"] < a["stop"] <= shape[dim]:
        raise ShapeMismatchError(f"cuts {a['start']}:{a['stop']} out of dimension {dim} of {list(shape)}")
    return (*shape[:dim], len(range(a["start"], a["stop"], a["step"])), *shape[dim + 1 :])


def _softmax_shape(a: Attributes, shapes: Shapes) -> Shape:
    if a["dim"] >= len(shapes[0]):
        raise ShapeMismatchError(f"has no dimension {a['dim']} in {list(shapes[0])}")
    return shapes[0]


def _select_shape(a: Attributes, shapes: Shapes) -> Shape:
    dim, shape = a["dim"], shapes[0]
    if dim >= len(shape):
        raise ShapeMismatchError(f"has no dimension {dim} to select from in {list(shape)}")
    return (*shape[:dim], a["count"], *shape[dim + 1 :])


def _pad_shape(a: Attributes, shapes: Shapes) -> Shape:
    shape = shapes[0]
    if len(a["before"]) != len(shape) or len(a["after"]) != len(shape):
        raise ShapeMismatchError(f"pads {len(a['before'])} dimensions of {list(shape)}")
    pads = list(zip(shape, a["before"], a["after"], strict=True))
    if a["mode"] != "constant" and any(before >= n or after >= n for n, before, after in pads):
        raise ShapeMismatchError("mirrors more than there is")
    return tuple(n + before + after for n, before, after in pads)


def _reshape_shape(a: Attributes, shapes: Shapes) -> Shape:
    target: Shape = a["shape"]
    if math.prod(target) != math.prod(shapes[0]):
        raise ShapeMismatchError(f"cannot turn {list(shapes[0])} into {list(target)}")
    return target


def _permute_shape(a: Attributes, shapes: Shapes) -> Shape:
    if sorted(a["dims"]) != list(range(len(shapes[0]))):
        raise ShapeMismatchError(f"orders the dimensions {list(a['dims'])} of {list(shapes[0])}")
    return tuple(shapes[0][dim] for dim in a["dims"])


def _mean_shape(a: Attributes, shapes: Shapes) -> Shape:
    if any(dim >= len(shapes[0]) for dim in a["dims"]) or len(set(a["dims"])) != len(a["dims"]):
        raise ShapeMismatchError(f"averages the dimensions {list(a['dims'])} of {list(shapes[0])}")
    if a["keep"]:
        return tuple(1 if dim in a["dims"] else n for dim, n in enumerate(shapes[0]))
    return tuple(n for dim, n in enumerate(shapes[0]) if dim not in a["dims"])


def _matmul_shape(a: Attributes, shapes: Shapes) -> Shape:
    left, right = shapes
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise ShapeMismatchError(f"multiplies {_listed(shapes)}")
    return (*_broadcast(a, [left[:-2], right[:-2]]), left[-2], right[-1])


def _scores_shape(a: Attributes, shapes: Shapes) -> Shape:
    """What every query says of every key."""
    if len(shapes) not in (3, 4):
        raise ShapeMismatchError(f"reads query, key, value and at most a bias, not {len(shapes)} values")
    query, key = shapes[:2]
    if len(query) < 2 or len(key) < 2 or query[-1] != key[-1]:
        raise ShapeMismatchError(f"compares {_listed(shapes[:2])}")
    scores = (*_broadcast(a, [query[:-2], key[:-2]]), query[-2], key[-2])
    if len(shapes) == 4 and _broadcast(a, [scores, shapes[3]]) != scores:
        raise ShapeMismatchError(f"adds a bias of {list(shapes[3])} to scores of {list(scores)}")
    return scores


def _attention_shape(a: Attributes, shapes: Shapes) -> Shape:
    return _matmul_shape(a, [_scores_shape(a, shapes), shapes[2]])


def _conv_work(a: Attributes, shapes: Shapes, out: Shape) -> int:
    return math.prod(out) * int(a["in_channels"] // a["groups"] * math.prod(a["kernel"]))


def _linear_work(a: Attributes, shapes: Shapes, out: Shape) -> int:
    return math.prod(out) * int(a["in_features"])


def _matmul_work(a: Attributes, shapes: Shapes, out: Shape) -> int:
    return math.prod(out) * shapes[0][-1]


def _attention_work(a: Attributes, shapes: Shapes, out: Shape) -> int:
    scores = _scores_shape(a, shapes)
    return math.prod(scores) * shapes[0][-1] + math.prod(out) * scores[-1]


def _stated_shape(a: Attributes, shapes: Shapes) -> Shape:
    shape: Shape = a["shape"]
    return shape


def _listed(shapes: Shapes) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)


# -- running ----------------------------------------------------------------------------------------------


def _run_conv(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return F.conv2d(x[0], t["weight"], t.get("bias"), a["stride"], a["padding"], a["dilation"], a["groups"])


def _run_batch_norm(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return F.batch_norm(x[0], t["mean"], t["var"], t.get("weight"), t.get("bias"), False, 0.0, a["eps"])


def _run_layer_norm(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """Channels that were cut count as zeros: sums are divided by the full count, so nothing changes for the
    channels that stayed."""
    size = math.prod(a["shape"])
    if a["count"] == size:
        whole: Tensor = F.layer_norm(x[0], a["shape"], t.get("weight"), t.get("bias"), a["eps"])
        return whole
    dims = tuple(range(-len(a["shape"]), 0))
    share = size / a["count"]
    mean = x[0].mean(dims, keepdim=True) * share
    var = (x[0] - mean).square().mean(dims, keepdim=True) * share + mean.square() * (1 - share)
    out: Tensor = (x[0] - mean) * torch.rsqrt(var + a["eps"])
    if "weight" in t:
        out = out * t["weight"]
    return out + t["bias"] if "bias" in t else out


def _run_mean(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With a count, channels that were cut are zeros that still count."""
    dims = tuple(dim + 1 for dim in a["dims"])
    out: Tensor = x[0].mean(dims, keepdim=a["keep"])
    if a["count"] is None:
        return out
    share: float = math.prod(x[0].shape[dim] for dim in dims) / a["count"]
    return out * share


def _run_adaptive_max(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Window by window: ONNX has no operator for sizes that do not divide the input's."""
    for dim, wanted in zip((2, 3), size, strict=True):
        length = int(x.shape[dim])
        bounds = [(i * length // wanted, -(-(i + 1) * length // wanted)) for i in range(wanted)]
        x = torch.cat(
            [x.narrow(dim, start, end - start).amax(dim, keepdim=True) for start, end in bounds], dim
        )
    return x


def _run_largest(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With a count, channels that were cut are zeros among which the largest is sought."""
    out = x[0].amax(tuple(dim + 1 for dim in a["dims"]), keepdim=a["keep"])
    return out if a["count"] is None else out.clamp(min=0)


def _run_channel_conv(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With an index, its row i names the channels under the kernel at channel i; the number of channels
    stands for a zero: a channel that was cut, or none beyond the ends."""
    bias = t.get("bias")
    if "index" not in t:
        return F.conv1d(x[0], t["weight"].view(1, 1, -1), bias, padding=a["kernel"] // 2)
    under = F.pad(x[0], (0, 1)).index_select(2, t["index"].flatten())
    out: Tensor = under.reshape(-1, 1, *t["index"].shape) @ t["weight"]
    return out if bias is None else out + bias


def _run_slice(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    index = [slice(None)] * (a["dim"] + 1) + [slice(a["start"], a["stop"], a["step"])]
    out: Tensor = x[0][tuple(index)]
    return out


def _run_pad(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    pairs = list(zip(a["before"], a["after"], strict=True))
    while len(pairs) > 1 and pairs[0] == (0, 0):
        del pairs[0]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x[0], flat, a["mode"], a["value"] if a["mode"] == "constant" else None)


def _run_reshape(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return x[0].flatten(1) if len(a["shape"]) == 1 else x[0].reshape(x[0].shape[0], *a["shape"])


def _run_shuffle(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    batch, channels, height, width = x[0].shape
    grouped = x[0].reshape(batch, a["groups"], channels // a["groups"], height, width)
    out: Tensor = grouped.transpose(1, 2).reshape(batch, channels, height, width)
    return out


def _shuffle_shape(a: Attributes, shapes: Shapes) -> Shape:
    if _image(shapes[0])[0] % a["groups"]:
        raise ShapeMismatchError(f"shuffles {shapes[0][0]} channels in {a['groups']} groups")
    return shapes[0]


def _run_attention(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """Fused where runtimes have it: of four dimensions. Windows are dimensions more."""
    query, key, value = x[:3]
    if query.dim() == 4:
        return F.scaled_dot_product_attention(
            query, key, value, x[3] if len(x) == 4 else None, scale=a["scale"]
        )
    if len(x) == 3 and query.dim() > 4 and query.shape[1:-2] == key.shape[1:-2] == value.shape[1:-2]:
        merged = [each.flatten(0, -4) for each in x]
        out = F.scaled_dot_product_attention(merged[0], merged[1], merged[2], scale=a["scale"])
        return out.reshape(query.shape[0], *query.shape[1:-1], value.shape[-1])
    scores = (query * a["scale"]) @ key.transpose(-2, -1)
    spelled: Tensor = (scores if len(x) == 3 else scores + x[3]).softmax(-1) @ value
    return spelled


def _elementwise(
    function: Callable[..., Tensor],
    *,
    keeps_zero: bool,
    since: int = 1,
    **attributes: Attribute,
) -> OperatorSpec:
    """An operator on each number by itself; its attributes are the function's keyword arguments."""

    def run(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
        out: Tensor = function(x[0], **a)
        return out

    return OperatorSpec(
        attributes=attributes, shape=_same, run=run, rule="same", keeps_zero=keeps_zero, since=since
    )


def _combined(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    out = x[0]
    for other in x[1:]:
        out = out + other
    return out


_REAL = Attribute(kind="float", low=-1e30, high=1e30)
_EPS = Attribute(kind="float", low=0, high=1e6)
_EXTENT = Attribute(kind="int", low=1, high=4096)
_PAIR = Attribute(kind="ints", length=2, low=1, high=4096)
_PADS = Attribute(kind="ints", length=2, low=0, high=4096)
_POSITIVE = Attribute(kind="int", low=1)
_DIM = Attribute(kind="int", low=0, high=15)
_SHAPE = Attribute(kind="ints", low=1)
_FLAG = Attribute(kind="bool")
_OVER_DIMS = {
    "dims": Attribute(kind="ints", low=0, high=15),
    "keep": _FLAG,
    "count": Attribute(kind="int", low=1, optional=True),
}


def _scaled(x: Tensor, scale: float, shift: float) -> Tensor:
    out = x if scale == 1.0 else x * scale
    return out if shift == 0.0 else out + shift


OPERATORS: Mapping[str, OperatorSpec] = {
    "conv2d": OperatorSpec(
        attributes={
            "in_channels": _POSITIVE,
            "out_channels": _POSITIVE,
            "kernel": _PAIR,
            "stride": _PAIR,
            "padding": _PADS,
            "dilation": _PAIR,
            "groups": _POSITIVE,
        },
        tensors=_conv_tensors,
        shape=_conv_shape,
        run=_run_conv,
        rule="conv2d",
        work=_conv_work,
    ),
    "linear": OperatorSpec(
        attributes={"in_features": _POSITIVE, "out_features": _POSITIVE},
        tensors=_linear_tensors,
        shape=_linear_shape,
        run=lambda a, x, t: F.linear(x[0], t["weight"], t.get("bias")),
        rule="linear",
        work=_linear_work,
    ),
    "channel_conv1d": OperatorSpec(
        attributes={"kernel": _EXTENT},
        tensors=_channel_conv_tensors,
        shape=_channel_conv_shape,
        run=_run_channel_conv,
        rule="channel_conv1d",
    ),
    "batch_norm": OperatorSpec(
        attributes={"eps": _EPS},
        tensors=_batch_norm_tensors,
        shape=_same,
        run=_run_batch_norm,
        rule="first",
    ),
    "group_norm": OperatorSpec(
        attributes={"groups": _POSITIVE, "eps": _EPS},
        tensors=_group_norm_tensors,
        shape=_group_norm_shape,
        run=lambda a, x, t: F.group_norm(x[0], a["groups"], t.get("weight"), t.get("bias"), a["eps"]),
        rule="group_norm",
    ),
    "layer_norm": OperatorSpec(
        attributes={"shape": _SHAPE, "count": _POSITIVE, "eps": _EPS},
        tensors=_layer_norm_tensors,
        shape=_layer_norm_shape,
        run=_run_layer_norm,
        rule="layer_norm",
    ),
    "prelu": OperatorSpec(
        tensors=lambda a, shapes: {"weight": TensorSpec((shapes[0][0],))},
        shape=_same,
        run=lambda a, x, t: F.prelu(x[0], t["weight"]),
        rule="first",
        keeps_zero=True,
    ),
    "relu": _elementwise(lambda x: F.relu(x), keeps_zero=True),
    "clamp": _elementwise(
        lambda x, low, high: F.hardtanh(x, low, high),
        keeps_zero=False,
        low=_REAL,
        high=_REAL,
    ),
    "leaky_relu": _elementwise(
        lambda x, slope: F.leaky_relu(x, slope),
        keeps_zero=True,
        slope=_REAL,
    ),
    "elu": _elementwise(lambda x, **a: F.elu(x, **a), keeps_zero=True, alpha=_REAL),
    "silu": _elementwise(lambda x: F.silu(x), keeps_zero=True),
    "mish": _elementwise(lambda x: F.mish(x), keeps_zero=True),
    "tanh": _elementwise(lambda x: torch.tanh(x), keeps_zero=True),
    "hardswish": _elementwise(lambda x: F.hardswish(x), keeps_zero=True),
    "hardsigmoid": _elementwise(lambda x: F.hardsigmoid(x), keeps_zero=False),
    "sigmoid": _elementwise(lambda x: torch.sigmoid(x), keeps_zero=False),
    "gelu": _elementwise(
        lambda x, **a: F.gelu(x, **a),
        keeps_zero=True,
        approximate=Attribute(kind="text", choices=("none", "tanh")),
    ),
    "softplus": _elementwise(
        lambda x, **a: F.softplus(x, **a), keeps_zero=False, beta=_REAL, threshold=_REAL
    ),
    "exp": _elementwise(lambda x: torch.exp(x), keeps_zero=False, since=2),
    "power": _elementwise(lambda x, **a: torch.pow(x, **a), keeps_zero=False, exponent=_REAL),
    "scale_shift": _elementwise(
        _scaled,
        keeps_zero=False,
        scale=_REAL,
        shift=_REAL,
    ),
    "add_constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_constant_shape,
        run=lambda a, x, t: x[0] + t["value"],
        rule="aligned",
    ),
    "multiply_constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_constant_shape,
        run=lambda a, x, t: x[0] * t["value"],
        rule="aligned",
        keeps_zero=True,
    ),
    "position_mask": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=lambda a, shapes: {"value": TensorSpec(a["shape"], dtype="bool")},
        shape=_constant_shape,
        run=lambda a, x, t: torch.where(t["value"], x[0], 0.0),
        rule="aligned",
        keeps_zero=True,
    ),
    "add": OperatorSpec(inputs=None, shape=_broadcast, run=_combined, rule="add"),
    "divide": OperatorSpec(inputs=2, shape=_broadcast, run=lambda a, x, t: x[0] / x[1], rule="multiply"),
    "multiply": OperatorSpec(inputs=2, shape=_broadcast, run=lambda a, x, t: x[0] * x[1], rule="multiply"),
    "maximum": OperatorSpec(
        inputs=2, shape=_broadcast, run=lambda a, x, t: torch.maximum(x[0], x[1]), rule="add"
    ),
    "constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_stated_shape,
        # The same for every image of the batch, which is that of the value read.
        run=lambda a, x, t: t["value"].expand(x[0].shape[0], *a["shape"]),
        rule="constant",
        since=2,
    ),
    "matmul": OperatorSpec(
        inputs=2,
        shape=_matmul_shape,
        run=lambda a, x, t: x[0] @ x[1],
        rule="matmul",
        work=_matmul_work,
        since=2,
    ),
    "attention": OperatorSpec(
        inputs=None,
        attributes={"scale": _REAL},
        shape=_attention_shape,
        run=_run_attention,
        rule="attention",
        scratch=_scores_shape,
        work=_attention_work,
        since=2,
    ),
    "concat": OperatorSpec(
        inputs=None,
        attributes={"dim": _DIM},
        shape=_concat_shape,
        run=lambda a, x, t: torch.cat(list(x), a["dim"] + 1),
        rule="concat",
    ),
    "max_pool2d": OperatorSpec(
        attributes={"kernel": _PAIR, "stride": _PAIR, "padding": _PADS, "dilation": _PAIR, "ceil": _FLAG},
        shape=_pool_shape,
        run=lambda a, x, t: F.max_pool2d(
            x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"]
        ),
        rule="first",
        keeps_zero=True,
    ),
    "avg_pool2d": OperatorSpec(
        attributes={
            "kernel": _PAIR,
            "stride": _PAIR,
            "padding": _PADS,
            "ceil": _FLAG,
            "count_padding": _FLAG,
        },
        shape=_pool_shape,
        run=lambda a, x, t: F.avg_pool2d(
            x[0], a["kernel"], a["stride"], a["padding"], a["ceil"], a["count_padding"]
        ),
        rule="first",
        keeps_zero=True,
    ),
    "adaptive_avg_pool2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        run=lambda a, x, t: F.adaptive_avg_pool2d(x[0], a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "adaptive_max_pool2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        run=lambda a, x, t: _run_adaptive_max(x[0], a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "upsample_nearest2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        run=lambda a, x, t: F.interpolate(x[0], size=a["size"], mode="nearest"),
        rule="first",
        keeps_zero=True,
    ),
    "upsample_bilinear2d": OperatorSpec(
        attributes={"size": _PAIR, "align_corners": _FLAG},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        run=lambda a, x, t: F.interpolate(
            x[0], size=a["size"], mode="bilinear", align_corners=a["align_corners"]
        ),
        rule="first",
        keeps_zero=True,
    ),
    "mean": OperatorSpec(
        attributes=_OVER_DIMS, shape=_mean_shape, run=_run_mean, rule="mean", keeps_zero=True
    ),
    "largest": OperatorSpec(
        attributes=_OVER_DIMS, shape=_mean_shape, run=_run_largest, rule="mean", keeps_zero=True
    ),
    "norm": OperatorSpec(
        attributes={"dims": Attribute(kind="ints", low=0, high=15), "keep": _FLAG},
        shape=_mean_shape,
        run=lambda a, x, t: torch.linalg.vector_norm(
            x[0], dim=tuple(dim + 1 for dim in a["dims"]), keepdim=a["keep"]
        ),
        rule="positions",
        keeps_zero=True,
    ),
    "softmax": OperatorSpec(
        attributes={"dim": _DIM},
        shape=_softmax_shape,
        run=lambda a, x, t: x[0].softmax(a["dim"] + 1),
        rule="softmax",
    ),
    "reshape": OperatorSpec(
        attributes={"shape": _SHAPE}, shape=_reshape_shape, run=_run_reshape, rule="reshape", keeps_zero=True
    ),
    "permute": OperatorSpec(
        attributes={"dims": Attribute(kind="ints", low=0, high=15)},
        shape=_permute_shape,
        run=lambda a, x, t: x[0].permute(0, *(dim + 1 for dim in a["dims"])),
        rule="permute",
        keeps_zero=True,
    ),
    "pad": OperatorSpec(
        attributes={
            "before": Attribute(kind="ints", low=0, high=1 << 16),
            "after": Attribute(kind="ints", low=0, high=1 << 16),
            "mode": Attribute(kind="text", choices=("constant", "reflect", "replicate")),
            "value": _REAL,
        },
        shape=_pad_shape,
        run=_run_pad,
        rule="pad",
    ),
    "slice": OperatorSpec(
        attributes={"dim": _DIM, "start": Attribute(kind="int"), "stop": _POSITIVE, "step": _POSITIVE},
        shape=_slice_shape,
        run=_run_slice,
        rule="slice",
        keeps_zero=True,
    ),
    "select": OperatorSpec(
        attributes={"dim": _DIM, "count": _POSITIVE},
        tensors=lambda a, shapes: {
            "index": TensorSpec((a["count"],), dtype="int64", below=shapes[0][a["dim"]])
        },
        shape=_select_shape,
        run=lambda a, x, t: x[0].index_select(a["dim"] + 1, t["index"]),
        rule="select",
        keeps_zero=True,
    ),
    "channel_shuffle": OperatorSpec(
        attributes={"groups": _POSITIVE},
        shape=_shuffle_shape,
        run=_run_shuffle,
        rule="channel_shuffle",
        keeps_zero=True,
    ),
}
"""Name -> operator. A graph with any other name is refused."""


def keeps_zero(op: str, attributes: Any) -> bool:
    """Whether a channel of zeros stays zeros, given this node's attributes."""
    if op == "clamp":
        return bool(attributes["low"] <= 0 <= attributes["high"])
    if op == "scale_shift":
        return bool(attributes["shift"] == 0)
    if op == "power":
        return bool(attributes["exponent"] > 0)
    if op == "pad":
        return bool(attributes["value"] == 0 or attributes["mode"] != "constant")
    return OPERATORS[op].keeps_zero
