"""ONNX operators in torch's terms: one function per operator, with the attributes that it knows.

An attribute outside these is an error that names it, so that none is passed over. The same function runs on
constants once, and on images whenever the network runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.importing.values import NoEquivalentError

_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float64,
    16: torch.float32,
}
"""ONNX's number formats; half the length of float32 is float32 here."""


@dataclass(frozen=True, slots=True)
class OnnxCall:
    """One node at work. `inputs` are tensors, None where one is left out; `numbers` those of integer inputs
    that do not depend on the image, by position; those of the positions `varying` grow with `batch`.

    `of_one` are the inputs' shapes for the one image that the file was exported for; None where the file
    leaves the batch open.
    """

    inputs: Sequence[Tensor | None]
    numbers: Mapping[int, Any]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int
    batch: Any
    of_one: Sequence[tuple[int, ...]] | None = None
    varying: frozenset[int] = frozenset()

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def tensor(self, position: int) -> Tensor:
        value = self.inputs[position] if position < len(self.inputs) else None
        if value is None:
            raise NoEquivalentError(f"without its input {position}")
        if position in self.varying:
            raise NoEquivalentError("by the size of the batch")
        return value

    def optional(self, position: int) -> Tensor | None:
        return self.tensor(position) if self.has(position) else None

    def ints(self, position: int, name: str = "", default: Any = None) -> Any:
        """Integers of an input, which was an attribute `name` once; a list, a plain number of one."""
        if not self.has(position):
            return self.get(name, default)
        if position not in self.numbers:
            raise NoEquivalentError("with numbers that depend on the image")
        return self.numbers[position]

    def number(self, position: int, name: str = "", default: float | None = None) -> float | None:
        """A single number of an input, which was an attribute `name` once."""
        if not self.has(position):
            value: float | None = self.get(name, default)
            return value
        if position not in self.numbers or position in self.varying:
            raise NoEquivalentError("with a number that depends on the images")
        listed = self.numbers[position]
        return float(listed[0] if isinstance(listed, list) else listed)

    def moved(self) -> int | None:
        """The dimension of the first input that counts images, of a file for one image."""
        if self.of_one is None:
            return None
        sizes = zip(self.tensor(0).shape, self.of_one[0], strict=True)
        return next((at for at, (now, one) in enumerate(sizes) if _other(now, one)), None)


def _other(now: Any, one: int) -> bool:
    return isinstance(now, torch.SymInt) or now != one


@dataclass(frozen=True, slots=True)
class OnnxOperator:
    run: Callable[[OnnxCall], Any]
    attributes: frozenset[str] = frozenset()


# -- layers -----------------------------------------------------------------------------------------------


def _window(c: OnnxCall, kernel: Sequence[int], x: Any, filling: float) -> tuple[Any, dict[str, Any]]:
    """Stride, dilation and padding of a convolution or pool; of uneven padding the image is padded first."""
    count = len(kernel)
    stride, dilation = c.get("strides", [1] * count), c.get("dilations", [1] * count)
    pads, auto = c.get("pads", [0] * 2 * count), c.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
            for extent, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
    elif auto not in ("NOTSET", "VALID", ""):
        raise NoEquivalentError(f"with auto_pad '{auto}'")
    before, after = pads[:count], pads[count:]
    if before != after:
        around = [amount for pair in reversed(list(zip(before, after, strict=True))) for amount in pair]
        x, before = F.pad(x, around, value=filling), [0] * count
    return x, {"stride": stride, "padding": before, "dilation": dilation}


def _conv(c: OnnxCall) -> Tensor:
    x, weight = c.tensor(0), c.tensor(1)
    if weight.dim() not in (3, 4) or c.get("kernel_shape", list(weight.shape[2:])) != list(weight.shape[2:]):
        raise NoEquivalentError("that is not two-dimensional")
    x, settings = _window(c, weight.shape[2:], x, 0.0)
    run = F.conv2d if weight.dim() == 4 else F.conv1d
    return run(x, weight, c.optional(2), groups=c.get("group", 1), **settings)


