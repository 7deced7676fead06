"""modhub cache"""

from __future__ import annotations

import click

from modhub.formatting import size
from modhub_cli.options import reporting
from modhub_cli.output import Out, many

__all__ = ["command"]


@click.command("cache", short_help="How large the cache of pulled files is; --prune makes it smaller.")
@click.option(
    "--prune", type=click.IntRange(1), metavar="DAYS", help="Remove what was not used for so many days."
)
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@reporting
def command(prune: int | None, dry_run: bool, out: Out) -> None:
    """Say where pulled files are kept, how many they are and how much room they take.

    What a command needs again is fetched again. Works while others pull or compose. Builds do not need it.

    Example: modhub cache --prune 30
    """
    from modhub.api.keeping import look_at_cache

    if dry_run and prune is None:
        raise click.UsageError("--dry-run goes with --prune DAYS.")
    report = look_at_cache(prune_days=prune, dry_run=dry_run)

    def human() -> None:
        if report["removed"] is not None:
            verb = "would be removed" if dry_run else "removed"
            gone = report["removed"]
            out.line(f"{many(gone['files'], 'file', 'files')} ({size(gone['bytes'])}) {verb}")
        out.line(f"{many(report['files'], 'file', 'files')}, {size(report['bytes'])}: {report['path']}")

    out.emit(report, human=human, quiet=[str(report["bytes"])])
