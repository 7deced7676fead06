"""modhub lock"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import hub_option, large_option, offline_option, reporting
from modhub_cli.output import Out, many


@click.command("lock", short_help="Resolve releases and write modhub.lock.")
@click.option(
    "--upgrade", is_flag=True, help="Ignore the existing lock; select the newest matching releases."
)
@hub_option
@offline_option
@large_option
@reporting
def command(upgrade: bool, hub: str | None, offline: bool, out: Out) -> None:
    """Resolve a release for every module of modhub.toml and write modhub.lock.

    The lock records the commits, and the sha256 and size of every file. Releases in an existing lock are kept
    as long as they satisfy modhub.toml.

    \b
    Example: modhub lock --upgrade
    """
    from modhub.api.lock import lock_to

    report = lock_to(Path(), hub=hub, offline=offline, upgrade=upgrade, reporter=out.reporter())

    def human() -> None:
        for change in report.changes:
            out.line(f"{change}")
        out.note(
            f"{report.path}: {many(len(report.lock.modules), 'module', 'modules')} on "
            f"{many(len(report.lock.passes), 'trunk', 'trunks')}"
            f"{'' if report.changes else ', no changes'}"
        )

    out.emit(report.to_dict(), human=human, quiet=[str(report.path)])
    out.next(f"modhub compose -o {out.vacant('build')}", asks_hub=True)
