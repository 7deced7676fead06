"""Least squares, layer after layer, on what the slim network really sees.

Dense and slim network run side by side over the same images, one layer at a time. Every dense layer that the
cut has touched is fitted anew: its input is the slim network's own, so that it also mends what the layers
before it got wrong; its goal is the parent's value. Where the layer's output is added to another value, as in
a residual block, the goal is the parent's sum minus what the slim network adds. A ridge pulls towards the
weights it had. (Channel pruning by reconstruction, He et al. 2017, arXiv 1707.06168, §3.1, in the asymmetric
form of its §3.2.) No labels are needed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.nets import ChannelSpace, Graph, Mask, Network, Node, is_plain_sum
from modhub.nets.kernels import KERNELS
from modhub.reporter import SILENT, Reporter


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a layer is fitted to: the parent's `value`, minus the slim network's `other` if it is added."""

    value: str
    other: str | None


class _Walk:
    """One network run node by node on all batches; values are dropped when nothing needs them any more."""

    def __init__(self, network: Network, images: list[Tensor], wanted: dict[str, int]) -> None:
        self.network = network
        self.values = {network.graph.input: images}
        self.uses = {name: len(network.graph.readers[name]) for name in network.graph.shapes}
        self.uses[network.graph.output] += 1
        for name, count in wanted.items():
            self.uses[name] += count

    def run(self, node: Node, tensors: dict[str, Tensor]) -> None:
        kernel = KERNELS[node.op]
        inputs = zip(*(self.values[name] for name in node.inputs), strict=True)
        self.values[node.name] = [kernel(node.attributes, list(batch), tensors) for batch in inputs]
        for name in dict.fromkeys(node.inputs):
            self.used(name)

    def used(self, name: str) -> None:
        self.uses[name] -= 1
        if self.uses[name] == 0:
            del self.values[name]


def refit_network(
    dense: Network,
    slim: Network,
    space: ChannelSpace,
    mask: Mask,
    images: Tensor,
    *,
    seed: int = 0,
    settings: FitSettings = DEFAULT_SETTINGS,
    reporter: Reporter = SILENT,
) -> tuple[Network, Tensor]:
    """`slim` with new weights, and the features that the unpruned network gives for `images`.

    `dense` is the unpruned trunk and `slim` the same trunk cut to `mask`, both with batch-norms fused;
    `images` (images, channels, height, width) are normalised and on the device of both. Some values of all
    images are held at once.
    """
    graph = slim.graph
    batches = list(torch.split(images, settings.batch))
    goals = _goals(graph, _touched(dense, slim), dense.graph)
    unpruned = _Walk(dense, batches, Counter(goal.value for goal in goals.values()))
    pruned = _Walk(slim, batches, Counter(goal.other for goal in goals.values() if goal.other is not None))
    ahead = iter(dense.graph.nodes)
    reached = {dense.graph.input}
    draw = np.random.default_rng(seed)
    refitted: dict[str, dict[str, Tensor]] = {}

    def advance_to(value: str) -> None:
        while value not in reached:
            node = next(ahead)
            unpruned.run(node, dense.of(node))
            reached.add(node.name)

    with torch.inference_mode(), reporter.step("refit layers", len(graph.nodes)):
        for node in graph.nodes:
            tensors = slim.of(node)
            if node.name in goals:
                goal = goals[node.name]
                advance_to(goal.value)
                alive = torch.from_numpy(np.flatnonzero(space.kept(mask, goal.value))).to(images.device)
                axis = 1 + space.axis(goal.value)
                pairs = [
                    (
                        pruned.values[node.inputs[0]][k],
                        unpruned.values[goal.value][k].index_select(axis, alive)
                        - (pruned.values[goal.other][k] if goal.other is not None else 0),
                    )
                    for k in range(len(batches))
                ]
                tensors = _fitted(node, tensors, pairs, draw, settings)
                refitted[node.name] = tensors
                unpruned.used(goal.value)
                if goal.other is not None:
                    pruned.used(goal.other)
            pruned.run(node, tensors)
            reporter.advance()
        advance_to(dense.graph.output)
        features = torch.cat(unpruned.values[dense.graph.output])
    network = slim
    for name, tensors in refitted.items():
        network = network.with_tensors(name, **{role: tensor.clone() for role, tensor in tensors.items()})
    return network, features.clone()


def _touched(dense: Network, slim: Network) -> set[str]:
    """The nodes whose value differs, on its kept channels, from the dense network's."""
    touched: set[str] = set()
    for node in slim.graph.nodes:
        before = dense.graph.node.get(node.name)
        same = before is not None and before.inputs == node.inputs and not touched.intersection(node.inputs)
        if same and before is not None and node.op in ("conv2d", "linear"):
            # A layer that only lost outputs computes the others as before.
            same = dense.of(before)["weight"].shape[1] == slim.of(node)["weight"].shape[1]
        if not same:
            touched.add(node.name)
    return touched


