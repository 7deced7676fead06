"""A slim network trained to do what its parent does, all the way through.

With few images, answers alone say too little: a network learns hundreds of margins by heart. What every layer
reads says much more, a number for each channel at each place. So the loss of a step is

    E|m − m*|² / E|m*|²  +  H · mean over values v of  E[Σ_c s_c (x_c − x*_c)²] / E[Σ_c s_c (x*_c − μ_c)²]

m the centred margins, x the channels of v that the slim network still has, * the parent's, and s_c how much
the wanted margins hang on channel c (`ClassStatistics.sensitivity`). Each term of the second kind is, to
second order, the share of the margins' variance that an error at v costs: hints (Romero et al. 2015, arXiv
1412.6550, §2.2) in the units of the answer. Every batch is changed anew and answered by the parent anew, as a
patient teacher does (Beyer et al. 2022, arXiv 2106.05237, §3).

Hints bind the channels that stay to what they said before. In a residual network, whose stream is kept nearly
whole, that is what they should say; in a chain of a few narrow layers they must learn to speak for those that
went. So H is tried, large and 0, for a few steps each.

Labels are not looked at. Images that no step sees judge: which H is taken, and whether the slim network came
closer to its parent's margins at all; if not, it stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.fitting.batches import TransferSet
from modhub.nets import ChannelSpace, Graph, Mask, Network, Runner, cost, value_bytes
from modhub.pruning.statistics import observed_values
from modhub.reporter import SILENT, Reporter

__all__ = ["distilled", "watched"]

_HINTS = (30.0, 0.0)
"""What is tried for H."""
_TRIAL = 10
"""One step in so many is taken to try each."""
_RATE = 1e-3
_DECAY = 1e-3
_BATCH = (4, 32)
"""Images of a step: the fewest and the most."""
_MEMORY = 1 << 30
"""Bytes that the values of the parent may take for a batch."""
_WORK = 4e12
"""Multiply-adds that distillation may take: about a minute on two cores."""
_STEPS = (60, 1500)
"""The fewest and the most."""


def distilled(
    dense: Network,
    slim: Network,
    space: ChannelSpace,
    mask: Mask,
    rows: tuple[Tensor, Tensor],
    head: tuple[Tensor, Tensor],
    lessons: TransferSet,
    judged: Tensor,
    sensitivity: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    reporter: Reporter = SILENT,
) -> Network:
    """`slim`, trained towards `dense`; both have their batch-norms fused and are on the device that computes.

    `rows` (rows, features), (rows,) are the head on the features of `dense`, `head` that on those of `slim`;
    features that have positions are matched like every other value. `judged` (images, channels, height,
    width) are normalised images that no lesson holds; without any, or without lessons, nothing is trained.
    """
    if not len(judged) or not len(lessons):
        return slim
    names = {name: known for name, known in watched(dense.graph, space).items() if name in slim.graph.shapes}
    kept = {
        name: torch.from_numpy(np.flatnonzero(space.kept(mask, name))).to(judged.device) for name in names
    }
    worth = {} if sensitivity is None else {name: sensitivity[known] for name, known in names.items()}
    axes = {name: 1 + space.axis(name) for name in names}
    teacher, pupil = (
        _Network(Runner(network).to(judged.device), rows, axes)
        for network, rows in ((dense, rows), (slim, head))
    )
    size = int(min(max(_MEMORY / value_bytes(dense.graph), _BATCH[0]), _BATCH[1]))
    course = _Course(teacher, pupil, lessons, judged, size, kept, worth)
    start = pupil.weights()
    before = course.apart()
    steps = _steps(dense, slim, lessons, size)
    trial = -(-steps // _TRIAL)
    with reporter.step("distil", steps + trial * len(_HINTS)):
        found = [course.take(start, hints, trial, reporter) for hints in _HINTS]
        after = course.take(start, _HINTS[int(np.argmin(found))], steps, reporter)
    return Network(slim.graph, {**slim.tensors, **pupil.weights()}) if after < before else slim


def watched(graph: Graph, space: ChannelSpace) -> dict[str, str]:
    """The values that are matched, and under which name modules carry statistics of their channels.

    What dense layers read, and the features: before they are averaged over their places, where they are.
    """
    values = {name: name for name in observed_values(graph, space) if name != graph.output}
    last = graph.output
    while len(graph.shapes[last]) == 1 and last in graph.node:
        (before, *others) = graph.node[last].inputs
        if others or not np.array_equal(space.of(before), space.of(last)):
            break
        last = before
    return {**values, last: values.get(last, graph.output)}


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of a batch: centred `margins` (batch, rows), None for features with positions; `values` (batch,
    channels, …) by name."""

    margins: Tensor | None
    values: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Network:
    """A network with its head, weight and bias, and in which dimension the values that are looked at have
    their channels."""

    runner: Runner
    head: tuple[Tensor, Tensor]
    axes: Mapping[str, int]

    def __call__(self, images: Tensor) -> _Seen:
        output = self.runner.network.graph.output
        found = self.runner.observe(images, [*self.axes, output])
        values = {name: found[name].movedim(axis, 1) for name, axis in self.axes.items()}
        if found[output].dim() != 2:
            return _Seen(None, values)
        answers = found[output] @ self.head[0].T + self.head[1]
        return _Seen(answers - answers.mean(1, keepdim=True), values)

    def trained(self) -> dict[str, Tensor]:
        """The parameters of layers that have weights, by the names of their tensors."""
        network = self.runner.network
        nodes = (node for node in network.graph.nodes if node.op in ("conv2d", "linear"))
        names = dict.fromkeys(name for node in nodes for name in node.tensors.values())
        return {name: self.runner.parameter(name) for name in names}

    def weights(self) -> dict[str, Tensor]:
        """Copies of them."""
        return {name: each.detach().clone().contiguous() for name, each in self.trained().items()}


