"""The images on which masks are chosen, scores calibrated, and modules measured: never those of the fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import PLAIN_WEIGHT, Calibrator
from modhub.data import ImageSet, evenly_spaced
from modhub.data.augment import augmented, mirrored
from modhub.data.disk_tensor import Rows
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.nets import Runner, fuse_batch_norm, head_logits

__all__ = ["HeldOut", "normalised"]

_MEMORY = 256 << 20
"""Bytes of normalised calibration images that are kept in memory. Of larger sets fewer are used, but two of
each class; where even these are more they lie on disk."""
_ASKED = 100
"""Images on which the parent is asked whether mirrors change classes."""
_ALIKE = 0.75
"""Of the plain images it knows, so many it must know in a mirror. A parent that never saw mirrored images
knows fewer of them than of those it was trained on, and still most."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Normalised images (channels, height, width), the plain ones first, then a harder copy of each.

    `measuring` marks the half of the images, plain ones only, that no choice looks at; the others choose.
    `weights` make a plain image count as `PLAIN_WEIGHT` to 1 − `PLAIN_WEIGHT` for its copy. `sure` are the
    same for what must be of its class: where mirrors make other classes of images, as of digits, the copies
    that stand in one count nothing, and the others for them.
    """

    images: Rows
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]
    sure: NDArray[np.float64]
    measuring: NDArray[np.bool_]

    @classmethod
    def read(cls, images: ImageSet, parent: Parent, options: DecomposeOptions) -> HeldOut:
        """All of `images`, or as many per class as memory allows; some copies are mirrored."""
        preprocess, seed, batch, spec = Preprocess(parent.input), options.seed, options.batch, parent.input
        classes = np.unique(images.targets).size
        room = max(_MEMORY // (8 * spec.channels * spec.height * spec.width), 2 * classes)
        if len(images) > room:
            images = images.sample(max(room // classes, 2), seed)
        rows = Rows(2 * len(images), (spec.channels, spec.height, spec.width), _MEMORY)
        targets: list[NDArray[np.int64]] = []
        turned: list[NDArray[np.bool_]] = []
        with torch.inference_mode():
            for number, (pixels, indices) in enumerate(images.batches(batch)):
                start = sum(map(len, targets))
                rows.put(start, preprocess(pixels))
                rows.put(len(images) + start, preprocess(augmented(pixels, seed * 1_000_003 + number)))
                turned.append(mirrored(len(pixels), seed * 1_000_003 + number).numpy())
                targets.append(images.targets[indices])
        own = np.concatenate(targets)
        # Every other image of each class measures; of a single one there is nothing to spare.
        rank = np.zeros(len(own), np.int64)
        for label in np.unique(own):
            rank[own == label] = np.arange(int((own == label).sum()))
        measuring = rank % 2 == 1
        straight = np.ones(len(own), np.bool_)
        if not _mirrors(parent, images, options):
            straight = ~np.concatenate(turned)
        return cls(
            rows,
            np.concatenate([own, own]),
            np.repeat([PLAIN_WEIGHT, 1 - PLAIN_WEIGHT], len(own)),
            np.concatenate(
                [
                    np.full(len(own), PLAIN_WEIGHT),
                    (1 - PLAIN_WEIGHT) * straight / max(float(straight.mean()), 1e-9),
                ]
            ),
            np.concatenate([measuring, np.zeros(len(own), np.bool_)]),
        )

    @property
    def choosing(self) -> NDArray[np.bool_]:
        """The images that choices look at: neither measuring ones nor copies of them."""
        half = len(self.targets) // 2
        copies = np.concatenate([np.zeros(half, np.bool_), self.measuring[:half]])
        return np.asarray(~(self.measuring | copies))

    def calibrator(self, parent: Parent, logits: Tensor) -> Calibrator:
        """Of the parent, by its `logits` (images, labels) of all these images, on the choosing ones."""
        choosing = self.choosing
        return Calibrator(
            logits.double().numpy()[choosing],
            self.targets[choosing],
            self.weights[choosing],
            self.sure[choosing],
            # At every place of its features a whole head would cost as much as a layer.
            odds=not parent.head.tail and len(parent.labels) > 1,
        )

    def examination(self, label: int, negatives: int, seed: int) -> NDArray[np.int64]:
        """Indices of the choosing images of `label`, and of at most `negatives` others, drawn with `seed`."""
        choosing = self.choosing
        positive = np.flatnonzero(choosing & (self.targets == label))
        others = np.flatnonzero(choosing & (self.targets != label))
        drawn = np.random.default_rng([seed, label]).permutation(others)[:negatives]
        return np.sort(np.concatenate([positive, drawn]))


def _mirrors(parent: Parent, images: ImageSet, options: DecomposeOptions) -> bool:
    """Whether the parent is about as often right on mirrored images as on plain ones."""
    sample = images.subset(evenly_spaced(np.arange(len(images)), _ASKED))
    preprocess, head = Preprocess(parent.input), parent.head
    runner = Runner(fuse_batch_norm(parent.trunk)).to(options.torch_device)
    right = [0, 0]
    with torch.inference_mode():
        for pixels, indices in sample.batches(options.batch):
            targets = torch.from_numpy(sample.targets[indices])
            for turn, seen in enumerate((pixels, pixels.flip(3))):
                features = runner(preprocess(seen).to(options.torch_device)).cpu()
                answers = head_logits(features, head.weight, head.bias, head.tail).argmax(1)
                right[turn] += int((answers == targets).sum())
    return right[1] >= _ALIKE * right[0]


def normalised(images: ImageSet, preprocess: Preprocess, batch: int) -> Iterator[Tensor]:
    """All of `images` in batches, as the trunk eats them."""
    for pixels, _ in images.batches(batch):
        yield preprocess(pixels)
