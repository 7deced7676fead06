"""What the parent answers when some of its channels are set to zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.calibration.margins import margin_of
from modhub.decomposition.masked_trunk import MaskedTrunk
from modhub.decomposition.samples import sample_of
from modhub.decomposition.workbench import Workbench


def class_profiles(bench: Workbench) -> NDArray[np.float64]:
    """(slots, classes) the mean of each slot on images of every wanted class, less the mean over the classes
    where there are several; summed over the values that it stands in."""
    profiles = np.zeros((bench.space.slots, len(bench.rows)))
    for place, row in enumerate(bench.rows):
        for value, moments in bench.statistics(row, covariances=False).moments.items():
            slots = bench.space.of(value)
            there = slots >= 0
            np.add.at(profiles[:, place], slots[there], moments.mean[there])
    return profiles - profiles.mean(1, keepdims=True) if len(bench.rows) > 1 else profiles


def contributions(
    bench: Workbench, clusters: Sequence[NDArray[np.int64]], images: int
) -> dict[int, NDArray[np.float64]]:
    """By wanted row (slots,): the mean change of the class's margin on its images when the cluster of the
    slot is set to zero, per slot of the cluster."""
    sample = sample_of(bench, images)
    trunk = MaskedTrunk(bench.parent, bench.space, bench.options.torch_device)
    targets = torch.from_numpy(sample.targets)
    own = {row: targets == row for row in bench.rows}

    def margins(mask: torch.Tensor) -> dict[int, torch.Tensor]:
        parts = sample.images.split(bench.options.batch)
        logits = torch.cat([trunk.logits(part, mask).cpu() for part in parts])
        return {row: margin_of(logits[own[row]], row).double() for row in bench.rows}

    worth = {row: np.zeros(bench.space.slots) for row in bench.rows}
    with torch.inference_mode():
        unmutated = margins(torch.ones(bench.space.slots))
        for slots in bench.reporter.track(clusters, "run mutants", len(clusters)):
            mask = torch.ones(bench.space.slots)
            mask[slots] = 0
            for row, mutated in margins(mask).items():
                worth[row][slots] = float((mutated - unmutated[row]).abs().mean()) / len(slots)
    return worth
