"""modhub fsck"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out, many


@click.command("fsck", short_help="Check the integrity of a hub.")
@root_option
@click.option("--quick", is_flag=True, help="Check sizes only, not digests.")
@click.option("--repair", is_flag=True, help="Repair what can be repaired.")
@reporting
def command(root: Path | None, quick: bool, repair: bool, out: Out) -> None:
    """Check every blob, manifest and reference of a hub's directory, and list the damage.

    Exits with 1 if damage remains. Releases are never removed. Contents with wrong bytes, which --repair
    removes, are restored by a blob from a backup or by pushing the same files again.

    \b
    Example: modhub fsck --repair
    """
    from modhub.api.fsck import fsck

    report = fsck(root, deep=not quick, repair=repair, reporter=out.reporter())

    def human() -> None:
        for finding in report.findings:
            repaired = f" ({finding.repaired})" if finding.repaired else ""
            out.line(f"{finding.place}: {finding.problem}{repaired}")
        out.line(
            f"{many(report.repositories, 'repository', 'repositories')}, "
            f"{many(report.commits, 'commit', 'commits')} and {many(report.blobs, 'blob', 'blobs')} "
            f"({size(report.bytes)}): {'clean' if report.clean else 'damaged'}"
        )
        if report.leftovers and not repair:
            left = many(report.leftovers, "file", "files")
            out.note(f"Interrupted writers left {left}; --repair and 'modhub gc' remove them.")

    out.emit(report.to_dict(), human=human, quiet=[finding.place for finding in report.findings])
    if not report.clean:
        if not repair:
            out.note("Run with --repair to repair what can be repaired.")
        out.note("Restore lost contents from a backup, or push the same files again.")
        sys.exit(1)
