"""What a class does to a trunk: moments of its channels and how much the class's margin hangs on them.

For the class's images and for every value that a dense layer reads, with each position of each image as one
sample of the channels x (channels,): the mean E[x], the covariance E[xxᵀ] − E[x]E[x]ᵀ, and the sensitivity
(`modhub.pruning.sensitivity`). Sums are kept, never activations, so memory does not grow with the number of
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.tensors import TextureStatistics, ValueStatistics, statistics_key
from modhub.errors import IntegrityError
from modhub.nets import ChannelSpace, Graph, Runner, Site, sites
from modhub.pruning.sensitivity import sensitivity_sums

CORRELATION_LIMIT = 1 << 18
"""Numbers of correlation that one module carries; a larger trunk keeps them pooled over its classes, once."""

CHANNEL_LIMIT = 2048
"""A value with more channels than this has means and deviations only."""

Array: TypeAlias = NDArray[np.float64]


def positive(value: float) -> float:
    """`value`, which something is to be measured by or divided by; 1 where it is not above 0."""
    return float(value) if value > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (channels,) and covariance (channels, channels) of one value; a covariance of shape (channels,)
    is the diagonal of one whose other entries are not known."""

    mean: Array
    covariance: Array

    @property
    def variance(self) -> Array:
        return self.covariance if self.covariance.ndim == 1 else np.diagonal(self.covariance)

    def drawn(self, count: int, draw: np.random.Generator) -> Array:
        """(count, channels) draws from the normal distribution with these moments."""
        noise = draw.normal(size=(count, len(self.mean)))
        if self.covariance.ndim == 1:
            return np.asarray(self.mean + noise * np.sqrt(self.covariance.clip(0)))
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray(self.mean + (noise * np.sqrt(values.clip(0))) @ vectors.T)


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """By value name: the class's moments and the sensitivity (channels,) of its margin; `texture` of its
    images (`modhub.data.texture`), where it was looked at."""

    moments: Mapping[str, Moments]
    sensitivity: Mapping[str, Array]
    texture: Moments | None = None


def compensable_sites(graph: Graph, space: ChannelSpace) -> tuple[Site, ...]:
    """The layers that read a channel which can be cut, and mix channels.

    A linear layer over positions reads them, too, but every channel by itself.
    """
    cuttable = np.zeros(space.slots, np.bool_)
    for group in space.groups:
        cuttable[group.slots] = group.cuttable
    compensable = []
    for site in sites(graph):
        layout = space.of(site.channels)
        mixed = 0 if graph.node[site.consumer].op == "conv2d" else len(graph.shapes[site.value]) - 1
        if space.axis(site.value) == mixed and cuttable[layout[layout >= 0]].any():
            compensable.append(site)
    return tuple(compensable)


def observed_values(graph: Graph, space: ChannelSpace) -> tuple[str, ...]:
    """The values whose statistics a module carries: what compensable layers read, and the features."""
    values = dict.fromkeys(site.channels for site in compensable_sites(graph, space))
    values.setdefault(graph.output)
    return tuple(values)


def observe(
    runner: Runner,
    batches: Iterable[Tensor],
    space: ChannelSpace,
    answer: Callable[[Tensor], Tensor],
) -> ClassStatistics:
    """One pass over normalised images, of one class most often.

    `answer` makes of features (batch, …) the numbers (batch,) whose slopes are the sensitivity: the class's
    margin, see `modhub.calibration.margins.margin_head`.
    """
    graph = runner.network.graph
    values = observed_values(graph, space)
    slopes = {name: sensitivity_sums(graph, space.of(name)) for name in values}
    first: dict[str, Array] = {}
    second: dict[str, Array] = {}
    samples = dict.fromkeys(values, 0)
    images = 0
    for batch in batches:
        wanted = list(dict.fromkeys((*values, graph.output)))
        observed = runner.observe(batch.requires_grad_(), wanted)
        gradients = torch.autograd.grad(
            answer(observed[graph.output]).sum(), [observed[name] for name in wanted]
        )
        images += len(batch)
        for name, gradient in zip(wanted, gradients, strict=True):
            if name not in samples:
                continue
            value = observed[name].detach().movedim(1 + space.axis(name), 1)
            one_class = torch.zeros(len(batch), dtype=torch.int64)
            slopes[name].add(value, gradient.movedim(1 + space.axis(name), 1), one_class)
            flat = by_channel(value)
            wide = flat.shape[1] > CHANNEL_LIMIT
            _add(first, name, flat.sum(0))
            _add(second, name, flat.square().sum(0) if wide else flat.T @ flat)
            samples[name] += len(flat)
    moments = {}
    for name in values:
        mean = first[name] / samples[name]
        square = second[name] / samples[name]
        spread = square - (mean * mean if square.ndim == 1 else np.outer(mean, mean))
        moments[name] = Moments(mean, spread)
    sensitivity = {
        name: slopes[name].sensitivity(moments[name].mean, moments[name].variance, images) for name in values
    }
    return ClassStatistics(moments, sensitivity)


def by_channel(value: Tensor, axis: int = 0) -> Tensor:
    """A value whose channels are its dimension `axis`, the batch not counted, as (samples, channels)."""
    return value.movedim(1 + axis, -1).flatten(0, -2)


def _add(sums: dict[str, Array], name: str, term: Tensor) -> None:
    array = term.double().cpu().numpy()
    sums[name] = sums[name] + array if name in sums else array


