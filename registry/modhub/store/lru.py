"""The last few of many things that never change, kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Recent"]

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """The last things that never change, by name: as many as weigh no more than `size` together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._weight = 0
        self._kept: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Kept | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            found = self._kept.get(name)
        return None if found is None else found[0]

    def put(self, name: str, value: Kept, weight: int = 1) -> None:
        """Keep `value`, and as many of those before as there is room for beside it."""
        with self._lock:
            if (former := self._kept.pop(name, None)) is not None:
                self._weight -= former[1]
            self._kept[name] = value, weight
            self._weight += weight
            while self._weight > self._size and len(self._kept) > 1:
                self._weight -= self._kept.popitem(last=False)[1][1]
