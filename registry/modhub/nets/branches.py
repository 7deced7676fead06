"""Branches of residual blocks, which can go as a whole.

In y = x + f(x) the branch f ends in a dense layer. When all channels that this layer reads are gone, f(x) is
a constant, and the block is x plus a number for each channel: its operators need not run at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modhub.nets.graph import Graph, Node

_AFTER = ("batch_norm", "scale_shift", "multiply_constant", "permute")
"""What may follow the last layer: a constant for each channel stays one."""


@dataclass(frozen=True, slots=True)
class Branch:
    """What the node `sum` adds to the value `other`.

    `nodes` compute nothing else. `last` is the dense layer at the end and `tail` what follows it up to the
    sum, in order. `slots` (slots of the branch,) are those of whole groups that live nowhere else and can be
    cut; among them is every channel that `last` reads.
    """

    sum: str
    other: str
    nodes: frozenset[str]
    last: str
    tail: tuple[str, ...]
    slots: NDArray[np.int64]


def is_plain_sum(node: Node) -> bool:
    """Whether the node is x + y, without factors."""
    plain = all(value in (1, 1.0, None) for value in node.attributes.values())
    return node.op == "add" and len(node.inputs) == 2 and plain


def residual_branches(
    graph: Graph, layouts: Mapping[str, NDArray[np.int64]], cuttable: Sequence[slice], slots: int
) -> tuple[Branch, ...]:
    """At most one of every sum, in the order of the nodes.

    `layouts` (channels,) are the slots of every value's channels, of `slots` in all; `cuttable` are the
    groups that may go.
    """
    branches = []
    for node in graph.nodes:
        if not is_plain_sum(node) or node.inputs[0] == node.inputs[1]:
            continue
        for end, other in (node.inputs, node.inputs[::-1]):
            if graph.shapes[other] != graph.shapes[node.name]:
                continue
            branch = _branch(graph, layouts, cuttable, slots, node, end, other)
            if branch is not None:
                branches.append(branch)
                break
    return tuple(branches)


def _branch(
    graph: Graph,
    layouts: Mapping[str, NDArray[np.int64]],
    cuttable: Sequence[slice],
    slots: int,
    node: Node,
    end: str,
    other: str,
) -> Branch | None:
    nodes = _only_for(graph, node, end)
    tail: list[str] = []
    last = end
    while last in nodes and graph.node[last].op in _AFTER:
        tail.insert(0, last)
        last = graph.node[last].inputs[0]
    if last not in nodes or not _is_dense(graph.node[last]):
        return None
    outside = np.zeros(slots, np.bool_)
    for value, layout in layouts.items():
        if value not in nodes or value == last or value in tail:
            outside[layout] = True
    exclusive = np.zeros(slots, np.bool_)
    for group in cuttable:
        exclusive[group] = not outside[group].any()
    if not exclusive[layouts[graph.node[last].inputs[0]]].all():
        return None
    return Branch(node.name, other, nodes, last, tuple(tail), np.flatnonzero(exclusive))


def _only_for(graph: Graph, node: Node, end: str) -> frozenset[str]:
    """The nodes that compute `end`, an input of `node`, and nothing that is read elsewhere."""
    names: set[str] = set()
    if end == graph.output or [reader.name for reader in graph.readers[end]] != [node.name]:
        return frozenset()
    for earlier in reversed(graph.nodes):
        readers = graph.readers[earlier.name]
        used = bool(readers) and all(reader.name in names for reader in readers)
        if earlier.name == end or (used and earlier.name != graph.output):
            names.add(earlier.name)
    return frozenset(names)


def _is_dense(node: Node) -> bool:
    return node.op == "linear" or (node.op == "conv2d" and node.attributes["groups"] == 1)
