"""Batch-norm worked into the convolution before it: the same function in fewer operators."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modhub.nets.graph import Graph, Network, Node


def fuse_batch_norm(network: Network) -> Network:
    """Every batch-norm that alone reads a convolution or linear layer disappears into its weight and bias.

    The fused layer takes the batch-norm's name, so values that are left keep theirs; outputs agree to
    rounding. For networks that are about to run, not for trunks that are stored: their digest changes.
    """
    graph = network.graph
    tensors = dict(network.tensors)
    fused: dict[str, Node] = {}
    for node in graph.nodes:
        before = graph.node.get(node.inputs[0])
        if node.op == "batch_norm" and before is not None and _takes(before, graph):
            weight, bias = _fused(network, before, node)
            names = {"weight": f"{node.name}.fused_weight", "bias": f"{node.name}.fused_bias"}
            tensors |= {names["weight"]: weight, names["bias"]: bias}
            fused[before.name] = node
            fused[node.name] = replace(before, name=node.name, tensors=names)
    # The convolution goes, and stands again where its batch-norm stood.
    nodes = [fused.get(node.name, node) for node in graph.nodes if not _gone(node, fused)]
    used = {name for node in nodes for name in node.tensors.values()}
    kept = {name: tensor for name, tensor in tensors.items() if name in used}
    return Network(Graph(graph.input, graph.input_shape, tuple(nodes), graph.output), kept)


def _takes(node: Node, graph: Graph) -> bool:
    alone = len(graph.readers[node.name]) == 1 and node.name != graph.output
    return alone and (node.op == "conv2d" or (node.op == "linear" and len(graph.shapes[node.name]) == 1))


def _gone(node: Node, fused: dict[str, Node]) -> bool:
    return node.name in fused and fused[node.name].op == "batch_norm"


def _fused(network: Network, layer: Node, norm: Node) -> tuple[Tensor, Tensor]:
    tensors, statistics = network.of(layer), network.of(norm)
    # In double precision: small variances make large factors.
    factor = torch.rsqrt(statistics["var"].double() + norm.attributes["eps"])
    if "weight" in statistics:
        factor = factor * statistics["weight"].double()
    weight = tensors["weight"].double() * factor.reshape(-1, *[1] * (tensors["weight"].dim() - 1))
    shift = (
        -statistics["mean"].double()
        if "bias" not in tensors
        else tensors["bias"] - statistics["mean"].double()
    )
    bias = shift * factor + (statistics["bias"].double() if "bias" in statistics else 0.0)
    return weight.float(), bias.float()
