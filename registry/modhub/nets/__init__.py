"""A network as data: trunk and head, channel groups, slicing, running."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhub.nets.architectures import ARCHITECTURES, Architecture
    from modhub.nets.branches import Branch, is_plain_sum
    from modhub.nets.channels import ChannelGroup, ChannelSpace, Mask, channel_space
    from modhub.nets.complexity import OPERATOR_FLOPS, Cost, cost, value_bytes
    from modhub.nets.fusing import fuse_batch_norm
    from modhub.nets.graph import Graph, Network, Node
    from modhub.nets.head import TAIL_STEPS, Head, head_logits, split_head
    from modhub.nets.operators import OPERATORS, OperatorSpec
    from modhub.nets.runner import Runner
    from modhub.nets.slicing import (
        AffineMap,
        Site,
        fold_affine,
        mask_network,
        mask_positions,
        sites,
        slice_network,
        weightless,
        without_constants,
    )

__all__ = [
    "ARCHITECTURES",
    "OPERATORS",
    "OPERATOR_FLOPS",
    "TAIL_STEPS",
    "AffineMap",
    "Architecture",
    "Branch",
    "ChannelGroup",
    "ChannelSpace",
    "Cost",
    "Graph",
    "Head",
    "Mask",
    "Network",
    "Node",
    "OperatorSpec",
    "Runner",
    "Site",
    "channel_space",
    "cost",
    "fold_affine",
    "fuse_batch_norm",
    "head_logits",
    "is_plain_sum",
    "mask_network",
    "mask_positions",
    "sites",
    "slice_network",
    "split_head",
    "value_bytes",
    "weightless",
    "without_constants",
]

_HOMES = {
    "ARCHITECTURES": "architectures",
    "AffineMap": "slicing",
    "Architecture": "architectures",
    "Branch": "branches",
    "ChannelGroup": "channels",
    "ChannelSpace": "channels",
    "Cost": "complexity",
    "Graph": "graph",
    "Head": "head",
    "Mask": "channels",
    "Network": "graph",
    "Node": "graph",
    "OPERATORS": "operators",
    "OPERATOR_FLOPS": "complexity",
    "OperatorSpec": "operators",
    "Runner": "runner",
    "Site": "slicing",
    "TAIL_STEPS": "head",
    "channel_space": "channels",
    "cost": "complexity",
    "fold_affine": "slicing",
    "fuse_batch_norm": "fusing",
    "head_logits": "head",
    "is_plain_sum": "branches",
    "mask_network": "slicing",
    "mask_positions": "slicing",
    "sites": "slicing",
    "slice_network": "slicing",
    "split_head": "head",
    "value_bytes": "complexity",
    "weightless": "slicing",
    "without_constants": "slicing",
}


def __getattr__(name: str) -> Any:
    # Checking a graph needs no torch; most of the others do.
    if name not in _HOMES:
        raise AttributeError(f"module 'modhub.nets' has no attribute '{name}'")
    return getattr(importlib.import_module(f"modhub.nets.{_HOMES[name]}"), name)
