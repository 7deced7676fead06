"""One streaming pass over the images of many classes: sums per class and, for large trunks, one for all.

A trunk with few enough channels has second moments for every class. A larger one has them summed
over the classes while the images stream by, each class with the same weight; its classes keep means,
deviations and sensitivities. Either way memory does not grow with the number of images.

Images of several small classes share a batch. Batches are numbered and interleaved over the processes.
Every term is float32 and every sum float64, so the sums hardly ever depend on who added what first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.margins import margin_head, margins_of_targets
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.data.texture import texture, texture_size
from modhub.nets import ChannelSpace, Graph, Head, Runner, head_logits
from modhub.pruning.sensitivity import SensitivitySums, over_positions, sensitivity_sums
from modhub.pruning.statistics import (
    CHANNEL_LIMIT,
    ClassStatistics,
    Moments,
    by_channel,
    observed_values,
)
from modhub.workers import Workers


def correlation_numbers(graph: Graph, space: ChannelSpace) -> int:
    """How many correlations the statistics of one class of this trunk have."""
    sizes = [len(space.of(name)) for name in observed_values(graph, space)]
    return sum(size * (size - 1) // 2 for size in sizes if size <= CHANNEL_LIMIT)


def chunks_of(rows: Sequence[int], counts: Sequence[int], batch: int) -> list[list[int]]:
    """`rows` in order, together as long as their images (`counts`, by row) fill no more than one batch."""
    chunks: list[list[int]] = []
    room = 0
    for row in rows:
        if counts[row] > room:
            chunks.append([])
            room = batch
        chunks[-1].append(row)
        room -= counts[row]
    return chunks


@dataclass(slots=True)
class PooledSums:
    """Over classes of the same weight, by value: the sum of their means (channels,) and of their second
    moments (channels, channels); of very wide values (channels,). `classes` counts those in the means."""

    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)
    classes: int = 0

    def moments(self) -> dict[str, Moments]:
        """The moments of the mixture."""
        moments = {}
        for name, first in self.first.items():
            mean = (first / self.classes).numpy()
            covariance = (self.second[name] / self.classes).numpy()
            covariance -= mean**2 if covariance.ndim == 1 else np.outer(mean, mean)
            moments[name] = Moments(mean, covariance)
        return moments


@dataclass(slots=True)
class _Sums:
    """Of the classes of one chunk, by value: (classes, channels), second moments (classes, channels, …)."""

    first: dict[str, Tensor]
    square: dict[str, Tensor]
    slopes: dict[str, SensitivitySums]
    second: dict[str, Tensor]
    textures: tuple[Tensor, Tensor]
    """First (classes, numbers) and second moments of `modhub.data.texture`."""

    def all(self) -> Iterator[Tensor]:
        for part in (self.first, self.square, self.second):
            yield from part.values()
        for slopes in self.slopes.values():
            yield slopes.sums
        yield from self.textures


class StreamingMoments:
    """Sums over the classes of `images` (targets are rows of `head`), with second moments `per_class` or
    pooled over the classes.

    With several processes every call of `observe` is made by all of them, in the same order.
    """

    def __init__(
        self,
        runner: Runner,
        head: Head,
        space: ChannelSpace,
        images: ImageSet,
        preprocess: Preprocess,
        *,
        per_class: bool,
        batch: int,
        device: torch.device,
        workers: Workers,
    ) -> None:
        self.graph = runner.network.graph
        self.runner, self.head, self.images, self.preprocess = runner, head, images, preprocess
        self.per_class, self.batch, self.device, self.workers = per_class, batch, device, workers
        self.values = observed_values(self.graph, space)
        self.layouts = {name: space.of(name) for name in self.values}
        self.channels = {name: len(layout) for name, layout in self.layouts.items()}
        self.positions = {
            name: math.prod(self.graph.shapes[name]) // self.channels[name] for name in self.values
        }
        self.axis = {name: 1 + space.axis(name) for name in self.values}
        self.weight, self.bias = head.weight.to(device), head.bias.to(device)
        self.places = [np.flatnonzero(images.targets == row) for row in range(len(head.weight))]
        self.pooled = PooledSums()
        if not per_class:
            for name, size in self.channels.items():
                shape = (size, size) if size <= CHANNEL_LIMIT else (size,)
                self.pooled.first[name] = torch.zeros(size, dtype=torch.float64)
                self.pooled.second[name] = torch.zeros(shape, dtype=torch.float64)

    def observe(self, rows: Sequence[int], turn: int = 0) -> list[ClassStatistics]:
        """One pass over the images of `rows`, batches counted from `turn` on; without second moments per
        class the covariances are diagonals, and `pooled` grows."""
        sums = self._zeros(len(rows))
        counts = np.array([len(self.places[row]) for row in rows], np.int64)
        chosen = np.concatenate([self.places[row] for row in rows])
        for number, start in enumerate(range(0, len(chosen), self.batch), turn):
            if self.workers.mine(number):
                part = self.images.subset(chosen[start : start + self.batch])
                for pixels, indices in part.batches(self.batch):
                    self._add(sums, self.preprocess(pixels), part.targets[indices], rows, counts)
        self.workers.sum(sums.all())
        return self._finished(sums, counts)

    def _zeros(self, classes: int) -> _Sums:
        def zeros(name: str) -> Tensor:
            return torch.zeros(classes, self.channels[name], dtype=torch.float64)

        first, square = ({name: zeros(name) for name in self.values} for _ in range(2))
        slopes = {
            name: sensitivity_sums(self.graph, layout, classes) for name, layout in self.layouts.items()
        }
        second = {
            name: torch.zeros(classes, size, size, dtype=torch.float64)
            for name, size in self.channels.items()
            if self.per_class and size <= CHANNEL_LIMIT
        }
        size = texture_size(*self.graph.input_shape)
        looks = torch.zeros(classes, size, dtype=torch.float64)
        return _Sums(first, square, slopes, second, (looks, looks[:, :, None].repeat(1, 1, size)))

    def _add(
        self,
        sums: _Sums,
        batch: Tensor,
        targets: NDArray[np.int64],
        rows: Sequence[int],
        counts: NDArray[np.int64],
    ) -> None:
        place = torch.tensor([rows.index(int(target)) for target in targets])
        looks = texture(self.preprocess.pixels(batch)).double()
        sums.textures[0].index_add_(0, place, looks)
        sums.textures[1].index_add_(0, place, looks[:, :, None] * looks[:, None])
        wanted = list(dict.fromkeys((*self.values, self.graph.output)))
        values = self.runner.observe(batch.to(self.device).requires_grad_(), wanted)
        total = self._margin_sum(values[self.graph.output], torch.from_numpy(targets))
        slopes = torch.autograd.grad(total, [values[name] for name in wanted])
        for name, gradient in zip(wanted, slopes, strict=True):
            if name not in self.channels:
                continue
            value = values[name].detach().movedim(self.axis[name], 1)
            steep = gradient.movedim(self.axis[name], 1)
            sums.slopes[name].add(value, steep, place)
            for sum_, per_image in ((sums.first, value), (sums.square, value.square())):
                sum_[name].index_add_(0, place, over_positions(per_image).double().cpu())
            if self.per_class and name in sums.second:
                for number in sorted(set(place.tolist())):
                    flat = by_channel(value[(place == number).to(value.device)])
                    sums.second[name][number] += (flat.T @ flat).cpu()
            elif not self.per_class and self.channels[name] <= CHANNEL_LIMIT:
                # Scaled so that a product of all samples adds up to a mean per class, whatever its images.
                scale = torch.from_numpy((counts[place.numpy()] * self.positions[name]) ** -0.5)
                flat = by_channel(value * scale.to(value).view(-1, *[1] * (value.dim() - 1)))
                self.pooled.second[name] += (flat.T @ flat).cpu()

    def _margin_sum(self, features: Tensor, targets: Tensor) -> Tensor:
        """Over the images, the margin of each one's own class: its row minus the mean of the others."""
        targets = targets.to(self.device)
        if not self.head.tail:
            return margins_of_targets(head_logits(features, self.weight, self.bias), targets).sum()
        total = torch.zeros((), device=self.device)
        for row in sorted(set(targets.tolist())):
            head = one_against_rest_head(self.weight, self.bias, row)
            total = total + margin_head(head, self.head.tail)(features[targets == row]).sum()
        return total

    def _finished(self, sums: _Sums, counts: NDArray[np.int64]) -> list[ClassStatistics]:
        statistics = []
        for number, images in enumerate(counts.tolist()):
            moments, sensitivity = {}, {}
            for name in self.values:
                samples = images * self.positions[name]
                mean = (sums.first[name][number] / samples).numpy()
                if name in sums.second:
                    covariance = (sums.second[name][number] / samples).numpy() - np.outer(mean, mean)
                else:
                    covariance = (sums.square[name][number] / samples).numpy() - mean**2
                moments[name] = Moments(mean, covariance)
                sensitivity[name] = sums.slopes[name].sensitivity(
                    mean, moments[name].variance, images, number
                )
                if not self.per_class:
                    self.pooled.first[name] += torch.from_numpy(mean)
                    if self.pooled.second[name].dim() == 1 and self.workers.first:
                        self.pooled.second[name] += sums.square[name][number] / samples
            mean, square = ((part[number] / images).numpy() for part in sums.textures)
            looks = Moments(mean, square - np.outer(mean, mean))
            statistics.append(ClassStatistics(moments, sensitivity, looks))
        self.pooled.classes += len(statistics)
        return statistics
