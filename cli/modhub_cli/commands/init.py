"""modhub init"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out


@click.command("init", short_help="Create a composition file, modhub.toml.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="Name of the composition. Default: the name of the directory.")
@reporting
def command(directory: Path | None, name: str | None, out: Out) -> None:
    """Create DIRECTORY (default: the current one) with a new modhub.toml.

    \b
    Example: modhub init pets && cd pets
    """
    from modhub.api.init import init

    path = init(directory or Path(), name)
    out.emit({"path": str(path)}, human=lambda: out.line(str(path)), quiet=[str(path)])
    change = f"cd {shlex.quote(str(directory))} && " if directory else ""
    out.next(f"{change}modhub add LABEL=REF")
