"""Data-free (synthetic) images: dead leaves, moved until they do to the trunk what the modules' classes do.

Dead leaves (Lee, Mumford & Huang 2001) are random shapes that cover each other; their edges and scales are
those of photographs. A few dozen gradient steps then bring the mean and second moment of every observed value
to what the modules recorded for their class, and the class's score up (Yin et al. 2020, arXiv 1912.08795,
§3.2, with the modules' statistics in the place of batch-norm's). They are good enough to refit a slim network
on, so that a budget needs no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.data.preprocessing import Preprocess
from modhub.devices import CPU
from modhub.manifest import InputSpec
from modhub.nets import Network, Runner, channel_space
from modhub.pruning.statistics import ClassStatistics, Moments, by_channel
from modhub.reporter import SILENT, Reporter

_SIDE = 64
"""Leaves are drawn at most this large, and enlarged."""
_SHAPES = 60
"""Leaves of an image."""


def dead_leaves(count: int, height: int, width: int, seed: int) -> Tensor:
    """uint8 (count, 3, height, width)."""
    draw = np.random.default_rng(seed)
    rows, columns = min(height, _SIDE), min(width, _SIDE)
    images = np.stack([_leaves(rows, columns, draw) for _ in range(count)])
    values = torch.from_numpy(images).permute(0, 3, 1, 2)
    values = 0.6 * values + 0.4 * F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if (rows, columns) != (height, width):
        values = F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
    return values.clamp(0, 255).round().byte()


def _leaves(height: int, width: int, draw: np.random.Generator) -> NDArray[np.float32]:
    side = min(height, width)
    tone, spread = draw.uniform(40, 215), draw.uniform(20, 70)
    palette = (draw.normal(tone, spread, (6, 1)) + draw.normal(0, 25, (6, 3))).clip(0, 255)
    image = np.broadcast_to(draw.uniform(0, 255, 3), (height, width, 3)).astype(np.float32)
    leaves, colours = np.empty((7, _SHAPES, 1, 1)), np.empty((_SHAPES, 3))
    for number in range(_SHAPES):
        leaves[:, number, 0, 0] = (
            side * (1 + 8 * draw.random() ** 3) / 16,
            draw.uniform(-4, width + 4),
            draw.uniform(-4, height + 4),
            draw.uniform(0, np.pi),
            draw.uniform(0.4, 1),
            draw.random() < 0.6,
            draw.normal(0, 2),
        )
        colours[number] = palette[draw.integers(6)] + draw.normal(0, 8, 3)
    radius, place_x, place_y, angle, flat, is_round, slope = leaves
    cosine, sine = np.cos(angle), np.sin(angle)
    y, x = np.mgrid[:height, :width]
    along = (x - place_x) * cosine + (y - place_y) * sine
    across = ((y - place_y) * cosine - (x - place_x) * sine) / flat
    square = (np.abs(along) < radius) & (np.abs(across) < radius)
    inside = np.where(is_round, along**2 + across**2 < radius**2, square)
    covered = inside.any(0)
    # Of the leaves over a pixel the last one is seen.
    seen = (_SHAPES - 1 - inside[::-1].argmax(0))[covered]
    shade = along[seen, y[covered], x[covered]] * slope[seen, 0, 0]
    image[covered] = colours[seen] + shade[:, None]
    noise = draw.normal(0, draw.uniform(0, 8), image.shape)
    return np.asarray(image + noise, np.float32)


@dataclass(frozen=True, slots=True)
class SynthesisTarget:
    """What images of one class, or of a set of classes, should do to a trunk.

    `statistics` are moments of the trunk's values. `rows` (margins, features) and `bias` (margins,) give
    margins, of which each image should have one that is positive, interleaved; None for a set of classes.
    `seed` is what its images are drawn with, beside that of the composition.
    """

    statistics: ClassStatistics
    rows: Tensor | None = None
    bias: Tensor | None = None
    seed: int = 0


def batch_norm_statistics(trunk: Network) -> ClassStatistics | None:
    """What the trunk's batch norms gave out in training, on all classes together, by their names, which stay
    when they are fused (Yin et al. 2020). None without any; sensitivities are not known, and 0."""
    moments = {}
    for node in trunk.graph.nodes:
        if node.op == "batch_norm":
            tensors = trunk.of(node)
            variance = tensors["var"].double()
            scale = tensors.get("weight", torch.ones_like(variance)).double()
            shift = tensors.get("bias", torch.zeros_like(variance)).double()
            spread = scale.square() * variance / (variance + node.attributes["eps"])
            moments[node.name] = Moments(shift.numpy(), spread.numpy())
    if not moments:
        return None
    return ClassStatistics(moments, {name: np.zeros(len(moment.mean)) for name, moment in moments.items()})


def synthesize_images(
    trunk: Network,
    spec: InputSpec,
    target: SynthesisTarget,
    count: int,
    seed: int,
    reporter: Reporter = SILENT,
    *,
    device: torch.device = CPU,
    settings: FitSettings = DEFAULT_SETTINGS,
) -> Tensor:
    """Normalised images (count, channels, height, width) on the CPU, computed on `device`.

    Takes `synthesis_steps` passes forward and back, and advances by as many.
    """
    preprocess = Preprocess(spec)
    leaves = preprocess(dead_leaves(count, spec.height, spec.width, seed))
    images = leaves.to(device, copy=True).requires_grad_()
    goals = {
        name: _moments(moments, device)
        for name, moments in target.statistics.moments.items()
        if name != trunk.graph.output
    }
    space = channel_space(trunk)
    low, high = _ends(spec, device)
    rows, bias = (None if tensor is None else tensor.to(device) for tensor in (target.rows, target.bias))
    runner = Runner(trunk).to(device)
    unit = float(leaves.std()) or 1.0
    optimiser = torch.optim.Adam([images], settings.synthesis_rate * unit)
    draw = np.random.default_rng([seed, 1])
    for step in range(settings.synthesis_steps):
        optimiser.zero_grad()
        down, right = (int(shift) for shift in draw.integers(-2, 3, 2))
        shifted = torch.roll(images, (down, right), (2, 3))
        shifted = shifted.flip(3) if step % 2 else shifted
        values = runner.observe(shifted, [*goals, trunk.graph.output])
        features = values.pop(trunk.graph.output)
        samples = {name: by_channel(value, space.axis(name)) for name, value in values.items()}
        loss = _mismatch(samples, goals) * (10 / max(len(goals), 1))
        if rows is not None and bias is not None:
            features = features.mean((2, 3)) if features.dim() == 4 else features
            row = torch.arange(count, device=device) % len(rows)
            margin = (features * rows[row]).sum(1) + bias[row]
            loss = loss + 0.2 * F.softplus(-margin).mean()
        rough = (images[:, :, 1:] - images[:, :, :-1]).square().mean()
        rough = rough + (images[..., 1:] - images[..., :-1]).square().mean()
        torch.autograd.backward([loss + 0.02 * rough / unit**2])
        optimiser.step()
        with torch.no_grad():
            images.copy_(torch.minimum(torch.maximum(images, low), high))
        reporter.advance()
    synthetic: Tensor = images.detach().cpu()
    return synthetic


def _moments(moments: Moments, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """Mean (channels,), second moment (channels, channels) if known, mean square (channels,)."""
    mean = torch.from_numpy(moments.mean).float()
    square = torch.from_numpy(moments.variance.copy()).float() + mean**2
    square = square.clamp(min=1e-4 * (float(square.mean()) or 1.0))
    second = None
    if moments.covariance.ndim == 2:
        second = (torch.from_numpy(moments.covariance).float() + torch.outer(mean, mean)).to(device)
    return mean.to(device), second, square.to(device)


def _mismatch(
    samples: Mapping[str, Tensor], goals: Mapping[str, tuple[Tensor, Tensor | None, Tensor]]
) -> Tensor:
    """Of samples (samples, channels) by value."""
    total = torch.zeros(())
    for name, (mean, second, square) in goals.items():
        flat = samples[name]
        total = total + ((flat.mean(0) - mean).square() / square).mean()
        if second is not None:
            off = flat.T @ flat / len(flat) - second
            total = total + (off.square() / torch.outer(square, square)).mean()
    return total


def _ends(spec: InputSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """What black and white become, (1, channels, 1, 1)."""
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    low, high = spec.value_range
    ends = ((low - mean) / std).view(1, -1, 1, 1), ((high - mean) / std).view(1, -1, 1, 1)
    return ends[0].to(device), ends[1].to(device)
