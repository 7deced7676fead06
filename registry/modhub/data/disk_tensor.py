"""Tensors larger than memory: what exceeds a limit lies in a temporary file."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DiskTensor:
    """A float32 tensor (count, *shape) on the CPU, in memory up to `limit` bytes, else on disk."""

    def __init__(self, count: int, shape: Sequence[int], limit: int) -> None:
        self.count, self.shape = count, tuple(shape)
        self._row = 4 * math.prod(shape)
        fits = count * self._row <= limit
        self._tensor = torch.empty(count, *shape) if fits else None
        self._file: BinaryIO | None = None
        if not fits:
            # It lives as long as the tensor, not as long as a block.
            self._file = tempfile.TemporaryFile(prefix="modhub-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.count

    def put(self, start: int, rows: Tensor) -> None:
        """Write `rows` (rows, *shape) from row `start` on."""
        if self._tensor is not None:
            self._tensor[start : start + len(rows)] = rows
        elif self._file is not None:
            self._file.seek(start * self._row)
            self._file.write(rows.float().contiguous().numpy().tobytes())

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Tensor:
        if self._tensor is not None:
            return self._tensor[rows]
        indices = np.arange(self.count)[rows]
        result = torch.empty(len(indices), *self.shape)
        if self._file is not None:
            for position, index in enumerate(indices.tolist()):
                self._file.seek(index * self._row)
                self._file.readinto(result[position].numpy())  # type: ignore[attr-defined]
        return result

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows in order, `size` at a time."""
        for start in range(0, self.count, size):
            yield self[start : start + size]
