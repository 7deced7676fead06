"""modhub add"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("add", short_help="Add modules to modhub.toml.")
@click.argument("items", metavar="LABEL=REF…", nargs=-1, required=True)
@hub_option
@offline_option
@reporting
def command(items: tuple[str, ...], hub: str | None, offline: bool, out: Out) -> None:
    """Add modules to the modhub.toml of this directory.

    LABEL=REF calls the module LABEL here; a ref alone keeps its own label; a bare label asks for whoever
    serves that class best; namespace/name adds every module of that repository. What stands there already
    stays as it is.

    Example: modhub add cat=vision-lab/resnet20-cifar10/cat dog
    """
    from modhub.api.projects import add_modules

    added = add_modules(Path(), items, hub=hub, offline=offline)

    def human() -> None:
        for want in added:
            out.line(f"added {want}")
        if not added:
            out.note("Nothing was added: it is all there already.")

    out.emit(
        {"added": [{"label": want.label, "ref": want.text} for want in added]},
        human=human,
        quiet=[want.label for want in added],
    )
    out.next("modhub lock", asks_hub=True)
