"""modhub yank"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, reporting
from modhub_cli.output import Out


@click.command("yank", short_help="Exclude a release from resolution, except where it is pinned.")
@click.argument("ref", metavar="REPOSITORY==VERSION")
@click.option("--reason", default="", help="Reason, shown to users of the release.")
@click.option("--undo", is_flag=True, help="Undo the yank.")
@hub_option
@reporting
def command(ref: str, reason: str, undo: bool, hub: str | None, out: Out) -> None:
    """Yank a release: it is no longer resolved, except where it is pinned exactly. No files are removed.

    \b
    Example: modhub yank vision-lab/resnet20-cifar10==1.0.0 --reason "labels shifted by one"
    """
    from modhub.api.yank import yank

    report = yank(ref, reason=reason, undo=undo, hub=hub)
    yanked, before = report.yanked, report.before
    if undo:
        verb = "is no longer yanked"
    elif before is None:
        verb = "is yanked"
    elif before == yanked:
        verb = f"is already yanked{': ' if before else ''}{before}"
    else:
        verb = f"is yanked: {yanked} (previous reason: {before or 'none'})"
    out.emit(report.to_dict(), human=lambda: out.line(f"{report.repository} {report.version} {verb}"))