def _conv_transpose(c: OnnxCall) -> Tensor:
    weight = c.tensor(1)
    count = weight.dim() - 2
    pads = c.get("pads", [0] * 2 * count)
    if count != 2 or pads[:count] != pads[count:] or c.get("auto_pad", "NOTSET") != "NOTSET":
        raise NoEquivalentError("with this padding")
    return F.conv_transpose2d(
        c.tensor(0),
        weight,
        c.optional(2),
        c.get("strides", [1] * count),
        pads[:count],
        c.get("output_padding", [0] * count),
        c.get("group", 1),
        c.get("dilations", [1] * count),
    )


def _gemm(c: OnnxCall) -> Tensor:
    left, right = c.tensor(0), c.tensor(1)
    left = left.t() if c.get("transA", 0) else left
    right = right if c.get("transB", 0) else right.t()
    alpha, beta = c.get("alpha", 1.0), c.get("beta", 1.0)
    bias = c.optional(2)
    right = right if alpha == 1 else right * alpha
    if bias is None:
        return F.linear(left, right)
    bias = bias if beta == 1 else bias * beta
    if bias.dim() <= 2 and bias.numel() == right.shape[0]:
        return F.linear(left, right, bias.reshape(-1))
    return F.linear(left, right) + bias


def _batch_norm(c: OnnxCall) -> Tensor:
    # Weights may be standardised so, which have no batch.
    of_batch = bool(c.get("training_mode", 0))
    if (of_batch and c.batch is not None) or c.get("is_test", 1) != 1 or c.get("spatial", 1) != 1:
        raise NoEquivalentError("that normalises by the batch at hand")
    scale, bias, mean, var = (c.tensor(at) for at in range(1, 5))
    if of_batch:
        mean, var = mean.clone(), var.clone()
    return F.batch_norm(c.tensor(0), mean, var, scale, bias, of_batch, 0.0, c.get("epsilon", 1e-5))


def _instance_norm(c: OnnxCall) -> Tensor:
    return F.group_norm(c.tensor(0), c.tensor(0).shape[1], c.tensor(1), c.tensor(2), c.get("epsilon", 1e-5))


def _group_norm(c: OnnxCall) -> Tensor:
    x, groups, scale, bias = c.tensor(0), c.get("num_groups"), c.tensor(1), c.tensor(2)
    if scale.numel() != x.shape[1]:  # Before opset 21: a number for each group.
        size = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(size), bias.repeat_interleave(size)
    return F.group_norm(x, groups, scale, bias, c.get("epsilon", 1e-5))


def _layer_norm(c: OnnxCall) -> Tensor:
    x = c.tensor(0)
    shape = list(x.shape[c.get("axis", -1) % x.dim() :])
    bias = c.optional(2)
    weight = c.tensor(1).expand(shape)
    return F.layer_norm(
        x, shape, weight, None if bias is None else bias.expand(shape), c.get("epsilon", 1e-5)
    )


def _rms_norm(c: OnnxCall) -> Tensor:
    x = c.tensor(0)
    shape = list(x.shape[c.get("axis", -1) % x.dim() :])
    return F.rms_norm(x, shape, c.tensor(1).expand(shape), c.get("epsilon", 1e-5))


def _attention(c: OnnxCall) -> Tensor:
    query, key, value = (c.tensor(at) for at in range(3))
    if query.dim() != 4 or c.has(4) or c.has(5) or c.get("softcap", 0.0) or c.get("is_causal", 0):
        raise NoEquivalentError("of this form")
    if query.shape[1] != key.shape[1]:
        raise NoEquivalentError("of grouped queries")
    return F.scaled_dot_product_attention(query, key, value, c.optional(3), scale=c.get("scale"))


