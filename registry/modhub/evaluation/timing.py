"""Times that can be compared: everything runs side by side in one process, turn about."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "side_by_side", "time_ratio"]

_ROUNDS = (3, 9)
"""The fewest and the most."""
_STEADY = 0.05
_TURNS = 3
"""So many runs of each are in a round at least."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over rounds, and half of what they differ by."""

    value: float
    spread: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Ratio:
        """With five rounds or more the farthest on either side does not count in the spread."""
        ordered = sorted(rounds)
        inner = ordered[1:-1] if len(ordered) > 4 else ordered
        return cls(statistics.median(ordered), (inner[-1] - inner[0]) / 2)


def side_by_side(
    works: Sequence[Callable[[], object]], seconds: float = 4.0, *, least: int = 5
) -> list[float]:
    """Median seconds of each after one warm-up, run turn about for `seconds` in all, `least` times each."""
    for work in works:
        work()
    return _medians(works, seconds, least)


def time_ratio(
    ours: Callable[[], object], theirs: Callable[[], object], seconds: float = 2.0, *, most: float = 8.0
) -> Ratio:
    """Time of `ours` over that of `theirs`, turn about, in three rounds that take `seconds` together; where
    these differ by more than 5 % there are more, up to nine while it takes less than `most` seconds."""
    for work in (ours, theirs):
        work()
    until = time.perf_counter() + most
    rounds: list[float] = []
    while True:
        own, other = _medians((ours, theirs), seconds / _ROUNDS[0], _TURNS)
        rounds.append(own / other)
        if len(rounds) < _ROUNDS[0]:
            continue
        found = Ratio.of(rounds)
        late = len(rounds) == _ROUNDS[1] or time.perf_counter() > until
        if late or found.spread <= _STEADY * found.value:
            return found


def _medians(works: Sequence[Callable[[], object]], seconds: float, least: int) -> list[float]:
    times: list[list[float]] = [[] for _ in works]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < least:
        for work, own in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]
