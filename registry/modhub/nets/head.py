"""Where a classifier's trunk ends and its head begins.

The head is the last weighted layer whose outputs are the classes: one row of weights per class. Everything
before it is the trunk, so two heads trained on one frozen base have the same trunk, byte for byte. What
follows the head may only treat every class by itself (SqueezeNet: relu, average over positions); it is kept
as the head's tail. Logits that are a weighted sum of several linear layers (a distilled head beside the
first) are one layer on their features, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modhub.errors import ParentError
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.simplify import rebuilt

__all__ = ["TAIL_STEPS", "Head", "head_logits", "split_head"]

TAIL_STEPS = ("relu", "average", "flatten")
"""What may stand after the head: relu, the average over all positions, and dropping positions of size 1."""


@dataclass(frozen=True, slots=True)
class Head:
    """`weight` (labels, features) and `bias` (labels,) give one score per label; `tail` is applied in order.

    A trunk whose output is (features, height, width) has its head applied at every position (a 1×1
    convolution).
    """

    weight: Tensor
    bias: Tensor
    tail: tuple[str, ...] = ()

    def join(self, trunk: Network, weight: Tensor | None = None, bias: Tensor | None = None) -> Network:
        """`trunk` with a head of these rows: the head's own by default, or `weight` (rows, features of the
        trunk) and `bias` (rows,). Raises `ParentError` when the features do not fit."""
        weight = self.weight if weight is None else weight
        bias = self.bias if bias is None else bias
        shape = trunk.graph.shapes[trunk.graph.output]
        features = trunk.graph.features
        if weight.shape[1] != features or bias.shape != weight.shape[:1]:
            raise ParentError(
                f"A head of weight {list(weight.shape)} and bias {list(bias.shape)} does not fit a trunk "
                f"of {features} features."
            )
        nodes = [*trunk.graph.nodes, _head_node(trunk.graph.output, shape, weight)]
        name, size = "head", shape[1:]
        for number, step in enumerate(self.tail):
            nodes.append(_tail_node(step, f"head.tail{number}", name, weight.shape[0], size))
            name = nodes[-1].name
            size = (1, 1) if step == "average" else () if step == "flatten" else size
        graph = Graph(trunk.graph.input, trunk.graph.input_shape, tuple(nodes), name)
        held = weight[:, :, None, None] if len(shape) == 3 else weight
        return Network(graph, {**trunk.tensors, "head.weight": held.contiguous(), "head.bias": bias})


def head_logits(features: Tensor, weight: Tensor, bias: Tensor, tail: Sequence[str] = ()) -> Tensor:
    """(batch, rows) logits of a head's rows on features (batch, features) or (batch, features, height,
    width)."""
    if features.dim() == 4:
        logits = torch.einsum("bfhw,rf->brhw", features, weight) + bias[:, None, None]
    else:
        logits = features @ weight.T + bias
    for step in tail:
        if step == "relu":
            logits = logits.relu()
        elif step == "average":
            logits = logits.mean((-2, -1), keepdim=True)
        else:
            logits = logits.flatten(1)
    return logits.flatten(1) if logits.dim() == 4 else logits


def split_head(network: Network) -> tuple[Network, Head]:
    """The trunk up to the features, and the head. Raises `ParentError` when there is no such layer."""
    graph = network.graph
    tail: list[str] = []
    value = graph.output
    while value != graph.input:
        node = graph.node[value]
        if node.op in ("linear", "conv2d"):
            return _split_at(network, node, tuple(reversed(tail)))
        if (parts := _summed(network, value)) is not None:
            return _split_sum(network, parts, tuple(reversed(tail)))
        tail.extend(_tail_steps(node, graph))
        value = node.inputs[0]
    raise ParentError(
        "The model has no layer whose outputs are the classes.",
        hint="A parent ends in a linear layer or a 1×1 convolution with one row of weights per class.",
    )


def _split_at(network: Network, node: Node, tail: tuple[str, ...]) -> tuple[Network, Head]:
    graph = network.graph
    a = node.attributes
    if node.op == "conv2d" and dict(a) != _pointwise(a["in_channels"], a["out_channels"]):
        raise ParentError(
            f"The classes come out of '{node.name}', a convolution that is not 1×1; no row of its weights is "
            "a class.",
            hint="Let the model end in a linear layer or a 1×1 convolution.",
        )
    if len(graph.shapes[node.inputs[0]]) == 2 or len(graph.shapes[graph.output]) != 1:
        raise ParentError(
            f"The model's output has the shape {list(graph.shapes[graph.output])} per image; a classifier "
            "gives one logit per class.",
            hint="Let the model return (batch, classes).",
        )
    tensors = network.of(node)
    weight = tensors["weight"].flatten(1)
    bias = tensors.get("bias", torch.zeros(weight.shape[0]))
    trunk = _trunk(graph, node.inputs[0])
    return rebuilt(trunk, network), Head(weight.clone(), bias.clone(), tail)


_Part: TypeAlias = tuple[str, Tensor, Tensor]
"""The features that a linear layer reads, its weight (labels, features) and its bias (labels,)."""


def _summed(network: Network, value: str) -> list[_Part] | None:
    """The linear layers whose weighted sum a value is; None when it is something else."""
    node = network.graph.node.get(value)
    if node is None or len(network.graph.shapes[value]) != 1:
        return None
    tensors = network.of(node)
    if node.op == "linear":
        weight = tensors["weight"]
        return [(node.inputs[0], weight, tensors.get("bias", torch.zeros(weight.shape[0])))]
    if node.op not in ("add", "scale_shift"):
        return None
    parts: list[_Part] = []
    for name in node.inputs:
        inner = _summed(network, name)
        if inner is None or any(len(bias) != network.graph.shapes[value][0] for _, _, bias in inner):
            return None
        parts.extend(inner)
    if node.op == "scale_shift":
        scale, shift = node.attributes["scale"], node.attributes["shift"]
        parts = [(features, scale * weight, scale * bias) for features, weight, bias in parts]
        features, weight, bias = parts[0]
        parts[0] = (features, weight, bias + shift)
    return parts


def _split_sum(network: Network, parts: list[_Part], tail: tuple[str, ...]) -> tuple[Network, Head]:
    weights: dict[str, Tensor] = {}
    for features, weight, _ in parts:
        weights[features] = weights[features] + weight if features in weights else weight
    bias = torch.stack([bias for _, _, bias in parts]).sum(0)
    joined = next(iter(weights))
    graph = network.graph
    if len(weights) > 1:
        joined = "features"
        while joined in graph.shapes:
            joined += "_"
        node = Node(joined, "concat", tuple(weights), {"dim": 0})
        graph = Graph(graph.input, graph.input_shape, (*graph.nodes, node), joined)
    head = Head(torch.cat(list(weights.values()), 1), bias, tail)
    return rebuilt(_trunk(graph, joined), network), head


def _trunk(graph: Graph, features: str) -> Graph:
    wanted, kept = {features}, []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return Graph(graph.input, graph.input_shape, tuple(reversed(kept)), features)


def _tail_steps(node: Node, graph: Graph) -> tuple[str, ...]:
    """In reverse, as they are found walking back."""
    shape = graph.shapes[node.inputs[0]]
    if node.op == "relu":
        return ("relu",)
    if node.op == "adaptive_avg_pool2d" and node.attributes["size"] == (1, 1):
        return ("average",)
    if node.op == "mean" and len(shape) == 3 and node.attributes["dims"] == (1, 2):
        return ("average",) if node.attributes["keep"] else ("flatten", "average")
    if node.op == "reshape" and len(shape) == 3 and shape[1:] == (1, 1):
        return ("flatten",)
    raise ParentError(
        f"The model ends with '{node.name}' ({node.op}) after its last weighted layer, which mixes or "
        "reshapes the classes.",
        hint="Let the model return its logits.",
    )


def _head_node(value: str, shape: tuple[int, ...], weight: Tensor) -> Node:
    tensors = {"weight": "head.weight", "bias": "head.bias"}
    rows, features = weight.shape
    if len(shape) == 1:
        return Node("head", "linear", (value,), {"in_features": features, "out_features": rows}, tensors)
    return Node("head", "conv2d", (value,), _pointwise(features, rows), tensors)


def _pointwise(channels_in: int, channels_out: int) -> dict[str, Any]:
    return {
        "in_channels": channels_in,
        "out_channels": channels_out,
        "kernel": (1, 1),
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
    }


def _tail_node(step: str, name: str, value: str, rows: int, size: tuple[int, ...]) -> Node:
    if step == "relu":
        return Node(name, "relu", (value,))
    if step == "average":
        return Node(name, "adaptive_avg_pool2d", (value,), {"size": (1, 1)})
    if step == "flatten":
        return Node(name, "reshape", (value,), {"shape": (rows,)})
    raise ParentError(f"A head's tail has no step '{step}'; it has {', '.join(TAIL_STEPS)}.")
