"""What a network costs to run and to store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from modhub.nets.graph import Graph, Network
from modhub.nets.operators import OPERATORS

OPERATOR_FLOPS = 1_000_000
"""Multiply-adds that two cores do while PyTorch calls one operator, about 12 microseconds: a ResNet of thin
layers and half its channels, and one of a third fewer blocks, take as long as this says."""


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs here are multiply-adds of convolutions, linear layers and products of values (attention) for one
    image, as in He et al. 2015.

    `parameters` counts what was trained: weights, biases, batch-norm's scale and shift (its statistics not),
    and constant factors such as layer scale. `operators` counts nodes that take time, which a batch-norm does
    not once it is fused into the layer before it.
    """

    flops: int
    parameters: int
    operators: int
    per_node: Mapping[str, int]

    @property
    def time(self) -> int:
        """What a pass of one image takes, in multiply-adds, of which an operator costs some by itself."""
        return self.flops + self.operators * OPERATOR_FLOPS


def cost(network: Network | Graph) -> Cost:
    """The cost of a network, or of a graph alone (its tensors' shapes follow from its attributes)."""
    graph = network.graph if isinstance(network, Network) else network
    per_node = {}
    for node in graph.nodes:
        if (work := OPERATORS[node.op].work) is not None:
            read = [graph.shapes[name] for name in node.inputs]
            per_node[node.name] = work(node.attributes, read, graph.shapes[node.name])
    sizes: dict[str, int] = {}
    for node in graph.nodes:
        for role, spec in graph.tensor_specs(node).items():
            trained = role in ("weight", "bias") or node.op == "multiply_constant"
            if trained and role in node.tensors:
                sizes[node.tensors[role]] = math.prod(spec.shape)
    operators = sum(node.op != "batch_norm" for node in graph.nodes)
    return Cost(sum(per_node.values()), sum(sizes.values()), operators, per_node)


def value_bytes(graph: Graph) -> int:
    """Bytes that all values of one image take together, as they do while gradients are computed."""
    return 4 * sum(math.prod(shape) for shape in graph.shapes.values())
