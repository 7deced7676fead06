"""The images that a caller gives to tune on, and what the parent says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.data import ImageSet
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess
from modhub.nets import Network


@dataclass(frozen=True, slots=True)
class TuningSet:
    """Images to tune on; their labels are not looked at.

    `positive` (images,) is what the parent says of each, where both sides are to be fitted on alike: whether
    a class that is composed alone is there, or whether the image is of one of the composed classes. None
    elsewhere. `synthetic` are normalised images in place of a side that hardly any image is on.
    """

    images: ImageSet
    positive: NDArray[np.bool_] | None = None
    synthetic: Tensor | None = None

    def outnumbered(self, settings: FitSettings = DEFAULT_SETTINGS) -> bool:
        """Whether the positive images are the fewer, but not hardly any."""
        if self.positive is None:
            return False
        count = int(self.positive.sum())
        return settings.side_images <= count < len(self.positive) - count

    def lacking(self, settings: FitSettings = DEFAULT_SETTINGS) -> bool | None:
        """The side that hardly any image is on, True for the positive one; None where there are enough on
        both, or sides are not known."""
        if self.positive is None:
            return None
        count = int(self.positive.sum())
        least = settings.side_images
        return None if min(count, len(self.positive) - count) >= least else count < least

    def split(self, every: int) -> tuple[TuningSet, TuningSet]:
        """One image in `every`, to measure on, and the others."""
        real = every_nth(len(self.images), every)
        synthetic = every_nth(0 if self.synthetic is None else len(self.synthetic), every)
        test, rest = (
            TuningSet(
                self.images.subset(indices),
                None if self.positive is None else self.positive[indices],
                None if self.synthetic is None else self.synthetic[synthetic_indices],
            )
            for indices, synthetic_indices in zip(real, synthetic, strict=True)
        )
        return test, rest

    def normalised(self, preprocess: Preprocess, most: int, batch: int) -> Tensor:
        """(images, channels, height, width): at most `most`, and all synthetic ones."""
        images = normalised(self.images.subset(range(min(len(self.images), most))), preprocess, batch)
        return images if self.synthetic is None else torch.cat([images, self.synthetic])


def images_to_refit(trunk: Network, settings: FitSettings) -> int:
    """How many images the layers of a slim network are refitted on at most, fewer of large ones."""
    largest = max(math.prod(shape) for shape in trunk.graph.shapes.values())
    affordable = settings.refit_memory // (4 * (1 + settings.refit_copies) * largest)
    return max(10, min(settings.refit_images, affordable))


def images_to_classify(images: ImageSet, trunk: Network, seed: int, settings: FitSettings) -> ImageSet:
    """Those of `images` that the parent classifies, of every label as many."""
    most = settings.parent_images * images_to_refit(trunk, settings)
    return images.sample(max(most // max(len(images.labels), 1), 1), seed)


def normalised(images: ImageSet, preprocess: Preprocess, batch: int, *, seed: int | None = None) -> Tensor:
    """(images, channels, height, width); augmented copies with a `seed`."""
    batches = []
    with torch.inference_mode():
        for number, (pixels, _) in enumerate(images.batches(batch)):
            if seed is not None:
                pixels = augmented(pixels, seed * 1_000_003 + number)
            batches.append(preprocess(pixels))
    return torch.cat(batches).clone()


def every_nth(count: int, every: int, kinds: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of one image in `every`, and of the others; where images are of so many interleaved `kinds`, of
    every kind as many."""
    place = np.arange(count)
    # Where one in so many would always be of the same kinds, a whole round is taken.
    taken = (place if math.gcd(every, kinds) == 1 else place // kinds) % every == 0
    return place[taken], place[~taken]
