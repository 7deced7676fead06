"""Images that no choice of channels is fitted on: validation, calibration and test images.

Each is decoded once, into a tensor that lies on disk where it is large, and the parent is asked about each
once (`ParentAnswers`).
"""

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
from modhub.data.disk_tensor import DiskTensor
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.nets import Head, Runner, head_logits
from modhub.workers import Workers

MEMORY = 256 << 20
"""Bytes of normalised held-out images that are kept in memory. Of larger sets fewer are used, but two of each
class; where even these are more they lie on disk."""
_MIRRORED = 100
"""Images on which the parent is asked whether mirrors change classes."""
_SAME_IN_MIRROR = 0.75
"""Of the plain images that it classifies correctly, so many it must in a mirror. A parent that never saw
mirrored images does so for fewer of them than of those it was trained on, and still for most."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Normalised `images` (2 · plain, channels, height, width), the plain ones first, then a harder copy
    of each.

    `targets`, `weights` and `test` are per image, `flipped` per copy. `test` marks the half of the plain
    images that measures; neither it nor its copies have a say in any choice. `weights` make a plain image
    count as `PLAIN_WEIGHT` to 1 − `PLAIN_WEIGHT` for its copy. `flipped` are the copies that are mirrored.
    `mirrors` are the mirror images of some plain ones, whose rows are `mirrored`.
    """

    images: DiskTensor
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]
    test: NDArray[np.bool_]
    flipped: NDArray[np.bool_]
    mirrors: DiskTensor
    mirrored: NDArray[np.int64]

    @classmethod
    def read(
        cls, images: ImageSet, parent: Parent, options: DecomposeOptions, *, memory: int = MEMORY
    ) -> HeldOut:
        """All of `images`, or as many per class as `memory` (bytes) allows; each is decoded once."""
        preprocess, seed, spec = Preprocess(parent.input), options.seed, parent.input
        shape = spec.channels, spec.height, spec.width
        classes = np.unique(images.targets).size
        room = max(memory // (8 * spec.channels * spec.height * spec.width), 2 * classes)
        if len(images) > room:
            images = images.sample(max(room // classes, 2), seed)
        in_mirror = evenly_spaced(np.arange(len(images)), _MIRRORED)
        rows, mirrors = DiskTensor(2 * len(images), shape, memory), DiskTensor(len(in_mirror), shape, memory)
        targets: list[NDArray[np.int64]] = []
        flipped: list[NDArray[np.bool_]] = []
        mirrored_rows: list[NDArray[np.int64]] = []
        with torch.inference_mode():
            for number, (pixels, indices) in enumerate(images.batches(options.batch)):
                start = sum(map(len, targets))
                rows.put(start, preprocess(pixels))
                rows.put(len(images) + start, preprocess(augmented(pixels, seed * 1_000_003 + number)))
                flipped.append(mirrored(len(pixels), seed * 1_000_003 + number).numpy())
                targets.append(images.targets[indices])
                if len(asked := np.flatnonzero(np.isin(indices, in_mirror))):
                    mirrors.put(sum(map(len, mirrored_rows)), preprocess(pixels[asked].flip(3)))
                    mirrored_rows.append(start + asked)
        plain = np.concatenate(targets)
        # Every other image of each class is for the test; of a single one there is nothing to spare.
        rank = np.zeros(len(plain), np.int64)
        for label in np.unique(plain):
            rank[plain == label] = np.arange(int((plain == label).sum()))
        return cls(
            images=rows,
            targets=np.concatenate([plain, plain]),
            weights=np.repeat([PLAIN_WEIGHT, 1 - PLAIN_WEIGHT], len(plain)),
            test=np.concatenate([rank % 2 == 1, np.zeros(len(plain), np.bool_)]),
            flipped=np.concatenate(flipped),
            mirrors=mirrors,
            mirrored=np.concatenate(mirrored_rows),
        )

    @property
    def plain(self) -> int:
        """How many plain images there are."""
        return len(self.targets) // 2

    @property
    def validation(self) -> NDArray[np.bool_]:
        """(images,) those that choices are validated and calibrated on: no test images or copies of them."""
        copies = np.concatenate([np.zeros(self.plain, np.bool_), self.test[: self.plain]])
        return np.asarray(~(self.test | copies))

    def threshold_weights(self, *, mirrors: bool) -> NDArray[np.float64]:
        """(images,) weights for what must be of its class. Where `mirrors` make other classes of images,
        as of digits, mirrored copies count nothing, and the others for them."""
        straight = np.ones(self.plain, np.bool_) if mirrors else ~self.flipped
        copies = (1 - PLAIN_WEIGHT) * straight / max(float(straight.mean()), 1e-9)
        return np.concatenate([np.full(self.plain, PLAIN_WEIGHT), copies])

    def sample(self, label: int, negatives: int, seed: int) -> NDArray[np.int64]:
        """Indices of the validation images of `label`, and of at most `negatives` others, drawn with
        `seed`."""
        validation = self.validation
        positive = np.flatnonzero(validation & (self.targets == label))
        others = np.flatnonzero(validation & (self.targets != label))
        drawn = np.random.default_rng([seed, label]).permutation(others)[:negatives]
        return np.sort(np.concatenate([positive, drawn]))


@dataclass(frozen=True, slots=True)
class ParentAnswers:
    """The whole parent's `logits` (images, labels) of held-out images, and those of their `mirrors`, on the
    CPU."""

    logits: Tensor
    mirrors: Tensor

    @classmethod
    def ask(
        cls, runner: Runner, head: Head, held: HeldOut, options: DecomposeOptions, workers: Workers
    ) -> ParentAnswers:
        """One pass of the parent, whose trunk runs in `runner`; batches are shared out among the
        processes."""
        return cls(
            _logits(runner, head, held.images, options, workers),
            _logits(runner, head, held.mirrors, options, workers),
        )

    def accuracy(self, held: HeldOut) -> float:
        """The share of the plain images that the parent classifies correctly."""
        return float((self.logits[: held.plain].argmax(1).numpy() == held.targets[: held.plain]).mean())

    def mirrors_keep_classes(self, held: HeldOut) -> bool:
        """Whether the parent is about as often right on mirrored images as on plain ones."""
        targets = held.targets[held.mirrored]
        plain = int((self.logits[held.mirrored].argmax(1).numpy() == targets).sum())
        return int((self.mirrors.argmax(1).numpy() == targets).sum()) >= _SAME_IN_MIRROR * plain

    def calibrator(self, held: HeldOut, head: Head) -> Calibrator:
        """Of the parent, on the validation images."""
        validation = held.validation
        weights = held.threshold_weights(mirrors=self.mirrors_keep_classes(held))
        return Calibrator(
            self.logits.double().numpy()[validation],
            held.targets[validation],
            held.weights[validation],
            weights[validation],
            # At every place of its features a whole head would cost as much as a layer.
            odds=not head.tail and len(head.bias) > 1,
        )


def _logits(
    runner: Runner, head: Head, images: DiskTensor, options: DecomposeOptions, workers: Workers
) -> Tensor:
    device = options.torch_device
    logits = torch.zeros(len(images), len(head.bias))
    with torch.inference_mode():
        for number, start in enumerate(range(0, len(images), options.batch)):
            if workers.mine(number):
                part = slice(start, start + options.batch)
                features = runner(images[part].to(device)).cpu()
                logits[part] = head_logits(features, head.weight, head.bias, head.tail)
    workers.sum([logits])
    return logits


def normalised(images: ImageSet, preprocess: Preprocess, batch: int) -> Iterator[Tensor]:
    """All of `images` in batches, as the trunk takes them."""
    for pixels, _ in images.batches(batch):
        yield preprocess(pixels)
