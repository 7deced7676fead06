"""The processes that share one piece of work, as `torch.distributed` has started them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Workers:
    """This process is number `rank` of `size`. Every method but `mine` must be called by all of them."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Workers:
        """All processes of the default group; this one alone where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether piece `number` of the work is this process's."""
        return number % self.size == self.rank

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor (on the CPU) by its sum over the processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def gather(self, item: Item) -> list[Item]:
        """The item of every process, in the order of ranks."""
        if self.size == 1:
            return [item]
        items: list[Item | None] = [None] * self.size
        dist.all_gather_object(items, item)
        return [each for each in items if each is not None]

    def agree(self, number: int) -> bool:
        """Whether all processes hold the same number."""
        seen = torch.tensor([number, -number], dtype=torch.int64)
        if self.size > 1:
            dist.all_reduce(seen, dist.ReduceOp.MAX)
        return int(seen[0]) == -int(seen[1])


ALONE = Workers()
"""One process that does all of the work."""
