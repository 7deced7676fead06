"""The transfer set of a distillation (Hinton et al. 2015, arXiv 1503.02531, §1): images on which a slim
network learns to do as its parent does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.data import ImageSet
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess

__all__ = ["Imagined", "Mixed", "Pictures", "TransferSet"]

_PLAIN = 4
"""One in so many pictures of a batch is not changed."""


class TransferSet(Protocol):
    """Images in endless batches; `rounds` is how often each is worth seeing, at most."""

    rounds: ClassVar[int]

    def __len__(self) -> int: ...

    def batch(self, step: int, size: int) -> Tensor:
        """At most `size` normalised images (batch, channels, height, width) on the CPU; the same for the same
        `step`."""
        ...


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures that are read when they are drawn, and changed anew each time (see `augmented`).

    `chances` (images,) say how often each is drawn; None: all alike.
    """

    images: ImageSet
    preprocess: Preprocess
    seed: int
    chances: NDArray[np.float64] | None = None
    rounds: ClassVar[int] = 80

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int) -> Tensor:
        chosen = _drawn(len(self), size, self.seed, step, self.chances)
        plain, changed = chosen[::_PLAIN], np.delete(chosen, np.s_[::_PLAIN])
        with torch.inference_mode():
            found = [self.preprocess(pixels) for pixels, _ in self.images.subset(plain).batches(size)]
            for number, (pixels, _) in enumerate(self.images.subset(changed).batches(size)):
                copies = augmented(pixels, (self.seed * 1_000_003 + step) * size + number)
                found.append(self.preprocess(copies))
        return torch.cat(found).clone()


@dataclass(frozen=True, slots=True)
class Imagined:
    """Normalised synthetic images (images, channels, height, width), mirrored or not."""

    images: Tensor
    seed: int
    rounds: ClassVar[int] = 30

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int) -> Tensor:
        chosen = torch.from_numpy(_drawn(len(self), size, self.seed, step))
        half = len(chosen) // 2
        return torch.cat([self.images[chosen[:half]].flip(3), self.images[chosen[half:]]])


@dataclass(frozen=True, slots=True)
class Mixed:
    """Two sets in one, half of a batch from each."""

    first: TransferSet
    second: TransferSet
    rounds: ClassVar[int] = 30

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batch(self, step: int, size: int) -> Tensor:
        half = size // 2
        return torch.cat([self.first.batch(step, size - half), self.second.batch(step, half)])


def _drawn(
    count: int, size: int, seed: int, step: int, chances: NDArray[np.float64] | None = None
) -> NDArray[Any]:
    draw = np.random.default_rng([seed, step])
    return draw.choice(count, min(size, count), replace=False, p=chances)
