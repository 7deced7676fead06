"""Where a classifier's trunk ends and its head begins.

The head is the last weighted layer whose outputs are the classes: one row of weights per class. Everything
before it is the trunk, so two heads trained on one frozen base have the same trunk, byte for byte. What is
affine after it (a temperature, class priors, a batch norm) or joins several such layers (the mean of two
heads, classes side by side) is folded into its weights; heads on different features (a distilled one beside
the first) are one head on all of them. What else follows may only treat every class by itself (SqueezeNet:
relu, average over positions); it is kept as the head's tail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modhub.errors import ParentError
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.simplify import rebuilt

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
    try:
        features, head = _folded(network, graph.output)
    except ParentError:
        if (parts := _summed(network, graph.output)) is None:
            raise
        return _split_sum(network, parts)
    if len(graph.shapes[graph.output]) != 1:
        raise ParentError(
            f"The model's output has the shape {list(graph.shapes[graph.output])} per image; a classifier "
            "gives one logit per class.",
            hint="Let the model return (batch, classes).",
        )
    return rebuilt(_trunk(graph, features), network), head


def _folded(network: Network, value: str) -> tuple[str, Head]:
    """The features that `value` is affine in, up to a tail, and how."""
    graph = network.graph
    if value == graph.input:
        raise ParentError(
            "The model has no layer whose outputs are the classes.",
            hint="A parent ends in a linear layer or a 1×1 convolution with one row of weights per class.",
        )
    node = graph.node[value]
    if node.op in ("linear", "conv2d"):
        return node.inputs[0], _weighted(network, node)
    if node.op in ("add", "concat"):
        return _joined(network, node)
    if node.op == "mean" and (heads := _stacked(graph, node)):
        features, head = _common(network, node, heads)
        return features, Head(head.weight / len(heads), head.bias / len(heads))
    features, head = _folded(network, node.inputs[0])
    if node.op == "select" and node.attributes["dim"] == 0:
        rows = network.of(node)["index"]
        return features, Head(head.weight[rows], head.bias[rows], head.tail)
    if (line := _affine(network, node, len(head.bias))) is not None:
        scale, shift = line
        if "relu" not in head.tail or (bool((scale >= 0).all()) and not bool(shift.any())):
            return features, Head(head.weight * scale[:, None], head.bias * scale + shift, head.tail)
    return features, Head(head.weight, head.bias, head.tail + _tail_steps(node, graph))


def _weighted(network: Network, node: Node) -> Head:
    graph, a = network.graph, node.attributes
    if node.op == "conv2d" and dict(a) != _pointwise(a["in_channels"], a["out_channels"]):
        raise ParentError(
            f"The classes come out of '{node.name}', a convolution that is not 1×1; no row of its weights is "
            "a class.",
            hint="Let the model end in a linear layer or a 1×1 convolution.",
        )
    if len(graph.shapes[node.inputs[0]]) == 2:
        raise _mixed(node)
    tensors = network.of(node)
    weight = tensors["weight"].flatten(1)
    return Head(weight.clone(), tensors.get("bias", torch.zeros(weight.shape[0])).clone())


def _affine(network: Network, node: Node, rows: int) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (rows,) of an operator that is affine in each of the head's rows; None for another."""
    ones, zeros, tensors = torch.ones(rows), torch.zeros(rows), network.of(node)
    if node.op == "scale_shift":
        return ones * node.attributes["scale"], zeros + node.attributes["shift"]
    if node.op == "batch_norm":
        scale = tensors.get("weight", ones) / (tensors["var"] + node.attributes["eps"]).sqrt()
        return scale, tensors.get("bias", zeros) - tensors["mean"] * scale
    if node.op in ("add_constant", "multiply_constant"):
        constant = tensors["value"]
        rank = len(network.graph.shapes[node.name])
        if constant.numel() not in (1, rows) or (
            constant.numel() > 1 and constant.shape != (rows, *[1] * (rank - 1))
        ):
            return None
        values = constant.flatten().expand(rows)
        return (ones, values) if node.op == "add_constant" else (values, zeros)
    return None


