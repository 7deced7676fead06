"""modhub replace"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from modhub.formatting import count, size
from modhub_cli.commands.compose import show_build
from modhub_cli.options import (
    calibrate_option,
    device_option,
    directory,
    force_option,
    hub_option,
    large_option,
    offline_option,
    reporting,
    target_option,
    tune_option,
)
from modhub_cli.output import Out, many


@click.command("replace", short_help="Replace modules of a build.")
@click.argument("build", type=directory)
@click.argument("items", metavar="LABEL=REF…", nargs=-1, required=True)
@target_option
@tune_option
@calibrate_option
@force_option
@device_option
@hub_option
@offline_option
@large_option
@reporting
def command(build: Path, items: tuple[str, ...], target: Path, out: Out, **options: Any) -> None:
    """Rebuild BUILD with other modules for some of its classes; all other modules stay locked.

    \b
    Example: modhub replace build cat=vision-lab/resnet56-cifar10/cat -o build2
    """
    from modhub.api.builds import BuildCost
    from modhub.api.replace import replace_to

    before = BuildCost.read(build) if (build / "build.json").is_file() else None
    report = replace_to(target, build, items, reporter=out.reporter(), **options)
    out.emit(report.to_dict(), human=lambda: show_build(out, report), quiet=[str(target)])
    after = report.cost
    if before is not None and (after.passes > before.passes or after.flops > 1.01 * before.flops):
        out.note(
            f"The new build costs more: {before.passes} → {many(after.passes, 'pass', 'passes')} per image, "
            f"{count(before.flops)} → {count(after.flops)} multiply-adds, "
            f"{size(before.bytes)} → {size(after.bytes)}."
        )
    out.next(f"modhub evaluate {shlex.quote(str(target))} --data DATA --before {shlex.quote(str(build))}")
