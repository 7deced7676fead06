"""modhub gc"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out, many


@click.command("gc", short_help="Remove unreferenced objects from a hub.")
@root_option
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Keep unreferenced objects that are younger than this.",
)
@click.option("--dry-run", is_flag=True, help="Report what would be removed; remove nothing.")
@reporting
def command(root: Path | None, grace: float, dry_run: bool, out: Out) -> None:
    """Remove commits, uploads and blobs that no branch and no tag references from a hub's directory.

    Safe to run while the hub is in use.

    \b
    Example: modhub gc --dry-run
    """
    from modhub.api.gc import gc

    report = gc(root, grace_hours=grace, dry_run=dry_run, reporter=out.reporter())
    verb = "would be removed" if dry_run else "removed"
    out.emit(
        report.to_dict(),
        human=lambda: out.line(
            f"{many(report.blobs, 'blob', 'blobs')} ({size(report.bytes)}), "
            f"{many(report.commits, 'commit', 'commits')} and "
            f"{many(report.uploads, 'upload', 'uploads')} {verb}"
        ),
    )
