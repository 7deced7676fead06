"""Masks of several classes that are learned for being right together (GradSplitter)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.calibration.margins import margin_of
from modhub.decomposition.masked_trunk import MaskedTrunk, MaskLearner, target_loss
from modhub.decomposition.samples import Sample, sample_of
from modhub.decomposition.workbench import Workbench


def learn_class_masks(
    bench: Workbench, *, images: int, epochs: int, batch: int, rate: float, price: float
) -> dict[int, MaskLearner]:
    """By wanted row, the mask that its module learned on `images` per class, on its own and as many others.

    A step of one module is judged beside the last margins of all others, which start as the parent's.
    """
    sample, options, rows = sample_of(bench, images), bench.options, bench.rows
    trunk = MaskedTrunk(bench.parent, bench.space, options.torch_device)
    learners = {row: MaskLearner(trunk, rate=rate, price=price, seed=options.seed) for row in rows}
    margins = _parent_margins(trunk, sample, rows, options.batch)
    draw = np.random.default_rng(options.seed)
    for _ in bench.reporter.track(range(epochs), "learn the masks", epochs):
        for place, row in enumerate(rows):
            own = np.flatnonzero(sample.targets == row)
            others = draw.permutation(np.flatnonzero(sample.targets != row))[: len(own)]
            for pixels, indices in sample.batches(batch, draw, np.concatenate([own, others])):
                targets = torch.from_numpy(sample.targets[indices])
                beside = margins[indices]

                def loss(
                    logits: Tensor,
                    targets: Tensor = targets,
                    beside: Tensor = beside,
                    place: int = place,
                    row: int = row,
                ) -> Tensor:
                    if len(rows) == 1:
                        return target_loss(logits, targets, rows)
                    said = beside.to(logits.device)
                    said = torch.cat(
                        [said[:, :place], margin_of(logits, row)[:, None], said[:, place + 1 :]], 1
                    )
                    wanted = torch.tensor([rows.index(int(target)) for target in targets])
                    return F.cross_entropy(said, wanted.to(logits.device))

                margins[indices, place] = margin_of(learners[row].step(pixels, loss), row)
    return learners


def _parent_margins(trunk: MaskedTrunk, sample: Sample, rows: list[int], batch: int) -> Tensor:
    """(images, rows)"""
    full = torch.ones(trunk.space.slots)
    with torch.no_grad():
        logits = torch.cat([trunk.logits(part, full).cpu() for part in sample.images.split(batch)])
    return torch.stack([margin_of(logits, row) for row in rows], 1)
