"""Options shared by several commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from modhub_cli.output import Out

Command = TypeVar("Command", bound=Callable[..., Any])


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --json and --quiet, and passes the command its `out`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only the essential values, for scripts.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **options: Any) -> None:
        command(*args, out=Out("json" if as_json else "quiet" if quiet else "human"), **options)

    return wrapped


hub_option = click.option(
    "--hub",
    envvar="MODHUB_HUB",
    show_envvar=True,
    metavar="HUB",
    help="A directory, an http(s):// endpoint, or 'hf'. Default: the per-user directory hub.",
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    envvar="MODHUB_OFFLINE",
    show_envvar=True,
    help="Use cached files only; do not contact the hub.",
)


def large_option(command: Command) -> Command:
    """Adds --allow-large, which holds while the command runs."""

    @click.option(
        "--allow-large",
        is_flag=True,
        help="Accept networks that take more than 2 GiB or 1.8e13 multiply-adds for one image.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, allow_large: bool, **options: Any) -> None:
        from modhub.nets.limits import allowing_large

        with allowing_large(allow_large):
            command(*args, **options)

    return wrapped  # type: ignore[return-value]


directory = click.Path(path_type=Path, file_okay=False)
root_option = click.option(
    "--root",
    type=directory,
    envvar="MODHUB_ROOT",
    show_envvar=True,
    help="Directory of the hub. Default: the per-user directory hub.",
)
target_option = click.option("-o", "--out", "target", required=True, type=directory, help="Output directory.")
force_option = click.option("--force", is_flag=True, help="Replace the output directory.")
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random seed."
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    help="Compute device; auto selects CUDA if available.",
)
multiple_option = click.option(
    "--multiple",
    type=click.IntRange(1, 64),
    help="Keep channels in multiples of this; 8 is faster in ONNX Runtime. [default: 4 without a budget, "
    "else 1]",
)
tune_option = click.option(
    "--tune",
    metavar="DATA",
    help="Unlabelled images to fine-tune the pruned networks on; may be a folder without class folders.",
)
calibrate_option = click.option(
    "--calibrate", metavar="DATA", help="A few labelled images per class, for few-shot calibration."
)


def data_options(*, split: str, required: bool = True) -> Callable[[Command], Command]:
    """Adds --data and --split."""

    def add(command: Command) -> Command:
        command = click.option(
            "--split",
            type=click.Choice(["train", "calibration", "test"]),
            default=split,
            show_default=True,
            help="Split of DATA.",
        )(command)
        return click.option(
            "--data",
            required=required,
            metavar="DATA",
            help="Images: digits, a folder with a folder for each class, or one of cifar10, cifar100, mnist, "
            "fashion-mnist, kmnist and svhn followed by :ROOT.",
        )(command)

    return add


def _iso_date(text: str) -> str:
    """2026-11-26, or with a time; returned as written."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"expected a date such as 2026-11-26 or 2026-11-26T12:00:00Z, got '{text}'."
        ) from None
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
    metavar="DATE",
    help="ISO 8601 date to record in the manifests. Default: none, so that equal inputs give equal bytes.",
)