def _max_pool(c: OnnxCall) -> Any:
    kernel = c.get("kernel_shape")
    if len(kernel) != 2 or c.get("storage_order", 0):
        raise NoEquivalentError("that is not two-dimensional")
    x, settings = _window(c, kernel, c.tensor(0), -math.inf)
    return F.max_pool2d(x, kernel, ceil_mode=bool(c.get("ceil_mode", 0)), **settings)


def _avg_pool(c: OnnxCall) -> Tensor:
    kernel, x = c.get("kernel_shape"), c.tensor(0)
    counted = bool(c.get("count_include_pad", 0))
    padded, settings = _window(c, kernel, x, 0.0)
    if len(kernel) != 2 or any(step != 1 for step in settings.pop("dilation")):
        raise NoEquivalentError("that is not two-dimensional, or dilated")
    if padded is not x and not counted:
        raise NoEquivalentError("with uneven padding that does not count")
    return F.avg_pool2d(
        padded, kernel, ceil_mode=bool(c.get("ceil_mode", 0)), count_include_pad=counted, **settings
    )


def _global(pool: Callable[..., Tensor]) -> Callable[[OnnxCall], Tensor]:
    def run(c: OnnxCall) -> Tensor:
        if c.tensor(0).dim() != 4:
            raise NoEquivalentError("of something that is no image")
        return pool(c.tensor(0), 1)

    return run


def _resize(c: OnnxCall) -> Tensor:
    x, mode = c.tensor(0), c.get("mode", "nearest")
    where = c.get("coordinate_transformation_mode", "half_pixel" if c.opset > 10 else "asymmetric")
    scales = c.get("scales")
    position = 2 if c.opset > 10 else 1
    if scales is None and c.has(position) and c.tensor(position).numel():
        scales = c.ints(position)
    sizes = c.ints(3) if c.has(3) else None
    axes = c.get("axes", list(range(4)))
    if x.dim() != 4 or c.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoEquivalentError("of this form")
    wanted: list[Any] = list(x.shape)
    for at, axis in enumerate(axes):
        extent = x.shape[axis]
        size = sizes[at] if sizes is not None else None if scales is None else extent * scales[at]
        if axis % 4 < 2:
            if size is None or (scales is not None and scales[at] != 1):
                raise NoEquivalentError("of channels")
            continue
        if size is None or size != int(size):
            raise NoEquivalentError("by fractions of a pixel")
        wanted[axis] = int(size)
    size, smooth = wanted[2:], bool(c.get("antialias", 0))
    if mode == "nearest" and not smooth:
        rounding = c.get("nearest_mode", "round_prefer_floor" if c.opset > 10 else "floor")
        whole = all(new % old == 0 for new, old in zip(size, x.shape[2:], strict=True))
        if (where == "asymmetric" and rounding == "floor") or (
            # Of whole factors the pixel whose middle is nearest is the one that lies there.
            where == "half_pixel" and rounding.startswith("round") and whole
        ):
            return F.interpolate(x, size)
    if mode in ("linear", "cubic") and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if where == "pytorch_half_pixel" and 1 in size:
            raise NoEquivalentError("to a single pixel")
        if mode == "cubic" and c.get("cubic_coeff_a", -0.75) != (-0.5 if smooth else -0.75):
            raise NoEquivalentError(f"with cubic_coeff_a {c.get('cubic_coeff_a', -0.75):g}")
        # Filters that torch renormalises at the border.
        if c.get("exclude_outside", 0) != int(smooth):
            raise NoEquivalentError("with this exclude_outside")
        return F.interpolate(
            x,
            size,
            mode="bilinear" if mode == "linear" else "bicubic",
            align_corners=where == "align_corners",
            antialias=smooth,
        )
    raise NoEquivalentError(f"by '{mode}' at '{where}'")


# -- activations and arithmetic -----------------------------------------------------------------------------


def _clip(c: OnnxCall) -> Tensor:
    low, high = c.number(1, "min"), c.number(2, "max")
    return c.tensor(0) if low is None and high is None else c.tensor(0).clamp(low, high)


