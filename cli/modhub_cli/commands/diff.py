"""modhub diff"""

from __future__ import annotations

import re
from typing import Any

import click

from modhub_cli.options import hub_option, offline_option, reporting
from modhub_cli.output import Out


@click.command("diff", short_help="Compare two builds, projects or releases.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@hub_option
@offline_option
@reporting
def command(first: str, second: str, hub: str | None, offline: bool, out: Out) -> None:
    """Compare two builds, projects or releases, class by class.

    A and B are directories of builds or projects, or refs.

    \b
    Example: modhub diff vision-lab/resnet20-cifar10==1.0.0 vision-lab/resnet20-cifar10==1.1.0
    """
    from modhub.api.diff import diff

    report = diff(first, second, hub=hub, offline=offline)

    def human() -> None:
        for label in report.removed:
            out.line(f"- {label}")
        for label in report.added:
            out.line(f"+ {label}")
        for label, facts in report.changed.items():
            changes = "; ".join(
                f"{_NAMES.get(name, name)}: {_shown(old)} → {_shown(new)}"
                for name, (old, new) in facts.items()
            )
            out.line(f"~ {label}: {changes}")
        if not (report.removed or report.added or report.changed):
            out.line("No differences.")

    out.emit(report.to_dict(), human=human, quiet=[*report.removed, *report.added, *report.changed])


_NAMES = {"kept_channels_fraction": "channels kept"}
_DIGEST = re.compile("[0-9a-f]{40,64}")


def _shown(fact: Any) -> str:
    """Fractions in per cent, digests and commits abbreviated, a dash for a missing value."""
    if fact is None:
        return "–"
    if isinstance(fact, int | float):
        return f"{100 * fact:.2f} %"
    if isinstance(fact, list | tuple):
        return " ".join(map(_shown, fact))
    return fact[:12] if _DIGEST.fullmatch(fact) else str(fact)
