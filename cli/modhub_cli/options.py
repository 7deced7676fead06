"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from modhub_cli.output import Out

__all__ = [
    "calibrate_option",
    "converted",
    "data_options",
    "date_option",
    "device_option",
    "directory",
    "force_option",
    "hub_option",
    "multiple_option",
    "offline_option",
    "reporting",
    "root_option",
    "seed_option",
    "target_option",
    "tune_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --json and --quiet and hands the command its `out`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only what a script would read.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **options: Any) -> None:
        command(*args, out=Out("json" if as_json else "quiet" if quiet else "human"), **options)

    return wrapped


hub_option = click.option(
    "--hub",
    envvar="MODHUB_HUB",
    metavar="HUB",
    help="A directory, an http(s):// endpoint, or 'hf'. Default: MODHUB_HUB, else your own directory.",
)
offline_option = click.option(
    "--offline", is_flag=True, envvar="MODHUB_OFFLINE", help="Use only what was pulled before."
)
directory = click.Path(path_type=Path, file_okay=False)
root_option = click.option(
    "--root",
    type=directory,
    envvar="MODHUB_ROOT",
    help="The store's folder. Default: your own directory hub.",
)
target_option = click.option("-o", "--out", "target", required=True, type=directory, help="Where to.")
force_option = click.option("--force", is_flag=True, help="Replace what is in the target directory.")
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    help="Where to compute; auto is CUDA where there is one.",
)
multiple_option = click.option(
    "--multiple",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Under a budget keep multiples of so many channels; 8 runs faster in ONNX Runtime.",
)
tune_option = click.option(
    "--tune",
    metavar="DATA",
    help="Unlabelled images to tune each slim network with; also a folder without class folders.",
)
calibrate_option = click.option(
    "--calibrate", metavar="DATA", help="A few labelled images per class to calibrate with."
)


def data_options(*, split: str) -> Callable[[Command], Command]:
    """Adds --data and --split."""

    def add(command: Command) -> Command:
        command = click.option(
            "--split",
            type=click.Choice(["train", "calibration", "test"]),
            default=split,
            show_default=True,
            help="Which part of DATA.",
        )(command)
        return click.option(
            "--data",
            required=True,
            metavar="DATA",
            help="digits, imagefolder:DIR, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn with :ROOT.",
        )(command)

    return add


def _iso_date(text: str) -> str:
    """2026-11-26, or with a time; as it was written."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a date such as 2026-11-26 or 2026-11-26T12:00:00Z") from None
    return text


def converted(
    parse: Callable[[str], Any],
) -> Callable[[click.Context, click.Parameter, str | tuple[str, ...] | None], Any]:
    """A click callback that parses an option's text; a `ValueError` becomes wrong usage."""

    def convert(_: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(parse(text) for text in value)
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=parameter) from None

    return convert


date_option = click.option(
    "--date",
    callback=converted(_iso_date),
    help="ISO 8601, written into the manifests. Default: none, so that equal inputs give equal bytes.",
)