def _softmax(logarithm: bool) -> Callable[[OnnxCall], Tensor]:
    def run(c: OnnxCall) -> Tensor:
        x = c.tensor(0)
        axis = c.get("axis", -1 if c.opset >= 13 else 1) % x.dim()
        flat = c.opset < 13 and any(extent != 1 for extent in x.shape[axis + 1 :])
        shape = x.shape
        if flat:
            # Over all that follows, before opset 13.
            x, axis = x.flatten(axis), axis
        out = x.log_softmax(axis) if logarithm else x.softmax(axis)
        return out.reshape(shape) if flat else out

    return run


def _prelu(c: OnnxCall) -> Tensor:
    x, slope = c.tensor(0), c.tensor(1)
    wide = slope.reshape(*[1] * (x.dim() - slope.dim()), *slope.shape)
    if slope.numel() > 1 and wide.shape[1] != slope.numel():
        raise NoEquivalentError("with a slope for each place")
    return F.prelu(x, slope.reshape(-1))


def _hard_sigmoid(c: OnnxCall) -> Any:
    alpha, beta = c.get("alpha", 0.2), c.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(c.tensor(0))
    return (c.tensor(0) * alpha + beta).clamp(0, 1)


def _elu(c: OnnxCall) -> Tensor:
    return F.elu(c.tensor(0), c.get("alpha", 1.0))


def _selu(c: OnnxCall) -> Any:
    alpha, gamma = c.get("alpha", 1.6732632423543772), c.get("gamma", 1.0507009873554805)
    return F.elu(c.tensor(0), alpha) * gamma


def _divide(c: OnnxCall) -> Tensor:
    left, right = c.tensor(0), c.tensor(1)
    whole = not left.is_floating_point() and not right.is_floating_point()
    return torch.div(left, right, rounding_mode="trunc") if whole else left / right


def _power(c: OnnxCall) -> Tensor:
    return torch.pow(c.tensor(0), _typed(c.tensor(1), c.tensor(0)))


def _typed(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype) if like.is_floating_point() else value


def _remainder(c: OnnxCall) -> Tensor:
    return (torch.fmod if c.get("fmod", 0) else torch.remainder)(c.tensor(0), c.tensor(1))


def _folded(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[[OnnxCall], Tensor]:
    def run(c: OnnxCall) -> Tensor:
        out = c.tensor(0)
        for position in range(1, len(c.inputs)):
            out = join(out, c.tensor(position))
        return out

    return run


def _mean_of(c: OnnxCall) -> Tensor:
    return _folded(torch.add)(c) / len(c.inputs)


def _gelu(c: OnnxCall) -> Tensor:
    return F.gelu(c.tensor(0), approximate=c.get("approximate", "none"))


def _cast(c: OnnxCall) -> Tensor:
    dtype = _DTYPES.get(c.get("to"))
    if dtype is None:
        raise NoEquivalentError("to this number format")
    x = c.tensor(0)
    if dtype.is_floating_point:
        return x.to(dtype) if not x.is_floating_point() else x
    if x.is_floating_point() and c.batch is not None and 0 not in c.numbers:
        raise NoEquivalentError("of the image to whole numbers")
    return x.to(torch.bool if dtype is torch.bool else torch.int64)


def _one(run: Callable[[Tensor], Tensor]) -> Callable[[OnnxCall], Tensor]:
    return lambda c: run(c.tensor(0))


def _two(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[[OnnxCall], Tensor]:
    return lambda c: run(c.tensor(0), c.tensor(1))


# -- over dimensions --------------------------------------------------------------------------------------


def _reduce(run: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[[OnnxCall], Tensor]:
    def reduced(c: OnnxCall) -> Tensor:
        x, axes = c.tensor(0), c.ints(1, "axes")
        if not axes:
            if c.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.dim()))
        return run(x, [axis % x.dim() for axis in axes], bool(c.get("keepdims", 1)))

    return reduced


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _normalised(c: OnnxCall) -> Any:
    x, order = c.tensor(0), c.get("p", 2)
    if order != 2:
        raise NoEquivalentError("of another order than 2")
    return x / torch.linalg.vector_norm(x, dim=c.get("axis", -1), keepdim=True)


# -- moves ------------------------------------------------------------------------------------------------


def _reshape(c: OnnxCall) -> Tensor:
    x, dims = c.tensor(0), list(c.ints(1, "shape"))
    at = c.moved()
    one = x.shape if at is None or c.of_one is None else c.of_one[0]
    if not c.get("allowzero", 0):
        dims = [one[place] if _is(extent, 0) else extent for place, extent in enumerate(dims)]
    if at is None:
        return x.reshape(dims)
    # Exported for one image: where it is in the new shape, so that there may be more of them.
    if -1 in dims:
        rest = math.prod(extent for extent in dims if extent != -1)
        dims[dims.index(-1)] = math.prod(one) // rest
    before = math.prod(one[:at])
    place = next((k for k in range(len(dims)) if math.prod(dims[:k]) == before), None)
    if place is None:
        raise NoEquivalentError("across the batch, of which the file has one image")
    return x.reshape([*dims[:place], dims[place] * c.batch, *dims[place + 1 :]])


def _is(value: Any, number: int) -> bool:
    return not isinstance(value, torch.SymInt) and value == number


def _flatten(c: OnnxCall) -> Tensor:
    x = c.tensor(0)
    axis = c.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 0:
        raise NoEquivalentError("of the whole batch")
    x = x.flatten(0, axis - 1)
    return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)


