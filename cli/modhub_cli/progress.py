"""Progress of long work on stderr: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from modhub.reporter import Lines, Reporter
from modhub_cli.terminal import styled


def progress_reporter(mode: str) -> Reporter:
    """For the mode of an `Out`: bars on a terminal, lines elsewhere, only warnings when quiet."""
    if mode == "quiet":
        return _Warnings()
    return _Bars(asks=mode == "human" and sys.stdin.isatty()) if sys.stderr.isatty() else Lines(_say, _warn)


class _Warnings(Reporter):
    def warn(self, text: str) -> None:
        _warn(text)


class _Bars(_Warnings):
    """Nested steps as bars; the innermost one advances."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._progress: Progress | None = None
        self._open: list[TaskID] = []

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[None]:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        task = self._progress.add_task(title, total=total)
        self._open.append(task)
        try:
            yield
        finally:
            self._open.remove(task)
            self._progress.remove_task(task)
            if not self._open:
                self._progress.stop()
                self._progress = None

    def advance(self, amount: int = 1) -> None:
        if self._progress is not None and self._open:
            self._progress.advance(self._open[-1], amount)

    def choose(self, question: str, options: Sequence[str]) -> int | None:
        if not self._asks:
            return None
        if self._progress is not None:
            self._progress.stop()
        _say(question)
        for number, option in enumerate(options, 1):
            _say(f"  {number}  {click.unstyle(option)}")
        answer: int = click.prompt("Which of them", type=click.IntRange(1, len(options)), err=True)
        if self._progress is not None:
            self._progress.start()
        return answer - 1

    def note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            _say(text)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _warn(text: str) -> None:
    _say(f"{styled('Warning:', fg='yellow')} {click.unstyle(text)}")