def pool(moments: Sequence[Moments]) -> Moments:
    """The moments of a mixture in which every part has the same weight."""
    mean = np.mean([part.mean for part in moments], axis=0)
    if any(part.covariance.ndim == 1 for part in moments):
        squares = [part.variance + part.mean**2 for part in moments]
        return Moments(mean, np.mean(squares, axis=0) - mean**2)
    # One array is filled in place: a list of a hundred large matrices would not fit.
    second = np.zeros_like(moments[0].covariance)
    for part in moments:
        second += part.covariance
        second += np.outer(part.mean, part.mean)
    return Moments(mean, second / len(moments) - np.outer(mean, mean))


def pooled_statistics(statistics: Sequence[ClassStatistics]) -> ClassStatistics:
    """Of a set of classes: moments of the mixture, sensitivities summed."""
    names = statistics[0].moments
    return ClassStatistics(
        {name: pool([of_class.moments[name] for of_class in statistics]) for name in names},
        {name: np.sum([of_class.sensitivity[name] for of_class in statistics], axis=0) for name in names},
    )


def stored_statistics(statistics: ClassStatistics, *, correlations: bool) -> dict[str, ValueStatistics]:
    """By value, as a module carries them: float32 and, if wanted, correlations in float16."""
    packed = correlation_tensors(statistics.moments) if correlations else {}
    return {
        name: ValueStatistics(
            mean=_single(moments.mean),
            deviation=_single(np.sqrt(moments.variance.clip(0))),
            sensitivity=_single(statistics.sensitivity[name]),
            correlation=packed.get(name),
        )
        for name, moments in statistics.moments.items()
    }


def correlation_tensors(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """The packed correlations of every value whose covariances are known."""
    return {
        name: packed_correlation(moment) for name, moment in moments.items() if moment.covariance.ndim == 2
    }


def packed_correlation(moments: Moments) -> Tensor:
    """float16, the upper triangle of the correlations without the diagonal, row by row."""
    deviation = np.sqrt(moments.variance.clip(1e-24))
    triangle = np.triu_indices(len(deviation), 1)
    correlation = (moments.covariance / np.outer(deviation, deviation))[triangle]
    return torch.from_numpy(correlation.clip(-1, 1)).half()


def read_texture(stored: TextureStatistics, size: int) -> Moments:
    """The moments of the `size` numbers of `modhub.data.texture` over a class's images. Raises
    `IntegrityError` where they do not fit."""
    mean = _vector(stored.mean, "texture.mean", size)
    deviation = _vector(stored.deviation, "texture.deviation", size)
    pairs = _vector(stored.correlation, "texture.correlation", size * (size - 1) // 2)
    limit = float(_vector(stored.limit.reshape(-1), "texture.limit", 1)[0])
    if limit <= 0:
        raise IntegrityError(
            f"The tensor 'texture.limit' of a module is {limit:g}; a distance is more than 0.",
            hint="Decompose the parent again, or pull the module again.",
        )
    return Moments(mean, unpacked(pairs) * deviation[:, None] * deviation[None, :])


def read_statistics(
    stored: Mapping[str, ValueStatistics],
    pooled: Mapping[str, Tensor],
    graph: Graph,
    space: ChannelSpace,
) -> ClassStatistics | None:
    """The inverse of `stored_statistics`; correlations that a module does not have are the `pooled` ones of
    its trunk (`TrunkTensors.correlations`).

    None when the module carries no statistics. Raises `IntegrityError` when some are missing or do not fit.
    """
    values = observed_values(graph, space)
    by_value = {name: stored.get(name, ValueStatistics()) for name in values}
    if all(each.mean is None for each in by_value.values()):
        return None
    moments: dict[str, Moments] = {}
    sensitivity: dict[str, Array] = {}
    for name, each in by_value.items():
        channels = len(space.of(name))
        mean = _vector(each.mean, statistics_key(name, "mean"), channels)
        deviation = _vector(each.deviation, statistics_key(name, "deviation"), channels)
        slope = _vector(each.sensitivity, statistics_key(name, "sensitivity"), channels)
        packed = pooled.get(name) if each.correlation is None else each.correlation
        covariance: Array = deviation**2
        if packed is not None:
            pairs = _vector(packed, statistics_key(name, "correlation"), channels * (channels - 1) // 2)
            covariance = unpacked(pairs) * deviation[:, None] * deviation[None, :]
        moments[name] = Moments(mean, covariance)
        sensitivity[name] = slope
    return ClassStatistics(moments, sensitivity)


def unpacked(pairs: Array) -> Array:
    """The correlation matrix (channels, channels) of packed correlations, of the same type."""
    size = (1 + math.isqrt(1 + 8 * len(pairs))) // 2
    full: Array = np.eye(size, dtype=pairs.dtype)
    above = np.triu_indices(size, 1)
    full[above] = full[above[::-1]] = pairs
    return full


def _vector(tensor: Tensor | None, key: str, size: int) -> Array:
    if tensor is None or tensor.shape != (size,):
        shape = "missing" if tensor is None else f"{list(tensor.shape)}"
        raise IntegrityError(
            f"The tensor '{key}' of a module is {shape}; its trunk needs [{size}].",
            hint="Decompose the parent again, or pull the module again.",
        )
    return tensor.double().numpy()


def _single(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()
