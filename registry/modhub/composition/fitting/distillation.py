"""A slim network trained to do what its parent does, all the way through.

With few images, answers alone say too little: a network learns hundreds of margins by heart. What every layer
reads says much more, a number for each channel at each place. So the loss of a step is

    E|m − m*|² / E|m*|²  +  H · mean over values v of  E[Σ_c s_c (x_c − x*_c)²] / E[Σ_c s_c (x*_c − μ_c)²]

m the centred margins, x the channels of v that the slim network still has, * the parent's, and s_c how much
the wanted margins hang on channel c (`ClassStatistics.sensitivity`). Each term of the second kind is, to
second order, the share of the margins' variance that an error at v costs: hints (Romero et al. 2015, arXiv
1412.6550, §2.2) in the units of the margins. Every batch is augmented anew and the parent runs on it anew, as
a patient teacher does (Beyer et al. 2022, arXiv 2106.05237, §3).

Hints bind the channels that stay to the values they had. In a residual network, whose stream is kept nearly
unpruned, that is right; in a chain of a few narrow layers they must learn to stand in for those that went. So
H is tried, large and 0, for a few steps each.

Labels are not looked at. Validation images, which no step sees, decide which H is taken, and whether the slim
network came closer to its parent's margins at all; if not, it stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.transfer_set import TransferSet
from modhub.nets import ChannelSpace, Graph, Mask, Network, Runner, cost, value_bytes
from modhub.pruning.statistics import observed_values
from modhub.reporter import SILENT, Reporter


@dataclass(frozen=True, slots=True)
class ScoredNetwork:
    """A network with its batch-norms fused, and the rows that read its features: `weight` (rows, features)
    and `bias` (rows,)."""

    network: Network
    weight: Tensor
    bias: Tensor

    def to(self, device: torch.device) -> ScoredNetwork:
        return ScoredNetwork(self.network.to(device), self.weight.to(device), self.bias.to(device))

    def rows(self, indices: Tensor) -> ScoredNetwork:
        """The same network with these rows alone."""
        return replace(self, weight=self.weight[indices], bias=self.bias[indices])


class Trainer:
    """Trains the slim `student`, the `teacher` cut to `mask`, to do what the teacher does.

    Both have the same rows, and are on the device that computes. Features that have positions are matched
    like every other value. `sensitivity` (channels,) by value is what the modules carry; channels without it
    count alike.
    """

    def __init__(
        self,
        teacher: ScoredNetwork,
        student: ScoredNetwork,
        space: ChannelSpace,
        mask: Mask,
        sensitivity: Mapping[str, NDArray[np.float64]] | None = None,
        settings: FitSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.settings, self.device = settings, student.weight.device
        dense, self.slim = teacher.network, student.network
        names = {
            name: value
            for name, value in matched_values(dense.graph, space).items()
            if name in self.slim.graph.shapes
        }
        self._kept = {
            name: torch.from_numpy(np.flatnonzero(space.kept(mask, name))).to(self.device) for name in names
        }
        self._sensitivity = (
            {} if sensitivity is None else {name: sensitivity[value] for name, value in names.items()}
        )
        axes = {name: 1 + space.axis(name) for name in names}
        self._teacher, self._student = (
            _Observed(Runner(scored.network).to(self.device), scored, axes) for scored in (teacher, student)
        )
        fewest, most = settings.distill_batch
        self._pixels = 1.0
        self._size = int(min(max(settings.distill_memory / value_bytes(dense.graph), fewest), most))

    def train(self, transfer: TransferSet, validation: Tensor, reporter: Reporter = SILENT) -> Network:
        """The student trained on `transfer`, or as it was if that brought it no closer to the teacher.

        `validation` (images, channels, height, width) are normalised images that `transfer` does not hold;
        without any, or without a transfer set, nothing is trained.
        """
        if not len(validation) or not len(transfer):
            return self.slim
        batches = torch.split(validation, self._size)
        with torch.no_grad():
            distance = _Distance.of(
                [self._teacher(images) for images in batches], self._kept, self._sensitivity
            )
        self._pixels = float(validation.square().mean().sqrt()) or 1.0
        start, before = self._student.weights(), self._validate(batches, distance)
        steps = self._steps(transfer)
        trial, hint_weights = -(-steps // self.settings.trial_every), self.settings.hint_weights
        with reporter.step("distil", steps + trial * len(hint_weights)):

            def trained(hints: float, steps: int) -> float:
                self._train(transfer, distance, start, hints, steps, reporter)
                return self._validate(batches, distance)

            trials = [trained(hints, trial) for hints in hint_weights]
            after = trained(hint_weights[int(np.argmin(trials))], steps)
        if after >= before:
            return self.slim
        return Network(self.slim.graph, {**self.slim.tensors, **self._student.weights()})

    def _steps(self, transfer: TransferSet) -> int:
        fewest, most = self.settings.distill_steps
        # A step is a pass of the teacher, and one forward and back, which costs as two, of the student.
        work = self._size * (cost(self._teacher.runner.network).flops + 3 * cost(self.slim).flops)
        worthwhile = transfer.epochs * len(transfer) // self._size
        affordable = max(self.settings.distill_work / max(work, 1), fewest)
        return int(min(affordable, most, max(worthwhile, fewest)))

    def _validate(self, batches: Sequence[Tensor], distance: _Distance) -> float:
        """The distance of the margins on the validation images; infinite when it is not a number."""
        with torch.no_grad():
            parts = [
                distance(self._student(images), self._teacher(images)) * len(images) for images in batches
            ]
        total = float(torch.stack(parts).sum() / sum(map(len, batches)))
        return total if math.isfinite(total) else math.inf

    def _train(
        self,
        transfer: TransferSet,
        distance: _Distance,
        start: Mapping[str, Tensor],
        hints: float,
        steps: int,
        reporter: Reporter,
    ) -> None:
        """So many steps of the student from the weights `start`."""
        settings, trained = self.settings, self._student.trained()
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(start[name])
        for weight in trained.values():
            weight.requires_grad_(True)
        rate, decay = settings.distill_rate, settings.distill_decay
        # Adam moves every weight by its rate at once: weights of pixels by less, the larger pixels are.
        of_pixels = self._student.weights_of_pixels()
        sizes = [self._pixels if name in of_pixels else 1.0 for name in trained]
        groups = [
            {"params": [weight], "lr": rate / size, "weight_decay": decay * size}
            for weight, size in zip(trained.values(), sizes, strict=True)
        ]
        optimiser = torch.optim.AdamW(groups)
        # The first steps are small ones.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [rate / size for size in sizes], total_steps=steps, pct_start=0.15
        )
        for step in range(steps):
            images = transfer.batch(step, self._size).to(self.device)
            with torch.no_grad():
                wanted = self._teacher(images)
            optimiser.zero_grad()
            torch.autograd.backward([distance(self._student(images), wanted, hints)])
            optimiser.step()
            schedule.step()
            reporter.advance()
        for weight in trained.values():
            weight.requires_grad_(False)


def matched_values(graph: Graph, space: ChannelSpace) -> dict[str, str]:
    """The values that are matched, and under which name modules carry statistics of their channels.

    What dense layers read, and the features: before they are averaged over their positions, where they are.
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
class _Observation:
    """Of a batch: centred `margins` (batch, rows), None for features with positions; `values` (batch,
    channels, …) by name."""

    margins: Tensor | None
    values: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Observed:
    """A network with its rows; `axes` says in which dimension each value that is matched has its channels."""

    runner: Runner
    scored: ScoredNetwork
    axes: Mapping[str, int]

    def __call__(self, images: Tensor) -> _Observation:
        output = self.runner.network.graph.output
        observed = self.runner.observe(images, [*self.axes, output])
        values = {name: observed[name].movedim(axis, 1) for name, axis in self.axes.items()}
        if observed[output].dim() != 2:
            return _Observation(None, values)
        scores = observed[output] @ self.scored.weight.T + self.scored.bias
        return _Observation(scores - scores.mean(1, keepdim=True), values)

    def trained(self) -> dict[str, Tensor]:
        """The parameters of layers that have weights, by the names of their tensors."""
        network = self.runner.network
        nodes = (node for node in network.graph.nodes if node.op in ("conv2d", "linear"))
        names = dict.fromkeys(name for node in nodes for name in node.tensors.values())
        return {name: self.runner.parameter(name) for name in names}

    def weights_of_pixels(self) -> set[str]:
        """Names of the weights that multiply the image itself."""
        graph = self.runner.network.graph
        nodes = (node for node in graph.nodes if node.op in ("conv2d", "linear"))
        return {node.tensors["weight"] for node in nodes if graph.input in node.inputs}

    def weights(self) -> dict[str, Tensor]:
        """Copies of them."""
        return {name: weight.detach().clone().contiguous() for name, weight in self.trained().items()}


