"""modhub evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modhub_cli.options import data_options, device_option, reporting
from modhub_cli.output import Out, fraction

__all__ = ["command"]


@click.command("evaluate", short_help="Measure a build on labelled images.")
@click.argument("build", type=click.Path(path_type=Path, file_okay=False))
@data_options(split="test")
@click.option(
    "--before",
    type=click.Path(path_type=Path, file_okay=False),
    help="Another build to compare with, class by class.",
)
@device_option
@reporting
def command(build: Path, data: str, split: str | None, before: Path | None, device: str, out: Out) -> None:
    """Measure a build on the images whose class is one of its labels or aliases; the others are left out.

    A build that may answer 'none of these' is shown the others, too: how many of them does it accept?

    Example: modhub evaluate build --data cifar10:data
    """
    from modhub.api.using import evaluate_build

    report = evaluate_build(
        build, data, split=split or "test", before=before, device=device, reporter=out.reporter()
    )

    def human() -> None:
        changes: dict[str, Any] = report["change"]["recall"] if report.get("change") else {}
        rows = [
            [
                label,
                str(score["count"]),
                fraction(score["recall"]),
                *([f"{100 * changes[label]:+.1f} pp" if label in changes else "–"] if before else []),
                fraction(score["precision"]),
            ]
            for label, score in report["per_class"].items()
        ]
        columns = ["class", "images", "recall", *(["change"] if before else []), "precision"]
        out.table(columns, rows, right=range(1, len(columns)))
        top5 = "" if report["top5"] is None else f", top-5 {fraction(report['top5'])}"
        out.line(
            f"top-1 {fraction(report['top1'])}{top5}, calibration error {fraction(report['ece'])} "
            f"on {report['count']:,} images ({report['left_out']:,} of other classes left out)"
        )
        if (rejection := report["rejection"]) is not None:
            strangers = (
                ""
                if rejection["false_accept"] is None
                else f", and {fraction(rejection['false_accept'])} of {rejection['strangers']:,} images of "
                "other classes"
            )
            out.line(f"accepted: {fraction(rejection['accepted'])} of the images of its classes{strangers}")
        if report.get("change"):
            worse = report["change"]["worse"]
            out.line(
                f"top-1 {100 * report['change']['top1']:+.2f} pp against {before}; "
                + (f"worse: {', '.join(worse)}" if worse else "no class got worse")
            )

    out.emit(report, human=human, quiet=[f"{report['top1']:.4f}"])
