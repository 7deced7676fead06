"""Times that can be compared: everything runs side by side in one process, turn about."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

__all__ = ["side_by_side"]


def side_by_side(
    works: Sequence[Callable[[], object]], seconds: float = 4.0, *, least: int = 5
) -> list[float]:
    """Median seconds of each after one warm-up, run turn about for `seconds` in all, `least` times each."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < least:
        for work, own in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]
