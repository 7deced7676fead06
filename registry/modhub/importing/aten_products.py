"""ATen operators that multiply two values, or a value and a matrix: attention, matmul, einsum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modhub.importing.aten_moves import whole
from modhub.importing.values import (
    Call,
    Emitter,
    NoEquivalentError,
    Value,
    aligned,
    emitted_constant,
    permuted,
    reshaped,
)

_HUGE = 1e30


def scaled(e: Emitter, value: Value, scale: float, shift: float = 0.0) -> Value:
    if (scale, shift) == (1, 0):
        return value
    return e.emit("scale_shift", [value], {"scale": scale, "shift": shift})


def linear(e: Emitter, value: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """Over the last dimension; `weight` (out, in)."""
    value.axis(-1)
    attributes = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    return e.emit("linear", [value], attributes, {"weight": weight, "bias": bias})


def _linear(e: Emitter, c: Call) -> Value:
    weight, bias = c.args[1], c.get(2, "bias")
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise NoEquivalentError("with a weight that is not a matrix")
    if isinstance(bias, Value):
        raise NoEquivalentError("with a bias that depends on the image")
    return linear(e, c.value, weight, bias)


def _matmul(e: Emitter, c: Call) -> Value:
    left, right = c.args[:2]
    if isinstance(right, Tensor) and right.dim() == 2:
        return linear(e, whole(e, left), right.T.contiguous())
    if isinstance(left, Tensor):
        return product(e, emitted_constant(e, _wide(left, right), right), right)
    if isinstance(right, Tensor):
        return product(e, left, emitted_constant(e, _wide(right, left), left))
    return product(e, left, right)


def _wide(tensor: Tensor, like: Value) -> Tensor:
    if tensor.dim() < 2:
        raise NoEquivalentError("with a vector")
    return tensor.reshape(*[1] * (like.rank - tensor.dim()), *tensor.shape)


def product(e: Emitter, left: Value, right: Value) -> Value:
    """(…, n, k) · (…, k, m), the dimensions before them broadcast."""
    left, right = aligned(e, [_without_spread(e, left), _without_spread(e, right)])
    for value in (left, right):
        value.axis(-1), value.axis(-2)
    return e.emit("matmul", [left, right])


def _without_spread(e: Emitter, value: Value) -> Value:
    """Expanded in the dimensions that are broadcast, a value stays as it is."""
    if value.spread is None or value.spread[-2:] != value.shape[-2:]:
        return whole(e, value)
    return replace(value, spread=None)


def _baddbmm(e: Emitter, c: Call) -> Value:
    base, left, right = c.args[:3]
    beta, alpha = c.get(3, "beta", 1), c.get(4, "alpha", 1)
    out = scaled(e, _matmul(e, c.on(left, right)), alpha)
    if beta == 0:
        return out
    if isinstance(base, Value):
        return e.emit("add", aligned(e, [scaled(e, whole(e, base), beta), out]))
    return e.emit("add", aligned(e, [emitted_constant(e, base * beta, out), out]))


def _addmm(e: Emitter, c: Call) -> Value:
    bias, value, weight = c.args[:3]
    plain = all(isinstance(operand, Tensor) for operand in (bias, weight)) and bias.dim() == 1
    if not plain or c.get(3, "beta", 1) != 1 or c.get(4, "alpha", 1) != 1 or not isinstance(value, Value):
        raise NoEquivalentError("that is no linear layer")
    return linear(e, whole(e, value), weight.T.contiguous(), bias)


def _einsum(e: Emitter, c: Call) -> Value:
    """Of two operands: dimensions of both that stay are broadcast, those that go are summed over."""
    equation, operands = c.args[0].replace(" ", ""), c.args[1]
    terms, _, out = equation.partition("->")
    one, _, two = terms.partition(",")
    lonely = (set(one) ^ set(two)) - set(out)
    if (
        "." in equation
        or not out
        or not two
        or "," in two
        or lonely
        or any(len(set(term)) < len(term) for term in (one, two, out))
    ):
        raise NoEquivalentError("of this form")
    like, term_of_value = next(
        (each, term) for each, term in zip(operands, (one, two), strict=True) if isinstance(each, Value)
    )
    batch = term_of_value[like.batch]
    # A constant, which has no batch, is the same for every image.
    shared = [letter for letter in out if letter == batch or (letter in one and letter in two)]
    summed = [letter for letter in one if letter not in out]
    left, right = ([letter for letter in term if letter not in (*shared, *summed)] for term in (one, two))
    sizes: dict[str, int] = {}
    for term, operand in zip((one, two), operands, strict=True):
        sizes |= dict(zip(term, operand.dims if isinstance(operand, Value) else operand.shape, strict=True))
    sizes[batch] = like.outer * like.inner
    at = shared.index(batch)
    if (
        shared == [batch]
        and (constant := next((each for each in operands if not isinstance(each, Value)), None)) is not None
    ):
        return _einsum_linear(
            e, like, term_of_value, constant, two if term_of_value is one else one, summed, out, sizes
        )
    product_of = _matmul(
        e,
        c.on(
            _arranged(e, operands[0], one, [shared, left, summed], sizes, at),
            _arranged(e, operands[1], two, [shared, summed, right], sizes, at),
        ),
    )
    order = [*shared, *left, *right]
    value = reshaped(e, product_of, [sizes[letter] for letter in order], at)
    return permuted(e, value, [order.index(letter) for letter in out])


def _einsum_linear(
    e: Emitter,
    value: Value,
    term: str,
    weight: Tensor,
    of_weight: str,
    summed: Sequence[str],
    out: str,
    sizes: Mapping[str, int],
) -> Value:
    """Of an image's value and a matrix that is the same for all of its positions."""
    kept = [letter for letter in term if letter not in summed]
    rows = [letter for letter in of_weight if letter not in summed]
    at, width = kept.index(term[value.batch]), math.prod(sizes[letter] for letter in summed)
    value = permuted(e, whole(e, value), [term.index(letter) for letter in (*kept, *summed)])
    value = reshaped(e, value, [*(sizes[letter] for letter in kept), width], at)
    matrix = weight.permute([of_weight.index(letter) for letter in (*rows, *summed)]).reshape(-1, width)
    order = [*kept, *rows]
    value = reshaped(e, linear(e, value, matrix.contiguous()), [sizes[letter] for letter in order], at)
    return permuted(e, value, [order.index(letter) for letter in out])


