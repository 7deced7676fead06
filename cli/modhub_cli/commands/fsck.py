"""modhub fsck"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting, root_option
from modhub_cli.output import Out, many

__all__ = ["command"]


@click.command("fsck", short_help="Check every blob, manifest and reference of a hub.")
@root_option
@click.option("--quick", is_flag=True, help="Check sizes, not digests.")
@click.option("--repair", is_flag=True, help="Mend what can be mended; what cannot is left as it is.")
@reporting
def command(root: Path | None, quick: bool, repair: bool, out: Out) -> None:
    """Check every blob, manifest and reference of a directory hub or a server's, and say what is damaged.

    The exit code is 1 when something is damaged and was not repaired. No release goes away for it: contents
    that --repair removed, as their bytes were wrong, come back with a backup's blob or a push that has them.

    Example: modhub fsck --repair
    """
    from modhub.api.keeping import check

    report = check(root, deep=not quick, repair=repair, reporter=out.reporter())

    def human() -> None:
        for finding in report["findings"]:
            mended = f" ({finding['repaired']})" if finding["repaired"] else ""
            out.line(f"{finding['place']}: {finding['problem']}{mended}")
        out.line(
            f"{many(report['repositories'], 'repository', 'repositories')}, "
            f"{many(report['commits'], 'commit', 'commits')} and {many(report['blobs'], 'blob', 'blobs')} "
            f"({size(report['bytes'])}): {'clean' if report['clean'] else 'damaged'}"
        )

    out.emit(report, human=human, quiet=[finding["place"] for finding in report["findings"]])
    if not report["clean"]:
        if not repair:
            out.note("Mend what can be mended with --repair.")
        out.note("What is lost comes back from a backup, or with a push that has the same bytes.")
        sys.exit(1)
