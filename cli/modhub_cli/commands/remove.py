"""modhub remove"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import reporting
from modhub_cli.output import Out


@click.command("remove", short_help="Remove modules from modhub.toml.")
@click.argument("labels", metavar="LABEL…", nargs=-1, required=True)
@reporting
def command(labels: tuple[str, ...], out: Out) -> None:
    """Remove modules from modhub.toml in the current directory.

    \b
    Example: modhub remove cat
    """
    from modhub.api.remove import remove

    remove(Path(), labels)

    def human() -> None:
        for label in labels:
            out.line(f"removed {label}")

    out.emit({"removed": list(labels)}, human=human, quiet=labels)
    out.next("modhub lock")
