"""Cut the channels that a mask does not keep out of a network.

A sliced network computes what the dense network computes with every removed channel set to zero at every
value it lives in (`mask_network`), unless affine maps are folded in that stand for removed channels. Of a
residual branch without channels a constant is left, which is added to what the branch was added to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modhub.errors import CompositionError
from modhub.nets.branches import Branch
from modhub.nets.channels import ChannelSpace, Mask, channel_space
from modhub.nets.graph import Graph, Network, Node
from modhub.nets.kernels import KERNELS
from modhub.nets.operators import OPERATORS
from modhub.nets.rules import Cutting, Shrunk, rule_of
from modhub.nets.traces import Kept, merged_dimension

__all__ = [
    "AffineMap",
    "Site",
    "fold_affine",
    "mask_network",
    "mask_positions",
    "sites",
    "slice_network",
    "weightless",
    "without_constants",
]


@dataclass(frozen=True, slots=True)
class Site:
    """A dense convolution or linear layer, and the value it reads.

    `channels` names that value before it was flattened, if it was: the value on which a map of channels is
    best fitted. `before` and `inside` count how often each channel stands in the flattened value: `before` ×
    channels × `inside`, in this order.
    """

    value: str
    consumer: str
    channels: str
    before: int = 1
    inside: int = 1


@dataclass(frozen=True, slots=True)
class AffineMap:
    """removed ≈ matrix · kept + offset, with `matrix` (removed, kept) and `offset` (removed,), in the order
    of the value's channels. Folded into a zero-padded convolution the offset counts at the border too."""

    matrix: Tensor
    offset: Tensor


def sites(network: Graph | Network) -> tuple[Site, ...]:
    """Every place where a map of removed channels can be folded in, in the order of the nodes.

    Depthwise and grouped convolutions are none: with an input channel their output goes too.
    """
    graph = network.graph if isinstance(network, Network) else network
    places = []
    for node in graph.nodes:
        value = node.inputs[0]
        if node.op == "linear" or (node.op == "conv2d" and node.attributes["groups"] == 1):
            places.append(Site(value, node.name, *_unflattened(graph, value)))
    return tuple(places)


def _unflattened(graph: Graph, value: str) -> tuple[str, int, int]:
    source = value
    while source != graph.input:
        node = graph.node[source]
        if node.op == "reshape" and len(graph.shapes[source]) == 1:
            read = node.inputs[0]
            place = merged_dimension(graph.shapes[read], 0, graph.shapes[source])
            return (value, 1, 1) if place is None else (read, *place[1:])
        if OPERATORS[node.op].rule != "same":
            break
        source = node.inputs[0]
    return value, 1, 1


def slice_network(
    network: Network,
    mask: Mask,
    *,
    fold: Mapping[Site, AffineMap] | None = None,
    space: ChannelSpace | None = None,
) -> Network:
    """The network with the kept channels only. The mask is closed first (`ChannelSpace.close`).

    `fold` replaces removed channels by affine maps of the kept ones, worked into the weight and bias of the
    layer that reads them (a bias is added where there was none). Pass `space` to save its computation. Raises
    `CompositionError` for a mask or a map of the wrong size.
    """
    graph = network.graph
    space = space or channel_space(graph)
    mask = space.close(mask)
    folded = {site.consumer: (site, affine) for site, affine in (fold or {}).items()}
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}

    def cut(node: Node) -> Shrunk | None:
        held = network.of(node)
        if node.name in folded:
            held = _folded(held, *folded[node.name], space.kept(mask, folded[node.name][0].value))
        return rule_of(node).cut(
            Cutting(
                node=node,
                tensors=held,
                shapes=[graph.shapes[name] for name in node.inputs],
                kept=[space.kept(mask, name) for name in node.inputs],
                axes=[space.axis(name) for name in node.inputs],
                out_shape=graph.shapes[node.name],
                out_kept=space.kept(mask, node.name),
                out_axis=space.axis(node.name),
            )
        )

    gone = space.gone(mask)
    idle = {name for branch in gone for name in branch.nodes}
    sums = {branch.sum: branch for branch in gone}
    for node in graph.nodes:
        if node.name in idle:
            continue
        if node.name in sums:
            branch = sums[node.name]
            value = _constant(graph, branch, cut)
            names = {"value": _named(None, f"{node.name}.value", value, tensors)}
            other = renamed.get(branch.other, branch.other)
            nodes.append(Node(node.name, "add_constant", (other,), {"shape": tuple(value.shape)}, names))
            continue
        shrunk = cut(node)
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        if shrunk is None:
            renamed[node.name] = inputs[0]
            continue
        names = {}
        for role, tensor in shrunk.tensors.items():
            names[role] = _named(node.tensors.get(role), f"{node.name}.{role}", tensor, tensors)
        nodes.append(Node(node.name, shrunk.op, inputs, shrunk.attributes, names))
    output = renamed.get(graph.output, graph.output)
    return Network(Graph(graph.input, graph.input_shape, tuple(nodes), output), tensors)


