"""modhub predict"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import device_option, reporting
from modhub_cli.output import Out, printable

__all__ = ["command"]


_NAMED = 5


def _passing(rates: dict[str, float]) -> str:
    """How often images of other classes are not refused, the worst classes first."""
    worst = sorted(rates.items(), key=lambda pair: -pair[1])[:_NAMED]
    named = ", ".join(f"{label} {percent(rate)}" for label, rate in worst)
    others = f", less for {len(rates) - len(worst)} more" if len(rates) > len(worst) else ""
    return f"Images of its parent's other classes accepted, when the module was made: {named}{others}."


@click.command("predict", short_help="Classify images.")
@click.argument("build", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes shown per image.")
@device_option
@reporting
def command(build: Path, images: tuple[Path, ...], top: int, device: str, out: Out) -> None:
    """Classify images with a build, or with an .onnx file that `modhub export` wrote (then without torch).

    IMAGE may be a folder. A file that cannot be read as an image is reported and passed over; the exit code
    is then 1 at the end.

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
            out.line(_passing(rates))

    quiet = [f"{entry['path']}\t{entry['label'] or ''}" for entry in answers]
    out.emit(report, human=human, quiet=quiet)
    bad = [entry["error"] for entry in report["images"] if "error" in entry]
    if out.mode != "json":
        for error in bad:
            click.echo(f"Warning: {printable(error)}", err=True)
    if bad:
        sys.exit(1)
