"""modhub yank"""

from __future__ import annotations

import click

from modhub_cli.options import hub_option, reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("yank", short_help="Take a release back without breaking those who pinned it.")
@click.argument("ref", metavar="REPOSITORY==VERSION")
@click.option("--reason", default="", help="Why; shown to whoever meets it.")
@click.option("--undo", is_flag=True, help="Let it stand again.")
@hub_option
@reporting
def command(ref: str, reason: str, undo: bool, hub: str | None, out: Out) -> None:
    """Take a release back: nothing resolves to it any more, except what pins it exactly.

    Example: modhub yank vision-lab/resnet20-cifar10==1.0.0 --reason "labels shifted by one"
    """
    from modhub.api.sharing import yank

    report = yank(ref, reason=reason, undo=undo, hub=hub)
    yanked, before = report["yanked"], report["before"]
    if undo:
        verb = "stands again"
    elif before is None:
        verb = "is yanked"
    elif before == yanked:
        verb = f"is yanked already: {before}"
    else:
        verb = f"is yanked, and the reason is now: {yanked} (it was: {before})"
    out.emit(report, human=lambda: out.line(f"{report['repository']} {report['version']} {verb}"))
