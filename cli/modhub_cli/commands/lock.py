"""modhub lock"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out, many

__all__ = ["command"]


@click.command("lock", short_help="Pick releases and write modhub.lock.")
@click.option("--upgrade", is_flag=True, help="Keep nothing of the old lock: take the newest that will do.")
@hub_option
@offline_option
@reporting
def command(upgrade: bool, hub: str | None, offline: bool, out: Out) -> None:
    """Pick a release for every module of modhub.toml and write modhub.lock.

    The lock holds the commit, and the sha256 and size of every file. What an older lock chose is kept as
    long as it will do.

    Example: modhub lock --upgrade
    """
    from modhub.api.projects import lock_project

    report = lock_project(Path(), hub=hub, offline=offline, upgrade=upgrade, reporter=out.reporter())

    def human() -> None:
        for label, before, after in report.changes:
            out.line(f"{label}: {before or 'new'} → {after or 'removed'}")
        out.note(
            f"{report.path}: {many(len(report.lock.modules), 'module', 'modules')} on "
            f"{many(len(report.lock.passes), 'trunk', 'trunks')}"
            f"{'' if report.changes else ', nothing changed'}"
        )

    out.emit(report.to_dict(), human=human, quiet=[str(report.path)])
    out.next(f"modhub compose -o {out.vacant('build')}", asks_hub=True)
