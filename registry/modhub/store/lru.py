"""A cache in memory that drops the least recently used values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRU(Generic[Value]):
    """Immutable values by name; together they weigh at most `size`, or are a single heavier one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._weight = 0
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Value | None:
        with self._lock:
            if name not in self._entries:
                return None
            self._entries.move_to_end(name)
            return self._entries[name][0]

    def put(self, name: str, value: Value, weight: int = 1) -> None:
        """Keep `value`; the least recently used others go until it fits."""
        with self._lock:
            if (former := self._entries.pop(name, None)) is not None:
                self._weight -= former[1]
            self._entries[name] = value, weight
            self._weight += weight
            while self._weight > self._size and len(self._entries) > 1:
                self._weight -= self._entries.popitem(last=False)[1][1]
