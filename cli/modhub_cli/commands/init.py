"""modhub init"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("init", short_help="Begin a composition: write a modhub.toml.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="The composition's name. Default: the directory's.")
@reporting
def command(directory: Path | None, name: str | None, out: Out) -> None:
    """Begin a composition: make DIRECTORY (default: here) and write a modhub.toml into it.

    Example: modhub init pets && cd pets
    """
    from modhub.api.projects import create_project

    path = create_project(directory or Path(), name)
    out.emit({"path": str(path)}, human=lambda: out.line(str(path)), quiet=[str(path)])
    there = f"cd {shlex.quote(str(directory))} && " if directory else ""
    out.next(f"{there}modhub add LABEL=REF")
