"""Images that are decoded once, however often fitting reads them."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.data import ImageSet

Pixels = NDArray[np.uint8]


def decoded_once(images: ImageSet, settings: FitSettings = DEFAULT_SETTINGS) -> ImageSet:
    """The same images, each read from its source when it is first needed and kept after that: in memory up to
    `settings.decoded_memory` bytes, beyond that in a temporary file, which goes with the set."""
    reader = _DecodedOnce(images, settings.decoded_memory)
    return ImageSet(images.name, images.split, images.labels, images.targets, reader, images.stamp)


class _DecodedOnce:
    """A `BatchReader` that keeps what it has read. Where the disk is full, images are read anew."""

    def __init__(self, images: ImageSet, memory: int) -> None:
        self._images, self._memory = images, memory
        self._kept: dict[int, Pixels] = {}
        self._places: dict[int, tuple[BinaryIO, int, tuple[int, ...]]] = {}
        self._file: BinaryIO | None = None
        self._size = 0

    def __call__(self, index: int, /) -> Pixels:
        return self.many([index])[0]

    def many(self, indices: Sequence[int], /) -> list[Pixels]:
        new = [
            index for index in dict.fromkeys(indices) if index not in self._kept and index not in self._places
        ]
        fresh = dict(zip(new, self._images.images(new), strict=True))
        for index, pixels in fresh.items():
            self._keep(index, pixels)
        return [fresh[index] if index in fresh else self._read(index) for index in indices]

    def _keep(self, index: int, pixels: Pixels) -> None:
        if pixels.nbytes <= self._memory:
            self._memory -= pixels.nbytes
            self._kept[index] = pixels
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="modhub-")  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            self._file.seek(self._size)
            self._file.write(pixels.tobytes())
            self._file.flush()
        except OSError:
            return
        self._places[index] = self._file, self._size, pixels.shape
        self._size += pixels.nbytes

    def _read(self, index: int) -> Pixels:
        if index in self._kept:
            return self._kept[index]
        file, start, shape = self._places[index]
        file.seek(start)
        return np.frombuffer(file.read(math.prod(shape)), np.uint8).reshape(shape)