def _arranged(
    e: Emitter, operand: Any, term: str, parts: list[list[str]], sizes: Mapping[str, int], at: int
) -> Any:
    """An operand as matrices: the letters of the first part by themselves, those of the others as one."""
    shared, *matrix = parts
    flat = [math.prod(sizes[letter] for letter in part) for part in matrix]
    order = [letter for part in parts for letter in part]
    if isinstance(operand, Value):
        value = permuted(e, whole(e, operand), [term.index(letter) for letter in order])
        return reshaped(e, value, [*(sizes[letter] for letter in shared), *flat], at)
    if shared[at] not in term:
        term, operand = shared[at] + term, operand.unsqueeze(0)
    tensor = operand.permute([term.index(letter) for letter in order])
    return tensor.reshape(*tensor.shape[: len(shared)], *flat)


def _attention(e: Emitter, c: Call) -> Value:
    query, key, values = (
        operand if isinstance(operand, Value) else None for operand in (c.args[0], c.args[1], c.args[2])
    )
    like = next((operand for operand in (query, key, values) if operand is not None), None)
    if like is None:
        raise NoEquivalentError("of constants")
    inputs = [
        whole(e, operand)
        if isinstance(operand, Value)
        else whole(e, emitted_constant(e, _wide(operand, like), like))
        for operand in c.args[:3]
    ]
    if c.get(5, "is_causal", False):
        raise NoEquivalentError("that is causal")
    inputs = aligned(e, inputs)
    scale = c.kwargs.get("scale")
    if scale is None:
        scale = 1 / math.sqrt(inputs[0].shape[-1])
    mask = c.get(3, "attn_mask")
    if isinstance(mask, Tensor):
        if mask.dtype is torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -_HUGE)
        inputs.append(emitted_constant(e, _wide(mask.clamp(min=-_HUGE), inputs[0]), inputs[0]))
    elif mask is not None:
        inputs.append(aligned(e, [inputs[0], whole(e, mask)])[1])
    if c.kwargs.get("enable_gqa"):
        raise NoEquivalentError("of grouped queries")
    for value in inputs:
        value.axis(-1), value.axis(-2)
    return e.emit("attention", inputs, {"scale": float(scale)})


PRODUCTS: Mapping[str, Callable[[Emitter, Call], Any]] = {
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "bmm": _matmul,
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "scaled_dot_product_attention": _attention,
}
