"""How long work tells what it is doing.

The library never prints. Work that takes longer than a moment takes a `Reporter`; every method of the base
class does nothing, and a front end overrides those it can show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["SILENT", "Reporter"]

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

    def track(self, items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, one unit each, inside a step."""
        with self.step(title, total):
            for item in items:
                yield item
                self.advance()


SILENT = Reporter()
