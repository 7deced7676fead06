"""A graph without detours: what nobody reads, reshapes of reshapes, a shuffle spelled as three operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modhub.nets.graph import Graph, Network, Node


def simplify(network: Network) -> Network:
    """The same function of the image with fewer nodes. Running it again changes nothing."""
    graph = network.graph
    while True:
        shorter = _without_detours(graph)
        if len(shorter.nodes) == len(graph.nodes):
            return rebuilt(shorter, network)
        graph = shorter


def rebuilt(graph: Graph, network: Network) -> Network:
    """`graph` with those of the network's tensors that it names."""
    used = {name for node in graph.nodes for name in node.tensors.values()}
    return Network(graph, {name: tensor for name, tensor in network.tensors.items() if name in used})


def _without_detours(graph: Graph) -> Graph:
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    producers: dict[str, Node] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if node.op == "reshape":
            node = _shuffled(node, producers, graph) or _direct(node, producers)
            if node.op == "reshape" and graph.shapes[node.inputs[0]] == node.attributes["shape"]:
                renamed[node.name] = node.inputs[0]
                continue
        nodes.append(node)
        producers[node.name] = node
    output = renamed.get(graph.output, graph.output)
    return Graph(graph.input, graph.input_shape, _alive(nodes, output), output)


def _direct(node: Node, producers: Mapping[str, Node]) -> Node:
    """A reshape of a reshape reads what the first one reads."""
    before = producers.get(node.inputs[0])
    return replace(node, inputs=before.inputs) if before is not None and before.op == "reshape" else node


def _shuffled(node: Node, producers: Mapping[str, Node], graph: Graph) -> Node | None:
    """(g, c, h, w) from (g·c, h, w), transposed to (c, g, h, w), back to (c·g, h, w): a channel shuffle."""
    turned = producers.get(node.inputs[0])
    if turned is None or turned.op != "permute" or turned.attributes["dims"] != (1, 0, 2, 3):
        return None
    split = producers.get(turned.inputs[0])
    if split is None or split.op != "reshape":
        return None
    shape = graph.shapes[split.inputs[0]]
    groups, channels, *extents = split.attributes["shape"]
    if node.attributes["shape"] != shape or (groups * channels, *extents) != shape:
        return None
    return Node(node.name, "channel_shuffle", split.inputs, {"groups": groups})


def _alive(nodes: list[Node], output: str) -> tuple[Node, ...]:
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
