"""The method that started the field: concern and tangling identification, and concern modularisation.

R. Pan, H. Rajan, *Decomposing Convolutional Neural Networks into Reusable and Replaceable Modules*, ICSE
2022, https://arxiv.org/abs/2110.07720. How its §3 is read:

1. Concern identification: a position (channel, row, column) of a judged value is dead when it is ≤ 0 on every
   observed image of the class.
2. Tangling identification: a dead position that fires on an observed image of another class lives again. The
   other classes give as many images as the class itself, evenly (1:1), or `negatives` each.
3. Concern modularisation: the head becomes two rows, the class's and the mean of all others;
   back-tracking removes positions that serve only the other row: not at all (`none`), back to the last
   convolution (`BLN`), or back to the image (`BI`); see `backtracking`.

Judged are the outputs of rectifiers: what is ≤ 0 there is 0, so that masking changes no answer on an observed
image. That includes the ReLU after a residual Add, where the paper's own rule goes wrong: it reads the raw
output of each convolution, where a value ≤ 0 still counts in the Add or batch-norm behind it, and writes a
dead position of an Add into both branches. `published=True` does as the paper does.

A channel is cut when no position of it lives in any value that a layer reads; else position masks, which save
nothing, travel with the module. Every network runs once over the observed images, whatever the classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modhub.artifact.modules import Decomposition
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.backtracking import serving_positions
from modhub.decomposition.held_out import normalised
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.decomposition.workbench import Workbench
from modhub.devices import CPU
from modhub.errors import DataError, ParentError
from modhub.nets import (
    ChannelSpace,
    Graph,
    Mask,
    Network,
    Runner,
)
from modhub.nets.operators import keeps_zero
from modhub.reporter import Reporter

__all__ = [
    "VARIANTS",
    "Concern",
    "Fired",
    "concern_positions",
    "judged_values",
    "kept_channels",
    "observe_fired",
]

VARIANTS = ("none", "BLN", "BI")
"""Back-tracking: not at all, to the last convolution, to the image."""


@dataclass(slots=True, kw_only=True)
class Concern:
    """See the module's docstring. `threshold` is the paper's δ; `negatives` None means 1:1."""

    variant: str = "BLN"
    published: bool = False
    negatives: int | None = None
    threshold: float = 0.5
    name: str = field(default="concern", init=False)
    paper: str | None = field(default="arXiv:2110.07720", init=False)

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        count = isinstance(self.negatives, int) and not isinstance(self.negatives, bool)
        for option, good, wanted in (
            ("variant", self.variant in VARIANTS, f"one of {', '.join(VARIANTS)}"),
            ("published", isinstance(self.published, bool), "true or false"),
            ("negatives", self.negatives is None or (count and self.negatives >= 0), "a number of images"),
            ("threshold", number and self.threshold >= 0, "a number from 0 on"),
        ):
            if not good:
                raise DataError(
                    f"The option '{option}' of the method 'concern' is '{getattr(self, option)}'.",
                    hint=f"It should be {wanted}.",
                )

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        values = judged_values(parent.trunk.graph, published=self.published)
        if not values:
            raise ParentError(
                f"'{parent.name}' has no ReLU, so no position of it is ever dead.",
                hint="Use the method 'relevance'.",
            )
        bench = Workbench(parent, images, options, reporter)
        fired = bench.reading(
            lambda images: observe_fired(
                parent,
                images,
                values,
                bench.rows,
                self.negatives,
                Preprocess(parent.input),
                options.batch,
                reporter,
                options.torch_device,
            )
        )
        drafts = []
        for row in reporter.track(bench.rows, "separate concerns", len(bench.rows)):
            masks = concern_positions(parent.trunk, fired.alive(row), published=self.published)
            if self.variant != "none":
                weight, _ = one_against_rest_head(parent.head.weight, parent.head.bias, row)
                serving = serving_positions(
                    parent.trunk, weight, masks, threshold=self.threshold, to_input=self.variant == "BI"
                )
                masks = {value: mask & serving.get(value, mask) for value, mask in masks.items()}
            drafts.append(bench.draft(row, kept_channels(bench.space, masks), positions=masks))
        parameters: dict[str, str | int | float | bool | None] = {
            "variant": self.variant,
            "published": self.published,
            "negatives": self.negatives,
            "threshold": self.threshold,
        }
        return bench.finished(self, drafts, parameters)


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
