"""The images on which masks are chosen, scores calibrated, and modules measured: never those of the fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.data import ImageSet
from modhub.decompose.augment import augmented
from modhub.decompose.calibration import PLAIN_WEIGHT
from modhub.decompose.rows import Rows
from modhub.preprocessing import Preprocess

__all__ = ["HeldOut", "normalised"]

_MEMORY = 256 << 20
"""Bytes of normalised calibration images that are kept in memory. Of larger sets fewer are used, but two of
each class; where even these are more they lie on disk."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Normalised images (channels, height, width), the plain ones first, then a harder copy of each.

    `measuring` marks the half of the images, plain ones only, that no choice looks at; the others choose.
    `weights` make a plain image count as `PLAIN_WEIGHT` to 1 − `PLAIN_WEIGHT` for its copy.
    """

    images: Rows
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]
    measuring: NDArray[np.bool_]

    @classmethod
    def read(cls, images: ImageSet, preprocess: Preprocess, seed: int, batch: int) -> HeldOut:
        """All of `images`, or as many per class as memory allows; mirrored copies are made too."""
        spec = preprocess.spec
        room = max(_MEMORY // (8 * spec.channels * spec.height * spec.width), 2 * len(images.labels))
        if len(images) > room:
            images = images.sample(max(room // len(images.labels), 2), seed)
        rows = Rows(2 * len(images), (spec.channels, spec.height, spec.width), _MEMORY)
        targets: list[NDArray[np.int64]] = []
        with torch.inference_mode():
            for number, (pixels, indices) in enumerate(images.batches(batch)):
                start = sum(map(len, targets))
                rows.put(start, preprocess(pixels))
                rows.put(len(images) + start, preprocess(augmented(pixels, seed * 1_000_003 + number)))
                targets.append(images.targets[indices])
        own = np.concatenate(targets)
        # Every other image of each class measures; of a single one there is nothing to spare.
        rank = np.zeros(len(own), np.int64)
        for label in np.unique(own):
            rank[own == label] = np.arange(int((own == label).sum()))
        measuring = rank % 2 == 1
        return cls(
            rows,
            np.concatenate([own, own]),
            np.repeat([PLAIN_WEIGHT, 1 - PLAIN_WEIGHT], len(own)),
            np.concatenate([measuring, np.zeros(len(own), np.bool_)]),
        )

    @property
    def choosing(self) -> NDArray[np.bool_]:
        """The images that choices look at: neither measuring ones nor copies of them."""
        half = len(self.targets) // 2
        copies = np.concatenate([np.zeros(half, np.bool_), self.measuring[:half]])
        return np.asarray(~(self.measuring | copies))

    def examination(self, label: int, negatives: int, seed: int) -> NDArray[np.int64]:
        """Indices of the choosing images of `label`, and of at most `negatives` others, drawn with `seed`."""
        choosing = self.choosing
        positive = np.flatnonzero(choosing & (self.targets == label))
        others = np.flatnonzero(choosing & (self.targets != label))
        drawn = np.random.default_rng([seed, label]).permutation(others)[:negatives]
        return np.sort(np.concatenate([positive, drawn]))


def normalised(images: ImageSet, preprocess: Preprocess, batch: int) -> Iterator[Tensor]:
    """All of `images` in batches, as the trunk eats them."""
    for pixels, _ in images.batches(batch):
        yield preprocess(pixels)
