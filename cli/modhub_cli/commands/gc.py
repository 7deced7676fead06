"""modhub gc"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out, many

__all__ = ["command"]


@click.command("gc", short_help="Remove what nothing on a hub names any more.")
@root_option
@click.option("--grace", type=click.FloatRange(0), default=24.0, show_default=True, help="Hours to keep it.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@reporting
def command(root: Path | None, grace: float, dry_run: bool, out: Out) -> None:
    """Remove commits, uploads and blobs that no branch and no tag leads to, in a directory hub or a server's.

    Works while the hub is in use. Nothing reachable is ever removed.

    Example: modhub gc --dry-run
    """
    from modhub.api.keeping import collect

    report = collect(root, grace_hours=grace, dry_run=dry_run, reporter=out.reporter())
    verb = "would be removed" if dry_run else "removed"
    out.emit(
        report,
        human=lambda: out.line(
            f"{many(report['blobs'], 'blob', 'blobs')} ({size(report['bytes'])}), "
            f"{many(report['commits'], 'commit', 'commits')} and "
            f"{many(report['uploads'], 'upload', 'uploads')} {verb}"
        ),
    )