def _transpose(c: OnnxCall) -> Tensor:
    x = c.tensor(0)
    return x.permute(c.get("perm", list(reversed(range(x.dim())))))


def _squeeze(c: OnnxCall) -> Tensor:
    x, axes = c.tensor(0), c.ints(1, "axes")
    if axes is None:
        at = c.moved()
        axes = [dim for dim, extent in enumerate(x.shape) if _is(extent, 1) and dim != at]
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


def _unsqueeze(c: OnnxCall) -> Tensor:
    x, axes = c.tensor(0), c.ints(1, "axes")
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(c: OnnxCall) -> Tensor:
    parts = [c.tensor(at) for at in range(len(c.inputs))]
    axis = c.get("axis", 1) % parts[0].dim()
    if c.of_one is not None:
        for part, one in zip(parts, c.of_one, strict=True):
            dim = next(
                (at for at, pair in enumerate(zip(part.shape, one, strict=True)) if _other(*pair)), None
            )
            if dim is not None and dim != axis:
                # A class token of the one image stands for those of all.
                parts = [
                    part.expand(*part.shape[:dim], c.batch, *part.shape[dim + 1 :])
                    if _is(part.shape[dim], 1)
                    else part
                    for part in parts
                ]
                break
    return torch.cat(parts, axis)


def _split(c: OnnxCall) -> list[Tensor]:
    x, axis = c.tensor(0), c.get("axis", 0)
    sizes = c.ints(1, "split")
    if sizes is None:
        size = -(-x.shape[axis] // c.get("num_outputs", c.outputs))
        return list(torch.split(x, size, axis))
    return list(torch.split(x, list(sizes), axis))


def _slice(c: OnnxCall) -> Tensor:
    x, starts, ends = c.tensor(0), c.ints(1, "starts"), c.ints(2, "ends")
    axes = c.ints(3, "axes") or list(range(len(starts)))
    steps = c.ints(4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % x.dim()
        extent = x.shape[axis]
        if isinstance(extent, torch.SymInt):
            if _is(start, 0) and step == 1 and (not isinstance(end, int) or end >= 1 << 31):
                continue
            raise NoEquivalentError("of the batch")
        places = range(extent)[start:end:step]
        if step < 0:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
        else:
            x = x[(*[slice(None)] * axis, slice(places.start, max(places.stop, places.start), step))]
    return x


def _gather(c: OnnxCall) -> Tensor:
    x, axis = c.tensor(0), c.get("axis", 0) % c.tensor(0).dim()
    if 1 not in c.numbers:
        raise NoEquivalentError("by an index that depends on the image")
    shape, extent = tuple(c.tensor(1).shape), x.shape[axis]
    listed = c.numbers[1]
    flat = [listed] if not shape else list(_flat(listed))
    flat = [int(index) + extent if index < 0 else int(index) for index in flat]
    if not shape:
        return x.select(axis, flat[0])
    out = x.index_select(axis, torch.tensor(flat, dtype=torch.int64, device=x.device))
    return out if len(shape) == 1 else out.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])


