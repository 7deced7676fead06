"""modhub convert"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import size
from modhub_cli.options import reporting
from modhub_cli.output import Out, many


@click.command("convert", short_help="Convert a checkpoint of torch.save to safetensors.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(path_type=Path),
    help="Output file. Default: FILE with the suffix .safetensors.",
)
@click.option("--force", is_flag=True, help="Replace the output file.")
@reporting
def command(file: Path, target: Path | None, force: bool, out: Out) -> None:
    """Convert FILE (.pt, .pth, .ckpt, .bin), a checkpoint that torch.save wrote, to a safetensors file.

    Only tensors are read (torch.load with weights_only=True). They keep their names, without what
    DataParallel, torch.compile, Lightning and weight averaging put before all of them.

    \b
    Example: modhub convert resnet.ckpt -o resnet.safetensors
    """
    from modhub.api.convert import convert

    report = convert(file, target, force=force, reporter=out.reporter())
    out.emit(
        report.to_dict(),
        human=lambda: out.line(
            f"{report.path}: {many(report.tensors, 'tensor', 'tensors')}, {report.parameters:,} numbers, "
            f"{size(report.bytes)}"
        ),
        quiet=[str(report.path)],
    )
