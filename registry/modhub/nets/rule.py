"""What a rule of an operator is, and what rules share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modhub.nets.graph import Node
from modhub.nets.operators import Shape
from modhub.nets.traces import Kept, Ledger, Trace

__all__ = [
    "Cutting",
    "Rule",
    "Shrunk",
    "comes_out_of",
    "frozen",
    "resized",
    "rewritten",
    "take_channels",
    "unchanged",
]


@dataclass(frozen=True, slots=True)
class Cutting:
    """What a node is cut by: per input and for the output, which channels are kept and their dimension."""

    node: Node
    tensors: Mapping[str, Tensor]
    shapes: Sequence[Shape]
    kept: Sequence[Kept]
    axes: Sequence[int]
    out_shape: Shape
    out_kept: Kept
    out_axis: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The node after cutting."""

    op: str
    attributes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


TraceRule: TypeAlias = Callable[[Node, Sequence[Shape], Shape, Sequence[Trace], Ledger], Trace]
CutRule: TypeAlias = Callable[[Cutting], Shrunk | None]
"""None: nothing is left to do, the output is the first input."""


@dataclass(frozen=True, slots=True)
class Rule:
    trace: TraceRule
    cut: CutRule


def frozen(node: Node, out: Shape, ins: Sequence[Trace], ledger: Ledger) -> Trace:
    """Where no rule applies: everything that goes in and everything that comes out is kept."""
    for trace in ins:
        ledger.freeze(trace.ids, f"is mixed across channels by '{node.name}' ({node.op})")
    ids = ledger.fresh(out[0], node.name)
    ledger.freeze(ids, comes_out_of(node))
    return Trace.of(ids, 0)


def comes_out_of(node: Node) -> str:
    return f"comes out of '{node.name}' ({node.op}), which mixes channels"


def take_channels(tensor: Tensor, dim: int, kept: Kept) -> Tensor:
    if kept.all():
        return tensor
    return tensor.index_select(dim, torch.from_numpy(np.flatnonzero(kept)))


def unchanged(c: Cutting) -> Shrunk:
    return Shrunk(c.node.op, c.node.attributes, c.tensors)


def rewritten(c: Cutting, tensors: Mapping[str, Tensor] | None = None, **attributes: Any) -> Shrunk:
    changed = {**c.node.attributes, **attributes}
    return Shrunk(c.node.op, changed, c.tensors if tensors is None else tensors)


def resized(shape: Shape, axis: int, kept: Kept) -> Shape:
    return (*shape[:axis], int(kept.sum()), *shape[axis + 1 :])
