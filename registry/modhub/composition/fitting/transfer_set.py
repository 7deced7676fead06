"""The transfer set of a distillation (Hinton et al. 2015, arXiv 1503.02531, §1): images on which a slim
network learns to do as its parent does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.data import ImageSet
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess


class TransferSet(Protocol):
    """Images in endless batches; `epochs` is how often each is worth seeing, at most."""

    @property
    def epochs(self) -> int: ...

    def __len__(self) -> int: ...

    def batch(self, step: int, size: int) -> Tensor:
        """At most `size` normalised images (batch, channels, height, width) on the CPU; the same for the same
        `step`."""
        ...


@dataclass(frozen=True, slots=True)
class ImageTransferSet:
    """Images that are read when they are drawn, and augmented anew each time (see `augmented`).

    `chances` (images,) say how often each is drawn; None: all alike.
    """

    images: ImageSet
    preprocess: Preprocess
    seed: int
    chances: NDArray[np.float64] | None = None
    settings: FitSettings = field(default=DEFAULT_SETTINGS, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def epochs(self) -> int:
        return self.settings.image_epochs

    def batch(self, step: int, size: int) -> Tensor:
        drawn = _drawn(len(self), size, self.seed, step, self.chances)
        every = self.settings.plain_every
        plain, changed = drawn[::every], np.delete(drawn, np.s_[::every])
        with torch.inference_mode():
            parts = [self.preprocess(pixels) for pixels, _ in self.images.subset(plain).batches(size)]
            for number, (pixels, _) in enumerate(self.images.subset(changed).batches(size)):
                copies = augmented(pixels, (self.seed * 1_000_003 + step) * size + number)
                parts.append(self.preprocess(copies))
        return torch.cat(parts).clone()


@dataclass(frozen=True, slots=True)
class SyntheticTransferSet:
    """Normalised synthetic images (images, channels, height, width), mirrored or not."""

    images: Tensor
    seed: int
    settings: FitSettings = field(default=DEFAULT_SETTINGS, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def epochs(self) -> int:
        return self.settings.synthetic_epochs

    def batch(self, step: int, size: int) -> Tensor:
        drawn = torch.from_numpy(_drawn(len(self), size, self.seed, step))
        half = len(drawn) // 2
        return torch.cat([self.images[drawn[:half]].flip(3), self.images[drawn[half:]]])


@dataclass(frozen=True, slots=True)
class MixedTransferSet:
    """Two sets in one, half of a batch from each; at least one of them is synthetic."""

    first: TransferSet
    second: TransferSet

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def epochs(self) -> int:
        return min(self.first.epochs, self.second.epochs)

    def batch(self, step: int, size: int) -> Tensor:
        half = size // 2
        return torch.cat([self.first.batch(step, size - half), self.second.batch(step, half)])


def _drawn(
    count: int, size: int, seed: int, step: int, chances: NDArray[np.float64] | None = None
) -> NDArray[Any]:
    draw = np.random.default_rng([seed, step])
    return draw.choice(count, min(size, count), replace=False, p=chances)
