"""The output of commands: data on stdout, messages on stderr.

A command has one `Out`. `emit` prints its result: text for people, or with `--json` one JSON document with
stable keys, or with `--quiet` only the essential values, one a line.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from modhub_cli.table import fit_table
from modhub_cli.terminal import styled, terminal_width

if TYPE_CHECKING:
    from modhub.manifest import Measurement, Sample
    from modhub.reporter import Reporter


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
                # JSON has no infinity and no NaN.
                text = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str)
            # File names may not be valid text: lone surrogates are written as JSON escapes.
            click.echo(text.encode("utf-8", "backslashreplace").decode())
        elif self.mode == "quiet":
            for line in quiet:
                # Unchanged: a name may hold escape sequences, which click would remove.
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
        """A table for people, as `fit_table` lays it out: on a terminal within its width, else in full."""
        fitted = fit_table(columns, list(rows), right=right, width=terminal_width())
        self.line(styled(fitted.header, bold=True))
        for line in fitted.lines:
            self.line(line)
        if fitted.hidden:
            self.note(f"Columns hidden at this width: {', '.join(fitted.hidden)}.")

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
        """A message on stderr; not printed in quiet and JSON mode."""
        if self.mode == "human":
            click.echo(text, err=True)

    def next(self, command: str, *, asks_hub: bool = False) -> None:
        """Suggest the command that usually comes next, with the --hub of this one if it `asks_hub`."""
        context = click.get_current_context(silent=True)
        if asks_hub and context and context.get_parameter_source("hub") is ParameterSource.COMMANDLINE:
            command += f" --hub {shlex.quote(context.params['hub'])}"
        self.note(f"{styled('next:', dim=True)} {command}")

    @staticmethod
    def vacant(name: str) -> str:
        """`name`, or `name` with a number appended, that does not exist in the current directory."""
        names = itertools.chain([name], (f"{name}{number}" for number in itertools.count(2)))
        return next(name for name in names if not os.path.lexists(name))

    def reporter(self) -> Reporter:
        """Progress on stderr for long work; silent in quiet mode."""
        from modhub_cli.progress import progress_reporter

        return progress_reporter(self.mode)


def _finite(value: Any) -> Any:
    """`value` with None for every number that is infinite or NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def many(number: int, singular: str, plural: str) -> str:
    """A number with its noun: 1 class, 3 classes."""
    return f"{number:,} {singular if number == 1 else plural}"


def shown_to(sample: Sample | None) -> str:
    """The split and the number of images of the class that metrics were measured on: test, 100."""
    return "–" if sample is None else f"{sample.split}, {sample.positives}"


def measured_here(measurement: Measurement | None) -> str:
    """What was measured on this machine, and on what: ≥ 91.2 % (test, 100)."""
    if measurement is None:
        return "not measured"
    from modhub.manifest import shown_bound

    return f"{shown_bound(measurement.values, measurement.sample)} ({shown_to(measurement.sample)})"
