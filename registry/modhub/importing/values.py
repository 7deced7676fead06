"""Exported values and the values of a graph: where the batch is.

A graph keeps the batch first and never touches it. An exported program moves it about: attention cuts an
image into windows or heads that it counts as images, and some layers want the tokens before the images.
What such a program calls (windows · batch · heads, tokens, features) is (windows, heads, tokens, features)
in a graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from modhub.nets.operators import Shape


class NoEquivalentError(Exception):
    """An operator on the list is used in a way that is not; its text says how."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph, and how the exported program sees it.

    `shape` leaves the batch out. Exported, the batch is dimension `batch`, merged there with `outer` parts
    before it and `inner` after it; those that are more than 1 are dimensions of `shape` in its place.
    `spread` is the shape to which the program has expanded it, if it has: many operators do that by
    themselves.
    """

    name: str
    shape: Shape
    batch: int = 0
    outer: int = 1
    inner: int = 1
    spread: Shape | None = None

    @property
    def merged(self) -> Shape:
        return tuple(extent for extent in (self.outer, self.inner) if extent > 1)

    @property
    def rank(self) -> int:
        """Exported dimensions, the batch counted."""
        return len(self.shape) + 1 - len(self.merged)

    @property
    def dims(self) -> Shape:
        """The exported extents of one image."""
        shape = self.spread or self.shape
        after = shape[self.batch + len(self.merged) :]
        return (*shape[: self.batch], self.outer * self.inner, *after)

    @property
    def plain(self) -> bool:
        """Whether the batch is first, and nothing but the batch."""
        return self.batch == 0 and not self.merged

    def axis(self, dim: int) -> int:
        """An exported dimension, which may count from the end, as a dimension of `shape`."""
        dim = dim % self.rank
        if dim == self.batch:
            raise NoEquivalentError("across the batch")
        return dim if dim < self.batch else dim - 1 + len(self.merged)


class Emitter(Protocol):
    """Where readers put nodes."""

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor | None] | None = None,
    ) -> Value:
        """Append a node; its value has the batch where the first input has it."""
        ...

    @property
    def image(self) -> Value:
        """The graph's input."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One ATen call. Values of the image are `Value`, weights are tensors. `dims` are the output's exported
    extents for one image, `batch` is the batch's dimension among them."""

    args: list[Any]
    kwargs: Mapping[str, Any]
    dims: Shape
    batch: int

    def get(self, position: int, name: str, default: Any = None) -> Any:
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def value(self) -> Value:
        if not isinstance(self.args[0], Value):
            raise NoEquivalentError("of a constant by the image")
        return self.args[0]

    def on(self, *args: Any, **kwargs: Any) -> Call:
        """The same output of other arguments."""
        return replace(self, args=list(args), kwargs=kwargs)


def reshaped(e: Emitter, value: Value, dims: Sequence[int], batch: int) -> Value:
    """`value` in the exported extents `dims`, with the batch at dimension `batch`."""
    if math.prod(value.shape) != math.prod(dims):
        raise NoEquivalentError("of a value that was spread")
    outer, rest = divmod(math.prod(value.shape[: value.batch]) * value.outer, math.prod(dims[:batch]))
    if rest or not outer or dims[batch] % outer:
        raise NoEquivalentError("across the batch")
    inner = dims[batch] // outer
    merged = (extent for extent in (outer, inner) if extent > 1)
    shape = (*dims[:batch], *merged, *dims[batch + 1 :])
    if not shape:
        raise NoEquivalentError("to a single number per image")
    if shape != value.shape:
        value = e.emit("reshape", [value], {"shape": shape})
    return replace(value, batch=batch, outer=outer, inner=inner)


def permuted(e: Emitter, value: Value, order: Sequence[int]) -> Value:
    """The exported dimensions in another order."""
    first = value.batch
    groups = [
        range(first, first + len(value.merged)) if dim == first else (value.axis(dim),) for dim in order
    ]
    axes = tuple(axis for group in groups for axis in group)
    if axes != tuple(range(len(axes))):
        spread = None if value.spread is None else tuple(value.spread[axis] for axis in axes)
        value = replace(e.emit("permute", [value], {"dims": axes}), spread=spread)
    return replace(value, batch=list(order).index(first))


def aligned(e: Emitter, values: Sequence[Value]) -> list[Value]:
    """Values of equal rank, with the batch in the same place, as broadcasting aligns them."""
    rank = max(value.rank for value in values)
    return [_ranked(e, value, rank, values[0]) for value in values]


def _ranked(e: Emitter, value: Value, rank: int, first: Value) -> Value:
    more = rank - value.rank
    if value.rank - value.batch != first.rank - first.batch or value.merged != first.merged:
        raise NoEquivalentError("across the batch")
    if not more:
        return value
    raised = e.emit("reshape", [value], {"shape": (*[1] * more, *value.shape)})
    return replace(raised, batch=value.batch + more)


def held_as(tensor: Tensor, value: Value, rank: int) -> Tensor:
    """A constant as broadcasting aligns it with `value`, of the graph's rank of a value of that many exported
    dimensions."""
    wide = tensor.reshape(*[1] * (rank - tensor.dim()), *tensor.shape)
    batch = value.batch + rank - value.rank
    *before, count = wide.shape[: batch + 1]
    after = wide.shape[batch + 1 :]
    if count == 1:
        merged = (1,) * len(value.merged)
    elif count == value.outer * value.inner:
        merged = value.merged
    else:
        raise NoEquivalentError("with a constant for each image of the batch")
    return wide.reshape(*before, *merged, *after)


def emitted_constant(e: Emitter, tensor: Tensor, like: Value) -> Value:
    """A constant of the exported rank of `like` as a value: the same for every image."""
    constant = held_as(tensor, like, max(like.rank, tensor.dim())).to(torch.float32)
    value = e.emit("constant", [e.image], {"shape": tuple(constant.shape)}, {"value": constant})
    batch = like.batch + max(0, tensor.dim() - like.rank)
    return replace(value, batch=batch, outer=like.outer, inner=like.inner)
