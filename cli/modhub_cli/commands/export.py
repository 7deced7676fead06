"""modhub export"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting
from modhub_cli.output import Out

__all__ = ["command"]


@click.command("export", short_help="Write a build for another runtime.")
@click.argument("build", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format", "kind", type=click.Choice(["onnx", "pt2", "torchscript"]), default="onnx", show_default=True
)
@click.option(
    "-o", "--out", "target", type=click.Path(path_type=Path), help="Default: BUILD with the suffix."
)
@click.option("--data", metavar="DATA", help="Images to check the file on. Default: synthetic ones.")
@click.option("--image-size", type=click.IntRange(1), help="Side of the raw images it takes.")
@reporting
def command(
    build: Path, kind: str, target: Path | None, data: str | None, image_size: int | None, out: Out
) -> None:
    """Write a build as one file with its preprocessing inside: raw images in, label scores out.

    A build that may answer 'none of these' has a second output, acceptance: below 0 it does. The file is run
    beside PyTorch before it appears.

    Example: modhub export build --format onnx && modhub predict build.onnx photo.jpg
    """
    from modhub.api.using import export

    report = export(build, target, format=kind, data=data, image_size=image_size, reporter=out.reporter())
    out.emit(
        report,
        human=lambda: out.line(
            f"{report['path']}: {size(report['bytes'])}, outputs differ by at most "
            f"{report['largest_difference']:.1e} on {report['images']} images"
        ),
        quiet=[report["path"]],
    )
