"""modhub predict"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import device_option, large_option, reporting
from modhub_cli.output import Out
from modhub_cli.terminal import printable

_SHOWN = 5


def _false_acceptance(rates: Mapping[str, float]) -> str:
    """The share of images of other classes that are accepted, the highest first."""
    highest = sorted(rates.items(), key=lambda pair: -pair[1])[:_SHOWN]
    shares = ", ".join(f"{label} {percent(rate)}" for label, rate in highest)
    others = f", lower for {len(rates) - len(highest)} more" if len(rates) > len(highest) else ""
    return f"False acceptance of the parent's other classes, measured at decomposition: {shares}{others}."


@click.command("predict", short_help="Classify images.")
@click.argument("build", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Number of classes to show per image."
)
@device_option
@large_option
@reporting
def command(build: Path, images: tuple[Path, ...], top: int, device: str, out: Out) -> None:
    """Classify images with a build, or with a file written by `modhub export`.

    An .onnx file runs without torch. Open .pt2 and .pt files only if you trust them: they can hold code.

    IMAGE may be a directory. Files that are not readable images are reported and skipped; the exit code is
    then 1.

    \b
    Example: modhub predict build photo.jpg holiday/
    """
    from modhub.api.predict import predict

    report = predict(build, images, top=top, device=device, skip_unreadable=True, reporter=out.reporter())
    answers = [image for image in report.images if image.error is None]

    def human() -> None:
        for image in answers:
            ranked = ", ".join(f"{name} {100 * value:.1f} %" for name, value in image.probabilities.items())
            none = "none of these " if image.label is None else ""
            out.line(f"{printable(str(image.path))}: {none}{ranked}")
        if report.false_accept:
            out.line(_false_acceptance(report.false_accept))

    quiet = [f"{image.path}\t{image.label or ''}" for image in answers]
    out.emit(report.to_dict(), human=human, quiet=quiet)
    bad = [image.error for image in report.images if image.error is not None]
    if out.mode != "json":
        for error in bad:
            click.echo(f"Warning: {printable(error)}", err=True)
    if bad:
        sys.exit(1)
