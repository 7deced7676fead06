"""How often each channel of a trunk fires on images of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.dead_positions import judged_values
from modhub.decomposition.held_out import normalised
from modhub.decomposition.workbench import Workbench
from modhub.errors import ParentError
from modhub.nets import Runner, fuse_batch_norm


@dataclass(frozen=True, slots=True)
class FiringRates:
    """(slots,) each, on images of one class: the share of the `images` in which the channel fires anywhere,
    and the mean share of the `positions` at which it does. A slot that stands behind several rectifiers has
    the largest of their rates; one that stands behind none, 1."""

    images: NDArray[np.float64]
    positions: NDArray[np.float64]


def firing_rates(bench: Workbench) -> dict[int, FiringRates]:
    """Of every wanted class, by row, on the images to choose by. Raises `ParentError` for a trunk without a
    rectifier."""
    parent = bench.parent
    values = judged_values(parent.trunk.graph)
    if not values:
        raise ParentError(
            f"'{parent.name}' has no ReLU, so every channel of it fires on every image.",
            hint="Use the method 'relevance'.",
        )
    runner = Runner(fuse_batch_norm(parent.trunk)).to(bench.options.torch_device)

    def observed(_: ImageSet) -> dict[int, FiringRates]:
        rows = bench.reporter.track(bench.rows, "observe firing", len(bench.rows))
        return {row: _rates(bench, runner, row, values) for row in rows}

    return bench.reading(observed)


def _rates(bench: Workbench, runner: Runner, row: int, values: Sequence[str]) -> FiringRates:
    space, images = bench.space, bench.images_of(row)
    rates = np.full((2, space.slots), -1.0)
    sums = {value: np.zeros((2, len(space.of(value)))) for value in values}
    with torch.inference_mode():
        for batch in normalised(images, Preprocess(bench.parent.input), bench.options.batch):
            for value, numbers in runner.observe(batch.to(bench.options.torch_device), values).items():
                # (images, channels, positions)
                fired = numbers.movedim(1 + space.axis(value), 1) > 0
                fired = fired.reshape(*fired.shape[:2], -1)
                counts = [fired.any(2).sum(0).double(), fired.double().mean(2).sum(0)]
                sums[value] += torch.stack(counts).cpu().numpy()
    for value, counted in sums.items():
        slots = space.of(value)
        there = slots >= 0
        for part in range(2):
            np.maximum.at(rates[part], slots[there], counted[part, there] / len(images))
    rates[rates < 0] = 1.0
    return FiringRates(rates[0], rates[1])
