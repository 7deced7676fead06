"""Comparable times: all workloads run interleaved in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_ROUNDS = (3, 9)
"""The fewest and the most rounds."""
_STEADY = 0.05
_RUNS = 3
"""The fewest runs of each workload in a round."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over rounds, and half their range."""

    value: float
    spread: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Ratio:
        """With five rounds or more the lowest and the highest are left out of the spread."""
        ordered = sorted(rounds)
        inner = ordered[1:-1] if len(ordered) > 4 else ordered
        return cls(statistics.median(ordered), (inner[-1] - inner[0]) / 2)


def side_by_side(
    workloads: Sequence[Callable[[], object]], seconds: float = 4.0, *, least: int = 5
) -> list[float]:
    """Median seconds of each workload after one warm-up, interleaved for `seconds` in all, at least `least`
    times each."""
    for workload in workloads:
        workload()
    return _medians(workloads, seconds, least)


def time_ratio(
    ours: Callable[[], object], theirs: Callable[[], object], seconds: float = 2.0, *, most: float = 8.0
) -> Ratio:
    """Time of `ours` over that of `theirs`, interleaved, in three rounds that take `seconds` together; where
    these differ by more than 5 % there are more, up to nine within `most` seconds."""
    for workload in (ours, theirs):
        workload()
    until = time.perf_counter() + most
    rounds: list[float] = []
    while True:
        numerator, denominator = _medians((ours, theirs), seconds / _ROUNDS[0], _RUNS)
        rounds.append(numerator / denominator)
        if len(rounds) < _ROUNDS[0]:
            continue
        ratio = Ratio.of(rounds)
        last = len(rounds) == _ROUNDS[1] or time.perf_counter() > until
        if last or ratio.spread <= _STEADY * ratio.value:
            return ratio


def _medians(workloads: Sequence[Callable[[], object]], seconds: float, least: int) -> list[float]:
    times: list[list[float]] = [[] for _ in workloads]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < least:
        for workload, durations in zip(workloads, times, strict=True):
            start = time.perf_counter()
            workload()
            durations.append(time.perf_counter() - start)
    return [statistics.median(durations) for durations in times]
