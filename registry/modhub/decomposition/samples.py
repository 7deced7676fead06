"""Images that a search looks at again and again: some to choose by, or held-out ones to judge on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.data import ImageSet
from modhub.data.disk_tensor import DiskTensor
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.held_out import MEMORY
from modhub.decomposition.workbench import Workbench
from modhub.nets import Mask, Runner, fuse_batch_norm, head_logits
from modhub.pruning.compensation import cut
from modhub.pruning.statistics import ClassStatistics


@dataclass(frozen=True, slots=True)
class Sample:
    """Normalised `images` (images, channels, height, width) and their `targets` (images,), as labels."""

    images: DiskTensor
    targets: NDArray[np.int64]

    def batches(
        self, size: int, draw: np.random.Generator, among: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """The images `among` (indices; None: all) in a random order, with their indices."""
        order = draw.permutation(len(self.targets) if among is None else among)
        for start in range(0, len(order), size):
            indices = np.sort(order[start : start + size])
            yield self.images[indices], indices


def sample_of(bench: Workbench, per_class: int) -> Sample:
    """Images to choose by, `per_class` or as many as memory allows: of the wanted classes where they are
    several, else of all."""
    options, spec = bench.options, bench.parent.input
    shape = spec.channels, spec.height, spec.width

    def read(images: ImageSet) -> Sample:
        if len(bench.rows) > 1:
            images = images.subset(np.flatnonzero(np.isin(images.targets, bench.rows)))
        room = MEMORY // (4 * spec.channels * spec.height * spec.width)
        images = images.sample(max(1, min(per_class, room // np.unique(images.targets).size)), options.seed)
        rows = DiskTensor(len(images), shape, MEMORY)
        targets: list[NDArray[np.int64]] = []
        preprocess = Preprocess(spec)
        for pixels, indices in images.batches(options.batch):
            rows.put(sum(map(len, targets)), preprocess(pixels))
            targets.append(images.targets[indices])
        return Sample(rows, np.concatenate(targets))

    return bench.reading(read)


def validation_sample(bench: Workbench, per_class: int) -> Sample:
    """Held-out images that choices may be judged on, plain ones, `per_class` at most: of the wanted classes
    where they are several, else of all. None of them is a test image."""
    held = bench.validation.held
    usable = np.flatnonzero(held.validation[: held.plain])
    targets = held.targets[usable]
    wanted = np.unique(targets) if len(bench.rows) == 1 else np.array(bench.rows)
    chosen = np.sort(np.concatenate([usable[targets == row][:per_class] for row in wanted]))
    images = held.images[chosen]
    rows = DiskTensor(len(images), images.shape[1:], MEMORY)
    rows.put(0, images)
    return Sample(rows, held.targets[chosen])


def logits_of(bench: Workbench, sample: Sample, mask: Mask, statistics: ClassStatistics | None) -> Tensor:
    """(images, labels) of the parent cut to `mask`, with `statistics` made up for."""
    head, device = bench.parent.head, bench.options.torch_device
    sliced, weight, bias = cut(bench.parent.trunk, mask, bench.space, statistics, head.weight, head.bias)
    runner = Runner(fuse_batch_norm(sliced)).to(device)
    with torch.inference_mode():
        return torch.cat(
            [
                head_logits(runner(batch.to(device)).cpu(), weight, bias, head.tail)
                for batch in sample.images.split(bench.options.batch)
            ]
        )