@dataclass(frozen=True, slots=True)
class _Measure:
    """How far a slim network is from its parent; 1 for each term if it knew nothing but means.

    `scale` is E|m*|². `weights` (channels kept, 1…) by value: s_c over the sum that stands below the line.
    """

    scale: Tensor
    weights: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        seen: Sequence[_Seen],
        kept: Mapping[str, Tensor],
        sensitivity: Mapping[str, NDArray[np.float64]],
    ) -> _Measure:
        """From what the parent does on some batches; channels without sensitivities count alike."""
        margins = [each.margins for each in seen if each.margins is not None]
        scale = torch.cat(margins).square().mean().clamp(min=1e-9) if margins else torch.ones(())
        weights = {}
        for name, chosen in kept.items():
            value = torch.cat([each.values[name] for each in seen]).index_select(1, chosen)
            spread = value.transpose(0, 1).flatten(1).var(1, correction=0)
            weight = torch.ones_like(spread)
            if name in sensitivity:
                weight = torch.from_numpy(sensitivity[name]).to(spread)[chosen]
            weight = weight / (weight * spread).sum().clamp(min=1e-12)
            weights[name] = weight.reshape(-1, *[1] * (value.dim() - 2))
        return cls(scale, weights, kept)

    def __call__(self, found: _Seen, wanted: _Seen, hints: float = 0.0) -> Tensor:
        """Of the margins, where there are some, and `hints` times that of the values."""
        total = torch.zeros((), device=self.scale.device)
        if found.margins is not None and wanted.margins is not None:
            total = (found.margins - wanted.margins).square().mean() / self.scale
        if hints or found.margins is None:
            off = [self._off(name, found, wanted) for name in self.kept]
            total = total + (hints or 1.0) * torch.stack(off).mean()
        return total

    def _off(self, name: str, found: _Seen, wanted: _Seen) -> Tensor:
        value = found.values[name]
        error = (value - wanted.values[name].index_select(1, self.kept[name])).square()
        return (error * self.weights[name]).mean((0, *range(2, value.dim()))).sum()


class _Course:
    """Steps of the pupil towards the teacher, on batches of `size` images, and how far they are apart."""

    def __init__(
        self,
        teacher: _Network,
        pupil: _Network,
        lessons: TransferSet,
        judged: Tensor,
        size: int,
        kept: Mapping[str, Tensor],
        worth: Mapping[str, NDArray[np.float64]],
    ) -> None:
        self.teacher, self.pupil, self.lessons, self.size = teacher, pupil, lessons, size
        self.judged = torch.split(judged, size)
        with torch.no_grad():
            self.measure = _Measure.of([teacher(images) for images in self.judged], kept, worth)

    def apart(self) -> float:
        """The distance of their margins on the images that judge; infinite when it is not a number."""
        with torch.no_grad():
            parts = [
                self.measure(self.pupil(images), self.teacher(images)) * len(images) for images in self.judged
            ]
        found = float(torch.stack(parts).sum() / sum(map(len, self.judged)))
        return found if math.isfinite(found) else math.inf

    def take(self, start: Mapping[str, Tensor], hints: float, steps: int, reporter: Reporter) -> float:
        """How far apart they are when the pupil has taken so many steps from the weights `start`."""
        trained = self.pupil.trained()
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(start[name])
        for weight in trained.values():
            weight.requires_grad_(True)
        optimiser = torch.optim.AdamW(list(trained.values()), _RATE, weight_decay=_DECAY)
        # Adam moves every weight by the rate at once, so the first steps are small ones.
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.15)
        for step in range(steps):
            images = self.lessons.batch(step, self.size).to(self.judged[0].device)
            with torch.no_grad():
                wanted = self.teacher(images)
            optimiser.zero_grad()
            torch.autograd.backward([self.measure(self.pupil(images), wanted, hints)])
            optimiser.step()
            schedule.step()
            reporter.advance()
        for weight in trained.values():
            weight.requires_grad_(False)
        return self.apart()


def _steps(dense: Network, slim: Network, lessons: TransferSet, size: int) -> int:
    fewest, most = _STEPS
    # A step is a pass of the parent, and one forward and back, which costs as two, of the slim network.
    work = size * (cost(dense).flops + 3 * cost(slim).flops)
    seen = lessons.rounds * len(lessons) // size
    return int(min(max(_WORK / max(work, 1), fewest), most, max(seen, fewest)))
