"""modhub teach"""

from __future__ import annotations

from pathlib import Path

import click

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
from modhub_cli.output import Out, fraction, size

__all__ = ["command"]


@click.command("teach", short_help="Make a module for a class the parent never knew.")
@click.argument("label")
@click.option("--on", required=True, metavar="REPO|DIR", help="The modules whose parent is taught.")
@data_options(split="train")
@target_option
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
    split: str,
    target: Path,
    seed: int,
    date: str | None,
    force: bool,
    hub: str | None,
    offline: bool,
    out: Out,
) -> None:
    """Make a module for LABEL from a few dozen images, on the trunk of a parent that never knew it.

    DATA is a folder of images of that class (or a data set that has it). The module pushes, pulls and
    composes like any other; the parent's own classes stay as they are.

    Example: modhub teach zebra --on vision-lab/resnet20-cifar10 --data zebra-images -o out/zebra
    """
    from modhub.api.teaching import teach_to

    made = teach_to(
        target,
        label,
        on,
        data,
        split=split,
        seed=seed,
        date=date,
        replace=force,
        hub=hub,
        offline=offline,
        reporter=out.reporter(),
    )

    def human() -> None:
        out.line(
            f"'{made['label']}' taught to {made['parent']} from {made['images']} images: "
            f"{fraction(made['kept_channels_fraction'])} of the channels, {size(made['bytes'])}: {target}"
        )

    out.emit(made, human=human, quiet=[str(target)])
    out.next(f"modhub push {target} NAMESPACE/NAME --version 1.0.0")
