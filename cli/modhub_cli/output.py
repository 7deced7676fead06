"""What commands say: data on stdout, talk on stderr.

A command has one `Out`. `emit` prints its result: a person's view, or with `--json` one JSON document with
keys that scripts can rely on, or with `--quiet` only the lines that a script would want.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rich.console import Console

    from modhub.reporter import Reporter

__all__ = ["Out", "many", "printable", "shown_to", "styled"]


@dataclass(frozen=True, slots=True)
class Out:
    """`mode` is human, json or quiet."""

    mode: str = "human"

    def emit(
        self,
        value: Any,
        *,
        human: Callable[[], None] | None = None,
        quiet: Iterable[str] = (),
    ) -> None:
        """Print a result once: `value` as JSON, or what `human` prints, or the `quiet` lines."""
        if self.mode == "json":
            try:
                text = json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False)
            except ValueError:
                # JSON has no word for what is not a number.
                text = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str)
            # The name of a file may be no text: what UTF-8 has no bytes for is written as JSON's own escape.
            click.echo(text.encode("utf-8", "backslashreplace").decode())
        elif self.mode == "quiet":
            for line in quiet:
                # As it is: a name may hold what a terminal would take for a colour.
                click.echo(line, color=True)
        elif human is not None:
            human()

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: Sequence[int] = (),
    ) -> None:
        """A table for people; columns in `right` are numbers. The first is what they copy: it stays whole."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for position, column in enumerate(columns):
            table.add_column(
                column,
                justify="right" if position in right else "left",
                overflow="fold",
                no_wrap=position == 0,
            )
        for row in rows:
            table.add_row(*row)
        console = self.console()
        with console.capture() as captured:
            console.print(table)
        # Unlike rich, click knows what to do with a stdout that is closed, a broken pipe or plain ASCII.
        click.echo(captured.get(), nl=False)

    def facts(self, items: Mapping[str, str]) -> None:
        """Names and values, one a line; empty values are left out."""
        shown = {name: text for name, text in items.items() if text}
        width = max((len(name) for name in shown), default=0)
        for name, text in shown.items():
            self.line(f"{styled(name.ljust(width), dim=True)}  {text}")

    def line(self, text: str = "") -> None:
        """A line of data for people."""
        click.echo(text)

    def note(self, text: str) -> None:
        """Talk: what was done or comes next. Not in quiet or JSON mode."""
        if self.mode == "human":
            click.echo(text, err=True)

    def next(self, command: str, *, asks_hub: bool = False) -> None:
        """The command that people usually type next; one that `asks_hub` is told the --hub of this one."""
        context = click.get_current_context(silent=True)
        if asks_hub and context and context.get_parameter_source("hub") is ParameterSource.COMMANDLINE:
            command += f" --hub {shlex.quote(context.params['hub'])}"
        self.note(f"{styled('next:', dim=True)} {command}")

    @staticmethod
    def vacant(name: str) -> str:
        """`name`, or with a number behind it, so that nothing of this name is here yet."""
        names = itertools.chain([name], (f"{name}{number}" for number in itertools.count(2)))
        return next(each for each in names if not os.path.lexists(each))

    def console(self) -> Console:
        """Rich's console on stdout; markup is off, since labels may hold brackets."""
        from rich.console import Console

        width = None if sys.stdout is not None and sys.stdout.isatty() else 110
        return Console(file=sys.stdout, markup=False, highlight=False, width=width, emoji=False)

    def reporter(self) -> Reporter:
        """Progress on stderr for long work; silent in quiet mode."""
        from modhub_cli.progress import progress_reporter

        return progress_reporter(self.mode)


def _finite(value: Any) -> Any:
    """`value` with None for every number that is infinite or none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def printable(text: str) -> str:
    """Text on one line, control characters written as escapes: the name of a file may hold any."""
    return "".join(repr(each)[1:-1] if unicodedata.category(each) == "Cc" else each for each in text)


def styled(text: str, **style: Any) -> str:
    """`click.style`, unless NO_COLOR says otherwise."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def many(number: int, one: str, more: str) -> str:
    """A number with its noun: 1 class, 3 classes."""
    return f"{number:,} {one if number == 1 else more}"


def shown_to(sample: Mapping[str, Any] | None) -> str:
    """The images that figures rest on: test, 100 of the class."""
    return "–" if sample is None else f"{sample['split']}, {sample['positives']}"
