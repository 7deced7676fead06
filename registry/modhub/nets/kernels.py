"""How each operator of the allow-list runs, on tensors with their batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.nets.attributes import Attributes

Tensors: TypeAlias = Mapping[str, Tensor]
Kernel: TypeAlias = Callable[[Attributes, Sequence[Tensor], Tensors], Tensor]
"""From the attributes of a node, its inputs (batch, …) and its tensors to its output (batch, …)."""


def _conv2d(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return F.conv2d(x[0], t["weight"], t.get("bias"), a["stride"], a["padding"], a["dilation"], a["groups"])


def _channel_conv1d(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With an index, its row i names the channels under the kernel at channel i; the number of channels
    stands for a zero: a channel that was cut, or none beyond the ends."""
    bias = t.get("bias")
    if "index" not in t:
        return F.conv1d(x[0], t["weight"].view(1, 1, -1), bias, padding=a["kernel"] // 2)
    under = F.pad(x[0], (0, 1)).index_select(2, t["index"].flatten())
    out: Tensor = under.reshape(-1, 1, *t["index"].shape) @ t["weight"]
    return out if bias is None else out + bias


def _batch_norm(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return F.batch_norm(x[0], t["mean"], t["var"], t.get("weight"), t.get("bias"), False, 0.0, a["eps"])


def _layer_norm(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
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


def _pointwise(function: Callable[..., Tensor]) -> Kernel:
    """Of each number by itself; the attributes are the function's keyword arguments."""

    def run(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
        out: Tensor = function(x[0], **a)
        return out

    return run


def _scale_shift(x: Tensor, scale: float, shift: float) -> Tensor:
    out = x if scale == 1.0 else x * scale
    return out if shift == 0.0 else out + shift


def _add(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    out = x[0]
    for other in x[1:]:
        out = out + other
    return out


def _attention(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
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


def _adaptive_max_pool2d(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """Window by window: ONNX has no operator for sizes that do not divide the input's."""
    value = x[0]
    for dim, wanted in zip((2, 3), a["size"], strict=True):
        length = int(value.shape[dim])
        bounds = [(i * length // wanted, -(-(i + 1) * length // wanted)) for i in range(wanted)]
        value = torch.cat(
            [value.narrow(dim, start, end - start).amax(dim, keepdim=True) for start, end in bounds], dim
        )
    return value


def _mean(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With a count, channels that were cut are zeros that still count."""
    dims = tuple(dim + 1 for dim in a["dims"])
    out: Tensor = x[0].mean(dims, keepdim=a["keep"])
    if a["count"] is None:
        return out
    share: float = math.prod(x[0].shape[dim] for dim in dims) / a["count"]
    return out * share


def _largest(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    """With a count, channels that were cut are zeros among which the largest is sought."""
    out = x[0].amax(tuple(dim + 1 for dim in a["dims"]), keepdim=a["keep"])
    return out if a["count"] is None else out.clamp(min=0)


def _reshape(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    return x[0].flatten(1) if len(a["shape"]) == 1 else x[0].reshape(x[0].shape[0], *a["shape"])


def _pad(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    pairs = list(zip(a["before"], a["after"], strict=True))
    while len(pairs) > 1 and pairs[0] == (0, 0):
        del pairs[0]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x[0], flat, a["mode"], a["value"] if a["mode"] == "constant" else None)


def _slice(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    index = [slice(None)] * (a["dim"] + 1) + [slice(a["start"], a["stop"], a["step"])]
    out: Tensor = x[0][tuple(index)]
    return out


def _channel_shuffle(a: Attributes, x: Sequence[Tensor], t: Tensors) -> Tensor:
    batch, channels, height, width = x[0].shape
    grouped = x[0].reshape(batch, a["groups"], channels // a["groups"], height, width)
    out: Tensor = grouped.transpose(1, 2).reshape(batch, channels, height, width)
    return out


KERNELS: Mapping[str, Kernel] = {
    "conv2d": _conv2d,
    "linear": lambda a, x, t: F.linear(x[0], t["weight"], t.get("bias")),
    "channel_conv1d": _channel_conv1d,
    "batch_norm": _batch_norm,
    "group_norm": lambda a, x, t: F.group_norm(x[0], a["groups"], t.get("weight"), t.get("bias"), a["eps"]),
    "layer_norm": _layer_norm,
    "prelu": lambda a, x, t: F.prelu(x[0], t["weight"]),
    "relu": _pointwise(F.relu),
    "clamp": _pointwise(lambda x, low, high: F.hardtanh(x, low, high)),
    "leaky_relu": _pointwise(lambda x, slope: F.leaky_relu(x, slope)),
    "elu": _pointwise(F.elu),
    "silu": _pointwise(F.silu),
    "mish": _pointwise(F.mish),
    "tanh": _pointwise(torch.tanh),
    "hardswish": _pointwise(F.hardswish),
    "hardsigmoid": _pointwise(F.hardsigmoid),
    "sigmoid": _pointwise(torch.sigmoid),
    "gelu": _pointwise(F.gelu),
    "softplus": _pointwise(F.softplus),
    "exp": _pointwise(torch.exp),
    "power": _pointwise(torch.pow),
    "scale_shift": _pointwise(_scale_shift),
    "add_constant": lambda a, x, t: x[0] + t["value"],
    "multiply_constant": lambda a, x, t: x[0] * t["value"],
    "position_mask": lambda a, x, t: torch.where(t["value"], x[0], 0.0),
    "add": _add,
    "divide": lambda a, x, t: x[0] / x[1],
    "multiply": lambda a, x, t: x[0] * x[1],
    "maximum": lambda a, x, t: torch.maximum(x[0], x[1]),
    # The same for every image of the batch, which is that of the value read.
    "constant": lambda a, x, t: t["value"].expand(x[0].shape[0], *a["shape"]),
    "matmul": lambda a, x, t: x[0] @ x[1],
    "attention": _attention,
    "concat": lambda a, x, t: torch.cat(list(x), a["dim"] + 1),
    "max_pool2d": lambda a, x, t: F.max_pool2d(
        x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"]
    ),
    "avg_pool2d": lambda a, x, t: F.avg_pool2d(
        x[0], a["kernel"], a["stride"], a["padding"], a["ceil"], a["count_padding"]
    ),
    "adaptive_avg_pool2d": lambda a, x, t: F.adaptive_avg_pool2d(x[0], a["size"]),
    "adaptive_max_pool2d": _adaptive_max_pool2d,
    "upsample_nearest2d": lambda a, x, t: F.interpolate(x[0], size=a["size"], mode="nearest"),
    "upsample_bilinear2d": lambda a, x, t: F.interpolate(
        x[0], size=a["size"], mode="bilinear", align_corners=a["align_corners"]
    ),
    "mean": _mean,
    "largest": _largest,
    "norm": lambda a, x, t: torch.linalg.vector_norm(
        x[0], dim=tuple(dim + 1 for dim in a["dims"]), keepdim=a["keep"]
    ),
    "softmax": lambda a, x, t: x[0].softmax(a["dim"] + 1),
    "reshape": _reshape,
    "permute": lambda a, x, t: x[0].permute(0, *(dim + 1 for dim in a["dims"])),
    "pad": _pad,
    "slice": _slice,
    "select": lambda a, x, t: x[0].index_select(a["dim"] + 1, t["index"]),
    "channel_shuffle": _channel_shuffle,
}
"""Name -> what computes it; each of the names in `modhub.nets.operators.OPERATORS`."""
