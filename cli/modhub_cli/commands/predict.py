"""modhub predict"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import device_option, reporting
from modhub_cli.output import Out
from modhub_cli.terminal import printable

__all__ = ["command"]


_SHOWN = 5


def _false_acceptance(rates: dict[str, float]) -> str:
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
@reporting
def command(build: Path, images: tuple[Path, ...], top: int, device: str, out: Out) -> None:
    """Classify images with a build, or with an .onnx file written by `modhub export` (without torch).

    IMAGE may be a directory. Files that are not readable images are reported and skipped; the exit code is
    then 1.

    Example: modhub predict build photo.jpg holiday/
    """
    from modhub.api.predicting import predict

    report = predict(build, images, top=top, device=device, reporter=out.reporter())
    answers = [entry for entry in report["images"] if "error" not in entry]

    def human() -> None:
        for entry in answers:
            ranked = ", ".join(
                f"{name} {100 * value:.1f} %" for name, value in entry["probabilities"].items()
            )
            none = "none of these " if entry["label"] is None else ""
            out.line(f"{printable(entry['path'])}: {none}{ranked}")
        if rates := report.get("false_accept"):
            out.line(_false_acceptance(rates))

    quiet = [f"{entry['path']}\t{entry['label'] or ''}" for entry in answers]
    out.emit(report, human=human, quiet=quiet)
    bad = [entry["error"] for entry in report["images"] if "error" in entry]
    if out.mode != "json":
        for error in bad:
            click.echo(f"Warning: {printable(error)}", err=True)
    if bad:
        sys.exit(1)
