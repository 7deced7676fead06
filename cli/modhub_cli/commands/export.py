"""modhub export"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modhub.formatting import size
from modhub_cli.options import large_option, reporting
from modhub_cli.output import Out


@click.command("export", short_help="Export a build to ONNX, PT2 or TorchScript.")
@click.argument("build", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format",
    type=click.Choice(["onnx", "pt2", "torchscript"]),
    default="onnx",
    show_default=True,
    help="File format.",
)
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(path_type=Path),
    help="Output file. Default: BUILD with the suffix of the format.",
)
@click.option("--data", metavar="DATA", help="Images to check the file with. Default: synthetic images.")
@click.option("--image-size", type=click.IntRange(1), help="Side of the raw input images in pixels.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@large_option
@reporting
def command(build: Path, target: Path | None, out: Out, **options: Any) -> None:
    """Export a build as one file that includes its preprocessing: raw images in, label scores out.

    The file of a build with --reject has a second output, acceptance, which is below 0 for 'none of these'.
    Before the file is put in place, its outputs are compared with PyTorch's.

    \b
    Example: modhub export build --format onnx && modhub predict build.onnx photo.jpg
    """
    from modhub.api.export import export

    report = export(build, target, reporter=out.reporter(), **options)
    out.emit(
        report.to_dict(),
        human=lambda: out.line(
            f"{report.path}: {size(report.bytes)}, outputs differ from PyTorch's by at "
            f"most {report.largest_difference:.1e} on {report.images} images\n"
            f"exported in {report.energy}"
        ),
        quiet=[str(report.path)],
    )