def _or_one(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.ones_like(value))


@dataclass(frozen=True, slots=True)
class _Distance:
    """How far a student is from its teacher; 1 for each term if it knew nothing but means.

    `scale` is E|m*|². `weights` (channels kept, 1…) by value: s_c over the denominator of its term.
    """

    scale: Tensor
    weights: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        observations: Sequence[_Observation],
        kept: Mapping[str, Tensor],
        sensitivity: Mapping[str, NDArray[np.float64]],
    ) -> _Distance:
        """From what the teacher does on some batches."""
        margins = [observation.margins for observation in observations if observation.margins is not None]
        scale = _or_one(torch.cat(margins).square().mean()) if margins else torch.ones(())
        weights = {}
        for name, channels in kept.items():
            value = torch.cat([observation.values[name] for observation in observations])
            value = value.index_select(1, channels)
            spread = value.transpose(0, 1).flatten(1).var(1, correction=0)
            weight = torch.ones_like(spread)
            if name in sensitivity:
                weight = torch.from_numpy(sensitivity[name]).to(spread)[channels]
            weight = weight / _or_one((weight * spread).sum())
            weights[name] = weight.reshape(-1, *[1] * (value.dim() - 2))
        return cls(scale, weights, kept)

    def __call__(self, student: _Observation, teacher: _Observation, hints: float = 0.0) -> Tensor:
        """Of the margins, where there are some, and `hints` times that of the values."""
        total = torch.zeros((), device=self.scale.device)
        if student.margins is not None and teacher.margins is not None:
            total = (student.margins - teacher.margins).square().mean() / self.scale
        if hints or student.margins is None:
            terms = [self._of_value(name, student, teacher) for name in self.kept]
            total = total + (hints or 1.0) * torch.stack(terms).mean()
        return total

    def _of_value(self, name: str, student: _Observation, teacher: _Observation) -> Tensor:
        value = student.values[name]
        error = (value - teacher.values[name].index_select(1, self.kept[name])).square()
        return (error * self.weights[name]).mean((0, *range(2, value.dim()))).sum()
