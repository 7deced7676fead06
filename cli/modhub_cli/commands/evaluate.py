"""modhub evaluate"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import data_options, device_option, reporting
from modhub_cli.output import Out

__all__ = ["command"]

_FIGURES = {"recall": "recall", "precision": "precision", "f1": "F1"}


def _points(value: float, sign: str = "") -> str:
    # No change is +0.0, from whichever side it was rounded.
    return f"{sign}{100 * value:.1f}" if sign else f"{round(100 * value, 1) + 0.0:+.1f}"


@click.command("evaluate", short_help="Measure a build on labelled images.")
@click.argument("build", type=click.Path(path_type=Path))
@data_options(split="test")
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    help="Another build or .onnx file to compare with, class by class.",
)
@device_option
@reporting
def command(build: Path, data: str, split: str, before: Path | None, device: str, out: Out) -> None:
    """Measure a build on the images whose class is one of its labels or aliases; the others are left out.

    BUILD is a directory, or an .onnx file that `modhub export` wrote, which runs on the CPU and knows no
    aliases, only what its modules are called in their repositories.

    A build with one class says yes or no: it is asked about all images, and the figure is its balanced
    accuracy, the mean of its right answers to either side. One that may answer 'none of these' is shown
    images of other classes, too: how many of them does it accept?

    With --before, changes are in percentage points. A class is called better or worse when its F1, the
    harmonic mean of recall and precision, changed by more than the noise: what chance would stay within in
    95 % of cases, told by the images that the two builds answer differently.

    Example: modhub evaluate build --data cifar10:data
    """
    from modhub.api.using import evaluate_build

    report = evaluate_build(build, data, split=split, before=before, device=device, reporter=out.reporter())

    def human() -> None:
        change = report.get("change")

        def figure(name: str, label: str, value: float | None) -> list[str]:
            """A column, and one beside it for the change."""
            if change is None:
                return [percent(value)]
            return [percent(value), _points(change[name][label]) if label in change[name] else "–"]

        rows = [
            [
                label,
                str(score["count"]),
                *(cell for name in _FIGURES for cell in figure(name, label, score[name])),
                *([_points(change["noise"].get(label, 0.0), "± ")] if change else []),
            ]
            for label, score in report["per_class"].items()
        ]
        named = [column for name in _FIGURES.values() for column in ([name, "change"] if change else [name])]
        columns = ["class", "images", *named, *(["noise"] if change else [])]
        out.table(columns, rows, right=range(1, len(columns)))
        calibration = f"calibration error {percent(report['ece'])}"
        if (said := report["yes_no"]) is not None:
            to_others = (
                ""
                if said["false_yes"] is None
                else f" and to {percent(said['false_yes'])} of {said['others']:,} of other classes"
            )
            out.line(
                f"it says yes to {percent(said['recall'])} of the images of its class{to_others}; "
                f"balanced accuracy {percent(report['top1'])}, {calibration}"
            )
        else:
            top5 = "" if report["top5"] is None else f", top-5 {percent(report['top5'])}"
            out.line(
                f"top-1 {percent(report['top1'])}{top5}, {calibration} "
                f"on {report['count']:,} images ({report['left_out']:,} of other classes left out)"
            )
        if (rejection := report["rejection"]) is not None:
            strangers = (
                ""
                if rejection["false_accept"] is None
                else f", and {percent(rejection['false_accept'])} of {rejection['strangers']:,} images of "
                "other classes"
            )
            out.line(f"accepted: {percent(rejection['accepted'])} of the images of its classes{strangers}")
        if change is not None:
            figure_name = "top-1" if said is None else "balanced accuracy"
            noise = 100 * change["top1_noise"]
            named = [f"{word}: {', '.join(change[word])}" for word in ("better", "worse") if change[word]]
            out.line(
                f"{figure_name} {100 * change['top1']:+.2f} pp (noise ± {noise:.2f}) against {before}; "
                + ("; ".join(named) or "no class got better or worse")
            )

    out.emit(report, human=human, quiet=[f"{report['top1']:.4f}"])
