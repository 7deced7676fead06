"""The allow-list: every operator that a network stored as data may use, each in one place.

A value is a tensor of shape (batch, …); shapes here leave the batch out. An image-like value is (channel,
height, width), a feature vector (feature,). For each operator the table says its attributes with their
ranges, the tensors it needs with their shapes, the shape of its output, its work, and by which rule of
`modhub.nets.rules` channels pass through it. What computes it is in `modhub.nets.kernels`: shapes, sizes and
work of a graph are known without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from modhub.nets.attributes import Attribute, Attributes

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Sequence[Shape]


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
    rule: str
    keeps_zero: bool = False
    scratch: Callable[[Attributes, Shapes], Shape] | None = None
    work: Callable[[Attributes, Shapes, Shape], int] | None = None
    since: int = 1


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


def _shuffle_shape(a: Attributes, shapes: Shapes) -> Shape:
    if _image(shapes[0])[0] % a["groups"]:
        raise ShapeMismatchError(f"shuffles {shapes[0][0]} channels in {a['groups']} groups")
    return shapes[0]


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


def _pointwise(*, keeps_zero: bool, since: int = 1, **attributes: Attribute) -> OperatorSpec:
    """An operator on each number by itself."""
    return OperatorSpec(attributes=attributes, shape=_same, rule="same", keeps_zero=keeps_zero, since=since)


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
        rule="conv2d",
        work=_conv_work,
    ),
    "linear": OperatorSpec(
        attributes={"in_features": _POSITIVE, "out_features": _POSITIVE},
        tensors=_linear_tensors,
        shape=_linear_shape,
        rule="linear",
        work=_linear_work,
    ),
    "channel_conv1d": OperatorSpec(
        attributes={"kernel": _EXTENT},
        tensors=_channel_conv_tensors,
        shape=_channel_conv_shape,
        rule="channel_conv1d",
    ),
    "batch_norm": OperatorSpec(
        attributes={"eps": _EPS},
        tensors=_batch_norm_tensors,
        shape=_same,
        rule="first",
    ),
    "group_norm": OperatorSpec(
        attributes={"groups": _POSITIVE, "eps": _EPS},
        tensors=_group_norm_tensors,
        shape=_group_norm_shape,
        rule="group_norm",
    ),
    "layer_norm": OperatorSpec(
        attributes={"shape": _SHAPE, "count": _POSITIVE, "eps": _EPS},
        tensors=_layer_norm_tensors,
        shape=_layer_norm_shape,
        rule="layer_norm",
    ),
    "prelu": OperatorSpec(
        tensors=lambda a, shapes: {"weight": TensorSpec((shapes[0][0],))},
        shape=_same,
        rule="first",
        keeps_zero=True,
    ),
    "relu": _pointwise(keeps_zero=True),
    "clamp": _pointwise(keeps_zero=False, low=_REAL, high=_REAL),
    "leaky_relu": _pointwise(keeps_zero=True, slope=_REAL),
    "elu": _pointwise(keeps_zero=True, alpha=_REAL),
    "silu": _pointwise(keeps_zero=True),
    "mish": _pointwise(keeps_zero=True),
    "tanh": _pointwise(keeps_zero=True),
    "hardswish": _pointwise(keeps_zero=True),
    "hardsigmoid": _pointwise(keeps_zero=False),
    "sigmoid": _pointwise(keeps_zero=False),
    "gelu": _pointwise(keeps_zero=True, approximate=Attribute(kind="text", choices=("none", "tanh"))),
    "softplus": _pointwise(keeps_zero=False, beta=_REAL, threshold=_REAL),
    "exp": _pointwise(keeps_zero=False, since=2),
    "power": _pointwise(keeps_zero=False, exponent=_REAL),
    "scale_shift": _pointwise(keeps_zero=False, scale=_REAL, shift=_REAL),
    "add_constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_constant_shape,
        rule="aligned",
    ),
    "multiply_constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_constant_shape,
        rule="aligned",
        keeps_zero=True,
    ),
    "position_mask": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=lambda a, shapes: {"value": TensorSpec(a["shape"], dtype="bool")},
        shape=_constant_shape,
        rule="aligned",
        keeps_zero=True,
    ),
    "add": OperatorSpec(inputs=None, shape=_broadcast, rule="add"),
    "divide": OperatorSpec(inputs=2, shape=_broadcast, rule="multiply"),
    "multiply": OperatorSpec(inputs=2, shape=_broadcast, rule="multiply"),
    "maximum": OperatorSpec(inputs=2, shape=_broadcast, rule="add"),
    "constant": OperatorSpec(
        attributes={"shape": _SHAPE},
        tensors=_constant_tensors,
        shape=_stated_shape,
        rule="constant",
        since=2,
    ),
    "matmul": OperatorSpec(inputs=2, shape=_matmul_shape, rule="matmul", work=_matmul_work, since=2),
    "attention": OperatorSpec(
        inputs=None,
        attributes={"scale": _REAL},
        shape=_attention_shape,
        rule="attention",
        scratch=_scores_shape,
        work=_attention_work,
        since=2,
    ),
    "concat": OperatorSpec(inputs=None, attributes={"dim": _DIM}, shape=_concat_shape, rule="concat"),
    "max_pool2d": OperatorSpec(
        attributes={"kernel": _PAIR, "stride": _PAIR, "padding": _PADS, "dilation": _PAIR, "ceil": _FLAG},
        shape=_pool_shape,
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
        rule="first",
        keeps_zero=True,
    ),
    "adaptive_avg_pool2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "adaptive_max_pool2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "upsample_nearest2d": OperatorSpec(
        attributes={"size": _PAIR},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "upsample_bilinear2d": OperatorSpec(
        attributes={"size": _PAIR, "align_corners": _FLAG},
        shape=lambda a, shapes: (_image(shapes[0])[0], *a["size"]),
        rule="first",
        keeps_zero=True,
    ),
    "mean": OperatorSpec(attributes=_OVER_DIMS, shape=_mean_shape, rule="mean", keeps_zero=True),
    "largest": OperatorSpec(attributes=_OVER_DIMS, shape=_mean_shape, rule="mean", keeps_zero=True),
    "norm": OperatorSpec(
        attributes={"dims": Attribute(kind="ints", low=0, high=15), "keep": _FLAG},
        shape=_mean_shape,
        rule="positions",
        keeps_zero=True,
    ),
    "softmax": OperatorSpec(attributes={"dim": _DIM}, shape=_softmax_shape, rule="softmax"),
    "reshape": OperatorSpec(
        attributes={"shape": _SHAPE}, shape=_reshape_shape, rule="reshape", keeps_zero=True
    ),
    "permute": OperatorSpec(
        attributes={"dims": Attribute(kind="ints", low=0, high=15)},
        shape=_permute_shape,
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
        rule="pad",
    ),
    "slice": OperatorSpec(
        attributes={"dim": _DIM, "start": Attribute(kind="int"), "stop": _POSITIVE, "step": _POSITIVE},
        shape=_slice_shape,
        rule="slice",
        keeps_zero=True,
    ),
    "select": OperatorSpec(
        attributes={"dim": _DIM, "count": _POSITIVE},
        tensors=lambda a, shapes: {
            "index": TensorSpec((a["count"],), dtype="int64", below=shapes[0][a["dim"]])
        },
        shape=_select_shape,
        rule="select",
        keeps_zero=True,
    ),
    "channel_shuffle": OperatorSpec(
        attributes={"groups": _POSITIVE},
        shape=_shuffle_shape,
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
