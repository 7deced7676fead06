"""The last few of many things that never change, kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Recent"]

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """The last `size` things that never change, by name."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Kept | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def put(self, name: str, value: Kept) -> None:
        with self._lock:
            self._kept[name] = value
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
