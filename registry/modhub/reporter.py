"""How long work tells what it is doing.

The library never prints. Work that takes longer than a moment takes a `Reporter`; every method of the base
class does nothing, and a front end overrides those it can show. `progress()` makes one that tells in lines,
for who calls from Python and asks for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

_PAUSE = 15.0
"""Seconds between two lines on work that goes on."""
_TITLES = 12
"""So many kinds of stage are told at once inside one outermost step; a thousand files are not."""

Item = TypeVar("Item")


class Reporter:
    """Receives progress; does nothing with it."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[None]:
        """One stretch of work named `title`, of `total` units if that is known."""
        yield

    def advance(self, amount: int = 1) -> None:
        """`amount` more units of the innermost open step are done."""

    def note(self, text: str) -> None:
        """A sentence worth reading, not a warning."""

    def warn(self, text: str) -> None:
        """Something the user should know although the work goes on."""

    def choose(self, question: str, options: Sequence[str]) -> int | None:
        """Which of `options` the user takes, by its place; None where nobody can be asked."""
        return None

    def track(self, items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, one unit each, inside a step."""
        with self.step(title, total):
            for item in items:
                yield item
                self.advance()


SILENT = Reporter()


@dataclass(slots=True)
class _Step:
    title: str
    total: int | None
    done: int = 0

    def __str__(self) -> str:
        if self.total is None or self.total < 2:
            return self.title
        if self.total < 1000:
            return f"{self.title} {self.done}/{self.total}"
        return f"{self.title} {100 * self.done // self.total} %"


class Lines(Reporter):
    """Lines for a log: one when a step begins, one for each new kind of stage inside it, and while work goes
    on one in a while that says how far it is."""

    def __init__(
        self,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._warn, self._clock = say, warn, clock
        self._open: list[_Step] = []
        self._titles: set[str] = set()
        self._last = clock()

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[None]:
        if not self._open:
            self._titles.clear()
        step = _Step(title, total)
        self._open.append(step)
        if title not in self._titles and len(self._titles) < _TITLES:
            self._titles.add(title)
            self.note(f"{'  ' * (len(self._open) - 1)}{title} …")
        else:
            self._remind()
        try:
            yield
        finally:
            self._open.remove(step)

    def advance(self, amount: int = 1) -> None:
        if self._open:
            step = self._open[-1]
            step.done += amount
            if step.total is None or step.done < step.total:
                self._remind()

    def note(self, text: str) -> None:
        self._last = self._clock()
        self._say(text)

    def warn(self, text: str) -> None:
        self._warn(text)

    def _remind(self) -> None:
        if self._clock() - self._last >= _PAUSE:
            self.note(" › ".join(map(str, self._open)))


def progress(logger: logging.Logger | None = None) -> Reporter:
    """A reporter that tells in lines what long work does: `modhub.compose(…, reporter=modhub.progress())`.

    They go to `logger`, at INFO and WARNING. Without one they go to the logger "modhub", whose level becomes
    INFO; where nobody has set logging up, that writes to stderr.
    """
    if logger is None:
        logger = logging.getLogger("modhub")
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
    return Lines(logger.info, logger.warning)
