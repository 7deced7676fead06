"""modhub cache"""

from __future__ import annotations

import click

from modhub.formatting import size
from modhub_cli.options import reporting
from modhub_cli.output import Out, many


@click.command("cache", short_help="Show the size of the download cache, or prune it.")
@click.option("--prune", type=click.IntRange(1), metavar="DAYS", help="Remove files not used for DAYS days.")
@click.option("--dry-run", is_flag=True, help="Report what would be removed; remove nothing.")
@reporting
def command(prune: int | None, dry_run: bool, out: Out) -> None:
    """Show the location, the number of files and the size of the download cache.

    Removed files are downloaded again when needed. Safe to run while other commands pull or compose. Builds
    do not depend on the cache.

    \b
    Example: modhub cache --prune 30
    """
    from modhub.api.cache import cache

    if dry_run and prune is None:
        raise click.UsageError("--dry-run requires --prune DAYS.")
    report = cache(prune_days=prune, dry_run=dry_run)

    def human() -> None:
        if report.removed is not None:
            verb = "would be removed" if dry_run else "removed"
            out.line(f"{many(report.removed.files, 'file', 'files')} ({size(report.removed.bytes)}) {verb}")
        out.line(f"{many(report.files, 'file', 'files')}, {size(report.bytes)}: {report.path}")

    out.emit(report.to_dict(), human=human, quiet=[str(report.bytes)])
