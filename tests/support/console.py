"""The command line as a user sees it: what is printed where, and the exit code."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from modhub.schemas import document_schema
from modhub_cli.main import run
from modhub_cli.output import Out
from modhub_cli.table import fit_table

ROOT = Path(__file__).parents[2]


def assert_fits(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> None:
    """At any width and with long names a table fits, no row takes two lines, and no number is cut."""
    length = 40 if columns[0] == "parent" else 30
    rows = [[row[0].ljust(length, "x"), *row[1:]] for row in rows]
    for width in (60, 80, 100, 200, None):
        table = fit_table(columns, rows, right=right, width=width)
        assert width is None or max(map(len, [table.header, *table.lines])) <= width
        assert table.hidden == () or width is not None
        for line, row in zip(table.lines, rows, strict=True):
            cells = re.split(" {2,}", line.strip())
            assert len(cells) == len(columns) - len(table.hidden)
            for position, (cell, original) in enumerate(zip(cells, row, strict=False)):
                cut = "…" in cell and width is not None and position not in right
                assert cut or cell == original


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Console:
    """Runs commands inside this process, in `cwd`, with a hub and a cache of their own.

    Whatever they print, the document that --json would print follows its schema, and tables fit a terminal.
    """

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str] | None = None
    ) -> None:
        self.home = home
        self.hub = home / "hub"
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        self.environment = {"MODHUB_HUB": str(self.hub), "MODHUB_CACHE": str(home / "cache"), "NO_COLOR": "1"}
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        self.go(home)
        emit = Out.emit

        def checked(out: Out, value: Any, **shown: Any) -> None:
            command = click.get_current_context().command_path.removeprefix("modhub ")
            emit(out, value, **shown)
            # As it is read: a tuple is an array, a path a string, what is no number null.
            document = json.loads(json.dumps(value, default=str), parse_constant=lambda name: None)
            Draft202012Validator(document_schema(command)).validate(document)

        table = Out.table

        def fitting(out: Out, columns: Sequence[str], rows: Iterable[Sequence[str]], **shown: Any) -> None:
            rows = list(rows)
            assert_fits(columns, rows, **shown)
            table(out, columns, rows, **shown)

        monkeypatch.setattr(Out, "emit", checked)
        monkeypatch.setattr(Out, "table", fitting)

    def go(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.monkeypatch.chdir(directory)

    def __call__(self, *arguments: object) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["modhub", *map(str, arguments)])
        if self.capsys is not None:
            code = run()
            return Result(code, *self.capsys.readouterr())
        # Fixtures of a module have no `capsys`.
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = run()
        return Result(code, out.getvalue(), err.getvalue())

    def good(self, *arguments: object) -> Result:
        result = self(*arguments)
        assert result.code == 0, result.err
        return result

    def process(self, *arguments: object, python: tuple[str, ...] = ()) -> Result:
        """In a process of its own."""
        path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
        done = subprocess.run(
            [sys.executable, *(python or ("-m", "modhub_cli")), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env={**os.environ, **self.environment, "PYTHONPATH": path},
        )
        return Result(done.returncode, done.stdout, done.stderr)
