"""modhub teach"""

from __future__ import annotations

import shlex
from pathlib import Path

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

__all__ = ["command"]

_NAMED = 5


@click.command("teach", short_help="Make a module for a class the parent never knew.")
@click.argument("label")
@click.option("--on", required=True, metavar="REPO|DIR", help="The modules whose parent is taught.")
@data_options(split="train")
@target_option
@click.option(
    "--against", metavar="DATA", help="Labelled images of known classes, to count what it takes from them."
)
@click.option("--against-split", type=click.Choice(["train", "calibration", "test"]), help="Default: test.")
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
    against: str | None,
    against_split: str | None,
    seed: int,
    date: str | None,
    force: bool,
    hub: str | None,
    offline: bool,
    out: Out,
) -> None:
    """Make a module for LABEL from a few dozen images, on the trunk of a parent that never knew it.

    DATA is a folder of images of that class (or a data set that has it). The module pushes, pulls and
    composes like any other; the parent's own classes stay as they are. How many of their images it would take
    from them is guessed from what their modules say, or counted on --against.

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
        force=force,
        against=against,
        against_split=against_split or "test",
        hub=hub,
        offline=offline,
        reporter=out.reporter(),
    )

    def human() -> None:
        out.line(
            f"'{made['label']}' taught to {made['parent']} from {made['images']} images: "
            f"{percent(made['kept_channels_fraction'])} of the channels, {size(made['bytes'])}: {target}"
        )

        counted = made["takes_measured"]
        takes = made["takes"] if counted is None else counted["classes"]
        if takes:
            how = "a guess" if counted is None else f"counted on {counted['images']:,} images"
            named = ", ".join(
                f"{name} {percent(each['share'])}"
                + ("" if each["alone"] is None else f" / {percent(each['alone'])}")
                for name, each in list(takes.items())[:_NAMED]
            )
            out.line(f"images it takes where all known classes are composed / one alone ({how}): {named}")

    out.emit(made, human=human, quiet=[str(target)])
    out.next(f"modhub push {shlex.quote(str(target))} NAMESPACE/NAME --version 1.0.0")