def _constant(graph: Graph, branch: Branch, cut: Callable[[Node], Shrunk | None]) -> Tensor:
    """What a branch says of any image when its last layer reads nothing; 1 but for the channels."""
    last = graph.node[branch.last]
    shrunk = cut(last)
    assert shrunk is not None, "a layer with weights never vanishes"
    weight = shrunk.tensors["weight"]
    bias = shrunk.tensors.get("bias", torch.zeros(len(weight), device=weight.device))
    rank, axis = len(graph.shapes[last.name]), 0 if last.op == "conv2d" else -1
    shape = [1] * rank
    shape[axis] = len(bias)
    value = bias.reshape(1, *shape)
    for name in branch.tail:
        step = cut(graph.node[name])
        if step is not None:
            value = KERNELS[step.op](step.attributes, [value], step.tensors)
    return value[0]


def without_constants(network: Network, space: ChannelSpace, mask: Mask) -> Network:
    """The same without what a slice by `mask` of the space's network adds in place of branches that are gone,
    and without activations that this leaves nothing to do.

    Layers that read such a sum have biases, or get them when they are fitted anew: they can take the
    constants over. A `relu` of what is a `relu` already, as at the end of a residual block, changes nothing.
    """
    graph = network.graph
    sums = {branch.sum for branch in space.gone(mask)}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        producer = graph.node.get(inputs[0])
        idle = node.op == "relu" and inputs != node.inputs and producer is not None and producer.op == "relu"
        if (node.name in sums and node.op == "add_constant") or idle:
            renamed[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    used = {name for node in nodes for name in node.tensors.values()}
    tensors = {name: tensor for name, tensor in network.tensors.items() if name in used}
    output = renamed.get(graph.output, graph.output)
    return Network(Graph(graph.input, graph.input_shape, tuple(nodes), output), tensors)


def weightless(network: Network) -> Network:
    """The network with shapes in place of numbers: slicing it costs little and tells what is left (`cost`).

    A network in which two nodes share a tensor comes back as it is: what they share depends on the numbers.
    """
    names = [name for node in network.graph.nodes for name in node.tensors.values()]
    if len(set(names)) < len(names):
        return network
    # Integers and masks say which channels go where.
    shadows = {
        name: tensor.to("meta") if tensor.is_floating_point() else tensor
        for name, tensor in network.tensors.items()
    }
    return Network(network.graph, shadows)


def _named(wanted: str | None, fallback: str, tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Store under the old name; under the node's own where two nodes shared a tensor and now differ."""
    for name in (wanted, fallback, f"{fallback}.own"):
        if name is not None and (name not in tensors or torch.equal(tensors[name], tensor)):
            tensors[name] = tensor.contiguous()
            return name
    raise CompositionError(f"The tensor name '{fallback}' is taken by another layer's tensor.")


def _folded(tensors: Mapping[str, Tensor], site: Site, affine: AffineMap, kept: Kept) -> dict[str, Tensor]:
    weight, bias = fold_affine(
        tensors["weight"], tensors.get("bias"), kept, affine, before=site.before, inside=site.inside
    )
    return {**tensors, "weight": weight, "bias": bias}


def fold_affine(
    weight: Tensor,
    bias: Tensor | None,
    kept: Kept,
    affine: AffineMap,
    *,
    before: int = 1,
    inside: int = 1,
) -> tuple[Tensor, Tensor]:
    """Work `each` into a layer: `weight` (out, in, …) and `bias` (out,) of the same shapes come back.

    `kept` (in,) says which inputs stay; the weights of the others are left as they are, to be cut. For a
    layer that reads a flattened value, `each` may be a map of channels (see `Site`). Raises
    `CompositionError`.
    """
    out, inputs = weight.shape[:2]
    # (out, before, channels, inside·kernel): a map of channels holds at each place of the flattened value.
    spread = weight.reshape(out, before, inputs // (before * inside), -1)
    alive = torch.from_numpy(kept.reshape(before, -1, inside)[0, :, 0].copy())
    if affine.matrix.shape != (int((~alive).sum()), int(alive.sum())):
        spread, alive = weight.reshape(out, 1, inputs, -1), torch.from_numpy(kept.copy())
    if (
        affine.matrix.shape != (int((~alive).sum()), int(alive.sum()))
        or affine.offset.shape != affine.matrix.shape[:1]
    ):
        raise CompositionError(
            f"A map of shape {list(affine.matrix.shape)} was given for {int((~alive).sum())} removed and "
            f"{int(alive.sum())} kept channels."
        )
    matrix, offset = affine.matrix.to(weight), affine.offset.to(weight)
    removed = spread[:, :, ~alive]
    folded = spread.clone()
    folded[:, :, alive] += torch.einsum("obrk,rc->obck", removed, matrix)
    shift = torch.einsum("obrk,r->o", removed, offset)
    return folded.reshape(weight.shape), shift if bias is None else bias + shift


def mask_network(network: Network, mask: Mask, space: ChannelSpace | None = None) -> Network:
    """The dense network with every removed channel set to zero at every value it lives in.

    This is what a sliced network is measured against. The mask is closed first.
    """
    space = space or channel_space(network)
    mask = space.close(mask)
    masks = {}
    for value in space.values:
        kept = space.kept(mask, value)
        if not kept.all():
            shape = [1] * len(network.graph.shapes[value])
            shape[space.axis(value)] = len(kept)
            masks[value] = torch.from_numpy(kept.copy()).reshape(shape)
    return mask_positions(network, masks)


def mask_positions(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """The network with values set to zero where their mask is False, for all that read them.

    Value name -> boolean tensor of the value's shape without the batch, or of size 1 where all are alike.
    The masked value is called `NAME.mask`. Raises `ManifestError` for a mask of the wrong shape, and
    `CompositionError` for one of a value that the network does not have.
    """
    graph = network.graph
    if unknown := set(masks) - set(graph.shapes):
        raise CompositionError(f"The network has no value '{min(unknown)}' to mask.")
    nodes: list[Node] = []
    tensors = dict(network.tensors)
    renamed: dict[str, str] = {}

    def insert(value: str) -> None:
        if value in masks:
            name = f"{value}.mask"
            tensors[name] = masks[value].bool().contiguous()
            shape = tuple(masks[value].shape)
            nodes.append(Node(name, "position_mask", (value,), {"shape": shape}, {"value": name}))
            renamed[value] = name

    insert(graph.input)
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
        insert(node.name)
    output = renamed.get(graph.output, graph.output)
    return Network(Graph(graph.input, graph.input_shape, tuple(nodes), output), tensors)