def _gather_nd(c: OnnxCall) -> Tensor:
    """Along one dimension: what indexing by a list is exported as."""
    axis, shape = c.get("batch_dims", 0), tuple(c.tensor(1).shape)
    if 1 not in c.numbers or axis or len(shape) != 2 or shape[1] != 1:
        raise NoEquivalentError("along several dimensions, or by an index that depends on the image")
    extent = c.tensor(0).shape[0]
    flat = [int(index) + extent if index < 0 else int(index) for index in _flat(c.numbers[1])]
    return c.tensor(0).index_select(0, torch.tensor(flat, dtype=torch.int64, device=c.tensor(0).device))


def _flat(value: Any) -> list[Any]:
    return [item for part in value for item in _flat(part)] if isinstance(value, list) else [value]


def _expand(c: OnnxCall) -> Tensor:
    x, dims = c.tensor(0), list(c.ints(1))
    if len(dims) < x.dim():
        dims = [*[1] * (x.dim() - len(dims)), *dims]
    lead = len(dims) - x.dim()
    return x.expand([n if at < lead or _is(x.shape[at - lead], 1) else -1 for at, n in enumerate(dims)])


def _tile(c: OnnxCall) -> Tensor:
    return c.tensor(0).repeat(list(c.ints(1)))


def _pad(c: OnnxCall) -> Tensor:
    x, pads = c.tensor(0), c.ints(1, "pads")
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(c.get("mode", "constant"))
    value = c.number(2, "value", 0.0)
    axes = c.ints(3) or list(range(len(pads) // 2))
    if mode is None:
        raise NoEquivalentError(f"with mode '{c.get('mode')}'")
    around = [0] * 2 * x.dim()
    for at, axis in enumerate(axes):
        last = x.dim() - 1 - axis % x.dim()
        around[2 * last : 2 * last + 2] = pads[at], pads[at + len(axes)]
    while around and around[-2:] == [0, 0]:
        around = around[:-2]
    if not around:
        return x
    return F.pad(x, around, mode, value if mode == "constant" else None)


def _range(c: OnnxCall) -> Tensor:
    bounds = [c.numbers[at] for at in range(3)]
    if (bounds[1] - bounds[0]) / bounds[2] > 1 << 24:
        raise NoEquivalentError("of this length")
    return torch.arange(*bounds)


def _depth_to_space(c: OnnxCall) -> Tensor:
    x, block = c.tensor(0), c.get("blocksize")
    if c.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    _, channels, height, width = x.shape
    kept = channels // block**2
    x = x.reshape(-1, block, block, kept, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(-1, kept, height * block, width * block)


def _space_to_depth(c: OnnxCall) -> Tensor:
    x, block = c.tensor(0), c.get("blocksize")
    _, channels, height, width = x.shape
    x = x.reshape(-1, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(-1, channels * block**2, height // block, width // block)


def _filled(c: OnnxCall) -> Tensor:
    value = c.get("value")
    return (torch.zeros(()) if value is None else value.reshape(-1)[0]).expand(c.ints(0))


def _constant(c: OnnxCall) -> Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for key in (name, f"{name}s"):
            if key in c.attributes:
                return torch.tensor(c.attributes[key], dtype=dtype)
    value: Tensor = c.attributes["value"]
    return value


def _scatter_nd(c: OnnxCall) -> Tensor:
    if c.get("reduction", "none") != "none":
        raise NoEquivalentError("with a reduction")
    index = c.tensor(1)
    return c.tensor(0).index_put(tuple(index.movedim(-1, 0)), c.tensor(2))


def _triangle(c: OnnxCall) -> Tensor:
    diagonal = int(c.number(1, default=0) or 0)
    return (torch.triu if c.get("upper", 1) else torch.tril)(c.tensor(0), diagonal)


def _dropout(c: OnnxCall) -> Tensor:
    if c.outputs > 1:
        raise NoEquivalentError("of which the mask is used")
    return c.tensor(0)


def _where(c: OnnxCall) -> Tensor:
    return torch.where(c.tensor(0), c.tensor(1), c.tensor(2))


def _op(run: Callable[[OnnxCall], Any], *attributes: str) -> OnnxOperator:
    return OnnxOperator(run, frozenset(attributes))


_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
_REDUCE = ("axes", "keepdims", "noop_with_empty_axes")

OPERATORS: Mapping[str, OnnxOperator] = {
    "Abs": _op(_one(torch.abs)),
    "Add": _op(_two(torch.add)),
    "And": _op(_two(torch.logical_and)),
    "Attention": _op(_attention, "scale", "is_causal", "softcap", "q_num_heads", "kv_num_heads"),
    "AveragePool": _op(_avg_pool, *_WINDOW, "ceil_mode", "count_include_pad"),
    "BatchNormalization": _op(_batch_norm, "epsilon", "momentum", "training_mode", "is_test", "spatial"),
    "Cast": _op(_cast, "to", "saturate"),
    "Ceil": _op(_one(torch.ceil)),
    "Celu": _op(lambda c: F.celu(c.tensor(0), c.get("alpha", 1.0)), "alpha"),
    "Clip": _op(_clip, "min", "max"),
    "Concat": _op(_concat, "axis"),
    "Constant": _op(_constant, "value", "value_float", "value_floats", "value_int", "value_ints"),
    "ConstantOfShape": _op(_filled, "value"),
    "Conv": _op(_conv, *_WINDOW, "group"),
    "ConvTranspose": _op(_conv_transpose, *_WINDOW, "group", "output_padding"),
    "DepthToSpace": _op(_depth_to_space, "blocksize", "mode"),
    "Div": _op(_divide),
    "Dropout": _op(_dropout, "ratio", "seed", "is_test"),
    "Einsum": _op(
        lambda c: torch.einsum(c.get("equation"), *map(c.tensor, range(len(c.inputs)))), "equation"
    ),
    "Elu": _op(_elu, "alpha"),
    "Equal": _op(_two(torch.eq)),
    "Exp": _op(_one(torch.exp)),
    "Expand": _op(_expand),
    "Flatten": _op(_flatten, "axis"),
    "Floor": _op(_one(torch.floor)),
    "Gather": _op(_gather, "axis"),
    "GatherND": _op(_gather_nd, "batch_dims"),
    "Gelu": _op(_gelu, "approximate"),
    "Gemm": _op(_gemm, "alpha", "beta", "transA", "transB"),
    "GlobalAveragePool": _op(_global(F.adaptive_avg_pool2d)),
    "GlobalMaxPool": _op(_global(F.adaptive_max_pool2d)),
    "Greater": _op(_two(torch.gt)),
    "GreaterOrEqual": _op(_two(torch.ge)),
    "GroupNormalization": _op(_group_norm, "epsilon", "num_groups", "stash_type"),
    "HardSigmoid": _op(_hard_sigmoid, "alpha", "beta"),
    "HardSwish": _op(_one(F.hardswish)),
    "Identity": _op(_one(lambda x: x)),
    "InstanceNormalization": _op(_instance_norm, "epsilon"),
    "LayerNormalization": _op(_layer_norm, "axis", "epsilon", "stash_type"),
    "LeakyRelu": _op(lambda c: F.leaky_relu(c.tensor(0), c.get("alpha", 0.01)), "alpha"),
    "Less": _op(_two(torch.lt)),
    "LessOrEqual": _op(_two(torch.le)),
    "LogSoftmax": _op(_softmax(True), "axis"),
    "LpNormalization": _op(_normalised, "axis", "p"),
    "MatMul": _op(_two(torch.matmul)),
    "Max": _op(_folded(torch.maximum)),
    "MaxPool": _op(_max_pool, *_WINDOW, "ceil_mode", "storage_order"),
    "Mean": _op(_mean_of),
    "Min": _op(_folded(torch.minimum)),
    "Mish": _op(_one(F.mish)),
    "Mod": _op(_remainder, "fmod"),
    "Mul": _op(_two(torch.mul)),
    "Neg": _op(_one(torch.neg)),
    "Not": _op(_one(torch.logical_not)),
    "Or": _op(_two(torch.logical_or)),
    "PRelu": _op(_prelu),
    "Pad": _op(_pad, "mode", "pads", "value"),
    "Pow": _op(_power),
    "RMSNormalization": _op(_rms_norm, "axis", "epsilon", "stash_type"),
    "Range": _op(_range),
    "Reciprocal": _op(_one(torch.reciprocal)),
    "ReduceL2": _op(_reduce(lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keep)), *_REDUCE),
    "ReduceMax": _op(_reduce(lambda x, dims, keep: x.amax(dims, keep)), *_REDUCE),
    "ReduceMean": _op(_reduce(lambda x, dims, keep: x.mean(dims, keep)), *_REDUCE),
    "ReduceMin": _op(_reduce(lambda x, dims, keep: x.amin(dims, keep)), *_REDUCE),
    "ReduceProd": _op(_reduce(_product), *_REDUCE),
    "ReduceSum": _op(_reduce(lambda x, dims, keep: x.sum(dims, keep)), *_REDUCE),
    "Relu": _op(_one(torch.relu)),
    "Reshape": _op(_reshape, "allowzero", "shape"),
    "Resize": _op(
        _resize,
        *("antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside"),
        *("extrapolation_value", "keep_aspect_ratio_policy", "mode", "nearest_mode"),
    ),
    "Round": _op(_one(torch.round)),
    "ScatterND": _op(_scatter_nd, "reduction"),
    "Selu": _op(_selu, "alpha", "gamma"),
    "Shape": _op(
        lambda c: torch.tensor(list(c.tensor(0).shape)[c.get("start", 0) : c.get("end")]), "start", "end"
    ),
    "Sigmoid": _op(_one(torch.sigmoid)),
    "Size": _op(lambda c: torch.tensor(c.tensor(0).numel())),
    "Slice": _op(_slice, "starts", "ends", "axes"),
    "Softmax": _op(_softmax(False), "axis"),
    "Softplus": _op(_one(F.softplus)),
    "Softsign": _op(_one(lambda x: x / (1 + x.abs()))),
    "SpaceToDepth": _op(_space_to_depth, "blocksize"),
    "Split": _op(_split, "axis", "split", "num_outputs"),
    "Sqrt": _op(_one(torch.sqrt)),
    "Squeeze": _op(_squeeze, "axes"),
    "Sub": _op(_two(torch.sub)),
    "Sum": _op(_folded(torch.add)),
    "Swish": _op(lambda c: c.tensor(0) * torch.sigmoid(c.tensor(0) * c.get("alpha", 1.0)), "alpha"),
    "Tanh": _op(_one(torch.tanh)),
    "Tile": _op(_tile),
    "Transpose": _op(_transpose, "perm"),
    "Trilu": _op(_triangle, "upper"),
    "Unsqueeze": _op(_unsqueeze, "axes"),
    "Upsample": _op(_resize, "mode", "scales"),
    "Where": _op(_where),
}
"""ONNX operator -> how it runs; the attributes that it knows."""
