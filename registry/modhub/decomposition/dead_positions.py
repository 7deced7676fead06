"""Where nothing fires: the positions of a trunk that are dead for a class (Pan & Rajan 2022, §3.1 and §3.2).

Judged are the outputs of rectifiers: what is ≤ 0 there is 0, so that masking changes no answer on an observed
image. That includes the ReLU after a residual Add, where the paper's own rule goes wrong: it reads the raw
output of each convolution, where a value ≤ 0 still counts in the Add or batch-norm behind it, and writes a
dead position of an Add into both branches. With `published` it is as the paper does it.

A channel is cut when no position of it lives in any value that a layer reads. Every network runs once over
the observed images, whatever the classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.held_out import normalised
from modhub.decomposition.parent import Parent
from modhub.devices import CPU
from modhub.nets import (
    ChannelSpace,
    Graph,
    Mask,
    Network,
    Runner,
)
from modhub.nets.operators import keeps_zero
from modhub.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Fired:
    """Where anything fired. By value name: `own[row]` on any observed image of class `row`, `sample[row]` on
    those that serve the other classes as negatives, `classes` how many classes' samples fired there."""

    own: Mapping[int, Mapping[str, Tensor]]
    sample: Mapping[int, Mapping[str, Tensor]]
    classes: Mapping[str, Tensor]

    def alive(self, row: int) -> dict[str, Tensor]:
        """Value name → bool: fired on the class (CI), or on a sample of another class (TI)."""
        return {
            name: own | (self.classes[name] - self.sample[row][name].int() > 0)
            for name, own in self.own[row].items()
        }


def judged_values(graph: Graph, *, published: bool = False) -> tuple[str, ...]:
    """Where positions are judged: at rectifiers; by the published rule at weighted layers and Adds."""
    if published:
        return tuple(node.name for node in graph.nodes if node.op in ("conv2d", "linear", "add"))
    return tuple(
        node.name
        for node in graph.nodes
        if node.op == "relu" or (node.op == "clamp" and node.attributes["low"] == 0)
    )


def observe_fired(
    parent: Parent,
    images: ImageSet,
    values: Iterable[str],
    wanted: Iterable[int],
    negatives: int | None,
    preprocess: Preprocess,
    batch: int,
    reporter: Reporter,
    device: torch.device = CPU,
) -> Fired:
    """One pass over all of `images`, whose targets count as the parent's labels.

    Of a class that is not wanted only the images that serve as negatives are looked at.
    """
    rows = set(wanted)
    names = tuple(values)
    runner = Runner(parent.trunk).to(device)
    own: dict[int, dict[str, Tensor]] = {}
    sample: dict[int, dict[str, Tensor]] = {}
    shapes = parent.trunk.graph.shapes
    classes = {name: torch.zeros(shapes[name], dtype=torch.int32) for name in names}
    seen = np.unique(images.targets).size
    with reporter.step("observe classes", len(parent.labels)), torch.inference_mode():
        for row in range(len(parent.labels)):
            indices = np.flatnonzero(images.targets == row)
            count = _share(len(indices), seen) if negatives is None else negatives
            found = _fired(runner, images.subset(indices[:count]), names, preprocess, batch)
            for name in names:
                classes[name] += found[name].int()
            if row in rows:
                rest = _fired(runner, images.subset(indices[count:]), names, preprocess, batch)
                sample[row] = found
                own[row] = {name: found[name] | rest[name] for name in names}
            reporter.advance()
    return Fired(own, sample, classes)


def concern_positions(
    trunk: Network, alive: Mapping[str, Tensor], *, published: bool = False
) -> dict[str, Tensor]:
    """Value name → bool, from what is alive at the judged values: by the published rule a dead position of
    an Add goes into both of its branches, through batch-norm."""
    if not published:
        return dict(alive)
    graph = trunk.graph
    masks = {name: mask for name, mask in alive.items() if graph.node[name].op != "add"}
    for name, mask in alive.items():
        if graph.node[name].op != "add":
            continue
        for branch in graph.node[name].inputs:
            value = branch
            while value in graph.node and graph.node[value].op == "batch_norm":
                value = graph.node[value].inputs[0]
            if graph.shapes[value] == tuple(mask.shape) and value != graph.input:
                masks[value] = masks.get(value, torch.ones_like(mask)) & mask
    return masks


def kept_channels(space: ChannelSpace, masks: Mapping[str, Tensor]) -> Mask:
    """Slots of which some layer reads a live position, closed."""
    graph = space.graph
    mask = np.zeros(space.slots, np.bool_)
    read = {graph.output}
    for node in graph.nodes:
        if node.op in ("conv2d", "linear"):
            read.update(node.inputs)
    for value in read:
        layout = space.of(value)
        masked = _masked_source(graph, value, masks)
        live = set(layout[layout >= 0].tolist())
        if masked is not None:
            lives = masks[masked].flatten(1).any(1) if masks[masked].dim() > 1 else masks[masked]
            live &= set(space.of(masked)[lives.numpy()].tolist())
        mask[sorted(live)] = True
    return space.close(mask)


def _masked_source(graph: Graph, value: str, masks: Mapping[str, Tensor]) -> str | None:
    """The masked value that `value` only passes on, in which a dead channel stays zero."""
    while value not in masks:
        if value == graph.input:
            return None
        node = graph.node[value]
        if (
            len(node.inputs) != 1
            or node.op in ("conv2d", "linear")
            or not keeps_zero(node.op, node.attributes)
        ):
            return None
        value = node.inputs[0]
    return value


def _fired(
    runner: Runner, images: ImageSet, values: tuple[str, ...], preprocess: Preprocess, batch: int
) -> dict[str, Tensor]:
    shapes = runner.network.graph.shapes
    fired = {name: torch.zeros(shapes[name], dtype=torch.bool) for name in values}
    for pixels in normalised(images, preprocess, batch):
        for name, found in runner.observe(pixels.to(next(runner.parameters()).device), values).items():
            fired[name] |= (found > 0).any(0).cpu()
    return fired


def _share(images: int, classes: int) -> int:
    """What a class gives as negatives for each other class, so that these sum to its own number."""
    return max(1, -(-images // max(classes - 1, 1)))
