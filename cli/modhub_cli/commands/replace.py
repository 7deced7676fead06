"""modhub replace"""

from __future__ import annotations

from pathlib import Path

import click

from modhub_cli.commands.compose import show_build
from modhub_cli.options import device_option, hub_option, offline_option, reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("replace", short_help="Swap modules of a build for others.")
@click.argument("build", type=click.Path(path_type=Path, file_okay=False))
@click.argument("items", metavar="LABEL=REF…", nargs=-1, required=True)
@click.option(
    "-o", "--out", "target", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where to."
)
@click.option("--tune", metavar="DATA", help="Unlabelled images to tune the slim network with.")
@click.option("--calibrate", metavar="DATA", help="A few labelled images per class to calibrate with.")
@click.option("--force", is_flag=True, help="Replace what is in the target directory.")
@device_option
@hub_option
@offline_option
@reporting
def command(
    build: Path,
    items: tuple[str, ...],
    target: Path,
    tune: str | None,
    calibrate: str | None,
    force: bool,
    device: str,
    hub: str | None,
    offline: bool,
    out: Out,
) -> None:
    """Build BUILD again with some of its classes served by other modules; everything else stays locked.

    Example: modhub replace build cat=vision-lab/resnet56-cifar10/cat -o build2
    """
    from modhub.api.composing import replace

    report = replace(
        build,
        items,
        target,
        replace_target=force,
        tune=tune,
        calibrate=calibrate,
        device=device,
        hub=hub,
        offline=offline,
        reporter=out.reporter(),
    )
    out.emit(report, human=lambda: show_build(out, report, target), quiet=[str(target)])
    out.next(f"modhub evaluate {target} --data DATA --before {build}")
