"""A network as data: trunk and head, channel groups, slicing, running."""

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