def _stacked(graph: Graph, node: Node) -> list[str]:
    """The (rows,) values whose mean `node` is, where it averages some that were stacked."""
    stack = graph.node.get(node.inputs[0])
    if (
        stack is None
        or stack.op != "concat"
        or node.attributes["dims"] != (0,)
        or stack.attributes["dim"] != 0
    ):
        return []
    parts = [graph.node.get(name) for name in stack.inputs]
    rows = graph.shapes[stack.name][1:]
    if any(part is None or part.op != "reshape" or graph.shapes[part.name] != (1, *rows) for part in parts):
        return []
    return [part.inputs[0] for part in parts if part is not None]


def _joined(network: Network, node: Node) -> tuple[str, Head]:
    """Heads added, or with their classes side by side."""
    if node.op == "add":
        return _common(network, node, node.inputs)
    features, heads = _sharing(network, node, node.inputs)
    if node.attributes["dim"] != 0 or len({head.tail for head in heads}) > 1:
        raise _mixed(node)
    weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
    return features, Head(weight, bias, heads[0].tail)


def _common(network: Network, node: Node, values: Sequence[str]) -> tuple[str, Head]:
    """The sum of heads on the same features."""
    features, heads = _sharing(network, node, values)
    if len({(head.weight.shape, head.tail) for head in heads}) > 1 or "relu" in heads[0].tail:
        raise _mixed(node)
    weight = torch.stack([head.weight for head in heads]).sum(0)
    return features, Head(weight, torch.stack([head.bias for head in heads]).sum(0), heads[0].tail)


def _sharing(network: Network, node: Node, values: Sequence[str]) -> tuple[str, list[Head]]:
    """Heads whose values are joined by `node`, as heads on the same features: a norm of one's own that stands
    before a head goes into its weights."""
    lines = [list(_before(network, *_folded(network, value))) for value in values]
    for features, _ in lines[0]:
        shared = [next((head for name, head in line if name == features), None) for line in lines]
        heads = [head for head in shared if head is not None]
        if len(heads) == len(lines):
            return features, heads
    raise _mixed(node)


def _before(network: Network, features: str, head: Head) -> Iterator[tuple[str, Head]]:
    """The same head on its features, and on what these are affine in."""
    yield features, head
    while features != network.graph.input:
        node = network.graph.node[features]
        line = _affine(network, node, head.weight.shape[1])
        if line is None or len(node.inputs) != 1:
            return
        scale, shift = line
        head = Head(head.weight * scale, head.bias + head.weight @ shift, head.tail)
        features = node.inputs[0]
        yield features, head


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
    stacked = _stacked(network.graph, node) if node.op == "mean" else []
    if node.op not in ("add", "scale_shift") and not stacked:
        return None
    parts: list[_Part] = []
    for name in stacked or node.inputs:
        inner = _summed(network, name)
        if inner is None or any(len(bias) != network.graph.shapes[value][0] for _, _, bias in inner):
            return None
        parts.extend(inner)
    if stacked:
        return [(features, weight / len(stacked), bias / len(stacked)) for features, weight, bias in parts]
    if node.op == "scale_shift":
        scale, shift = node.attributes["scale"], node.attributes["shift"]
        parts = [(features, scale * weight, scale * bias) for features, weight, bias in parts]
        features, weight, bias = parts[0]
        parts[0] = (features, weight, bias + shift)
    return parts


def _split_sum(network: Network, parts: list[_Part]) -> tuple[Network, Head]:
    """Layers on different features as one on all of them, one after the other."""
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
    head = Head(torch.cat(list(weights.values()), 1), bias)
    return rebuilt(_trunk(graph, joined), network), head


def _trunk(graph: Graph, features: str) -> Graph:
    wanted, kept = {features}, []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return Graph(graph.input, graph.input_shape, tuple(reversed(kept)), features)


def _tail_steps(node: Node, graph: Graph) -> tuple[str, ...]:
    shape = graph.shapes[node.inputs[0]]
    if node.op == "relu":
        return ("relu",)
    if node.op == "adaptive_avg_pool2d" and node.attributes["size"] == (1, 1):
        return ("average",)
    if node.op == "mean" and len(shape) == 3 and node.attributes["dims"] == (1, 2):
        return ("average",) if node.attributes["keep"] else ("average", "flatten")
    if node.op == "reshape" and len(shape) == 3 and shape[1:] == (1, 1):
        return ("flatten",)
    raise _mixed(node)


def _mixed(node: Node) -> ParentError:
    return ParentError(
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