def _goals(graph: Graph, touched: set[str], dense: Graph) -> dict[str, _Goal]:
    """Layer -> its goal, for every touched dense layer whose value the unpruned network has under that
    name."""
    goals = {}
    place = {name: number for number, name in enumerate(graph.shapes)}
    for node in graph.nodes:
        grouped = node.op == "conv2d" and node.attributes["groups"] > 1
        if node.name not in touched or node.op not in ("conv2d", "linear") or grouped:
            continue
        readers = graph.readers[node.name]
        if len(readers) == 1 and readers[0].op == "add" and readers[0].name in dense.node:
            sum_ = readers[0]
            others = [name for name in sum_.inputs if name != node.name]
            # What a sum spreads over channels or places is fitted to itself.
            same_shape = graph.shapes[sum_.name] == graph.shapes[node.name]
            if len(others) == 1 and same_shape and is_plain_sum(sum_) and place[others[0]] < place[node.name]:
                goals[node.name] = _Goal(sum_.name, others[0])
                continue
        if node.name in dense.node:
            goals[node.name] = _Goal(node.name, None)
    return goals


def _fitted(
    node: Node,
    tensors: dict[str, Tensor],
    pairs: list[tuple[Tensor, Tensor]],
    draw: np.random.Generator,
    settings: FitSettings,
) -> dict[str, Tensor]:
    """Weight and bias of one layer from (input, goal) batches."""
    weight = tensors["weight"]
    rows = weight.flatten(1)
    size = rows.shape[1] + 1
    outputs = 1 if node.op == "conv2d" else -1
    positions = sum(goal.numel() // goal.shape[outputs] for _, goal in pairs)
    share = min(1.0, max(4 * size, settings.refit_work / size**2) / max(positions, 1))
    device = weight.device
    square = torch.zeros(size, size, dtype=torch.float64, device=device)
    product = torch.zeros(size, len(rows), dtype=torch.float64, device=device)
    count = 0
    for value, goal in pairs:
        patches, wanted = _samples(node, value, goal, share, draw)
        patches = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
        square += (patches.T @ patches).double()
        product += (patches.T @ wanted).double()
        count += len(patches)
    square, product = square / count, product / count
    bias = tensors.get("bias", torch.zeros(len(rows), device=device))
    rows, bias = _solved(square, product, rows, bias, settings.refit_ridge)
    return {"weight": rows.reshape(weight.shape), "bias": bias}


def _solved(
    square: Tensor, product: Tensor, weight: Tensor, bias: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """The rows (rows, inputs) and bias that solve the normal equations `square` (inputs + 1, inputs + 1) and
    `product` (inputs + 1, rows), pulled to what they were; the last input is the constant 1. It changes
    `square`, which may be large."""
    squares = square.diagonal()
    average = squares[:-1].mean()
    pull = ridge * squares + 1e-7 * torch.where(average > 0, average, torch.ones_like(average))
    pull[-1] = 1e-9
    before = torch.cat([weight, bias[:, None]], 1).double()
    square.diagonal().add_(pull)
    solved = torch.linalg.solve(square, product + pull[:, None] * before.T).T.float()
    return solved[:, :-1].contiguous(), solved[:, -1].contiguous()


def _samples(
    node: Node, value: Tensor, goal: Tensor, share: float, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(samples, inputs) and (samples, outputs) of a batch, at a share of its positions."""
    if node.op == "linear":
        return value.flatten(0, -2), goal.flatten(0, -2)
    a = node.attributes
    batch, channels, height, width = goal.shape
    patches = F.unfold(value, a["kernel"], a["dilation"], a["padding"], a["stride"])
    wanted = goal.reshape(batch, channels, height * width)
    places = height * width
    if share < 1:
        count = max(1, round(share * places))
        chosen = torch.from_numpy(np.sort(draw.permutation(places)[:count])).to(value.device)
        patches, wanted = patches.index_select(2, chosen), wanted.index_select(2, chosen)
    return patches.transpose(1, 2).flatten(0, 1), wanted.transpose(1, 2).flatten(0, 1)


def refit_head(
    weight: Tensor,
    bias: Tensor,
    goal: Tensor,
    features: Tensor,
    settings: FitSettings = DEFAULT_SETTINGS,
) -> tuple[Tensor, Tensor]:
    """Rows (rows, features) that give `goal` (images, rows) on `features` (images, features), pulled to what
    they were."""
    inputs = torch.cat([features, torch.ones_like(features[:, :1])], 1).double()
    square = inputs.T @ inputs / len(inputs)
    product = inputs.T @ goal.double() / len(inputs)
    return _solved(square, product, weight, bias, settings.head_ridge)
