"""modhub add"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out


@click.command("add", short_help="Add modules to modhub.toml.")
@click.argument("items", metavar="LABEL=REF…", nargs=-1, required=True)
@hub_option
@offline_option
@reporting
def command(items: tuple[str, ...], hub: str | None, offline: bool, out: Out) -> None:
    """Add modules to modhub.toml in the current directory.

    LABEL=REF adds a module under the name LABEL, REF alone under its own label; namespace/name adds every
    module of that repository. A bare label is resolved by 'modhub lock', among your own namespaces, those
    that the project names, and MODHUB_TRUSTED. Existing entries are not changed.

    \b
    Example: modhub add cat=vision-lab/resnet20-cifar10/cat dog
    """
    from modhub.api.add import add

    added = add(Path(), items, hub=hub, offline=offline)

    def human() -> None:
        for want in added:
            out.line(f"added {want}")
        if not added:
            out.note("Nothing to add: modhub.toml already has these modules.")

    out.emit(
        {"added": [{"label": want.label, "ref": want.text} for want in added]},
        human=human,
        quiet=[want.label for want in added],
    )
    out.next("modhub lock", asks_hub=True)
