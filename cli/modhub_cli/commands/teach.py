"""modhub teach"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from modhub.formatting import percent, size
from modhub_cli.options import (
    data_options,
    date_option,
    force_option,
    hub_option,
    offline_option,
    reporting,
    seed_option,
    target_option,
)
from modhub_cli.output import Out

_SHOWN = 5


@click.command("teach", short_help="Make a module for a class the parent was not trained on.")
@click.argument("label")
@click.option("--on", required=True, metavar="REPO|DIR", help="Modules of the parent.")
@data_options(split="train")
@target_option
@click.option(
    "--against", metavar="DATA", help="Labelled images of the parent's classes, to measure interference."
)
@click.option(
    "--against-split",
    type=click.Choice(["train", "calibration", "test"]),
    help="Split of --against. Default: test.",
)
@seed_option
@date_option
@force_option
@hub_option
@offline_option
@reporting
def command(
    label: str,
    on: str,
    data: str,
    target: Path,
    against_split: str | None,
    out: Out,
    **options: Any,
) -> None:
    """Make a module for LABEL from a few dozen images, on the trunk of a parent not trained on that class.

    DATA is a folder of images of that class, or a data set that contains it. The module can be pushed, pulled
    and composed like any other; modules of the parent's classes do not change. The interference, the share of
    their images that the new class would take, is estimated from their modules, or measured on --against.

    \b
    Example: modhub teach zebra --on vision-lab/resnet20-cifar10 --data zebra-images -o out/zebra
    """
    from modhub.api.teach import teach_to

    options |= {"against_split": against_split or "test", "reporter": out.reporter()}
    result = teach_to(target, label, on, data, **options)

    def human() -> None:
        out.line(
            f"module '{result.label}' on {result.parent} from {result.images} images, "
            f"{percent(result.kept_channels_fraction)} of the channels, {size(result.bytes)}: {target}"
        )

        measured = result.takes_measured
        takes = result.takes if measured is None else measured.classes
        if takes:
            how = "estimated" if measured is None else f"measured on {measured.images:,} images"
            shares = ", ".join(
                f"{name} {percent(share.share)}"
                + ("" if share.alone is None else f" / {percent(share.alone)}")
                for name, share in list(takes.items())[:_SHOWN]
            )
            out.line(f"interference with all classes composed / with that class alone ({how}): {shares}")

    out.emit(result.to_dict(), human=human, quiet=[str(target)])
    out.next(f"modhub push {shlex.quote(str(target))} NAMESPACE/NAME --version 1.0.0")
