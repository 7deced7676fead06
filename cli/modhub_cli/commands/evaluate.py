"""modhub evaluate"""

from __future__ import annotations

from pathlib import Path

import click

from modhub.formatting import percent
from modhub_cli.options import data_options, device_option, large_option, reporting
from modhub_cli.output import Out, many


def _points(value: float, sign: str = "") -> str:
    # Never -0.0.
    return f"{sign}{100 * value:.1f}" if sign else f"{round(100 * value, 1) + 0.0:+.1f}"


@click.command("evaluate", short_help="Measure a build on labelled images.")
@click.argument("build", type=click.Path(path_type=Path))
@data_options(split="test")
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    help="Build or exported file to compare with, class by class.",
)
@device_option
@large_option
@reporting
def command(build: Path, data: str, split: str, before: Path | None, device: str, out: Out) -> None:
    """Measure a build on labelled images. Images of classes that the build does not have are skipped, and so
    are unreadable ones unless they are more than 1 %.

    BUILD is a directory, or a file written by `modhub export`, which runs on the CPU. Classes are
    matched by label or alias; of a file by label or by the label in the module's repository.

    A build with one class answers yes or no: it is measured on all images by its balanced accuracy, the mean
    of recall and specificity. A build with --reject is also measured on images of other classes, by the share
    of them it accepts.

    With --before, changes are in percentage points. A class counts as better or worse if its F1 changed by
    more than the noise, the 95 % interval estimated from the images on which the two builds disagree.

    \b
    Example: modhub evaluate build --data cifar10:data
    """
    from modhub.api.evaluate import evaluate_against

    report = evaluate_against(before, build, data, split=split, device=device, reporter=out.reporter())
    evaluation, change = report.evaluation, report.change

    def human() -> None:
        def metric(name: str, label: str, value: float | None) -> str:
            """The value, with the change beside it where builds are compared."""
            changes = getattr(change, name, {})
            return f"{percent(value)} ({_points(changes[label])})" if label in changes else percent(value)

        columns = ["class", "F1", *(["noise"] if change else []), "recall", "precision", "images"]
        rows = [
            [
                label,
                metric("f1", label, score.f1),
                *([_points(change.noise.get(label, 0.0), "± ")] if change else []),
                metric("recall", label, score.recall),
                metric("precision", label, score.precision),
                f"{score.count:,}",
            ]
            for label, score in evaluation.per_class.items()
        ]
        out.table(columns, rows, right=range(1, len(columns)))
        calibration = f"calibration error {percent(evaluation.ece)}"
        if (yes_no := evaluation.yes_no) is not None:
            false_positives = (
                ""
                if yes_no.false_yes is None
                else f", false positives {percent(yes_no.false_yes)} of {yes_no.others:,} images"
            )
            out.line(
                f"balanced accuracy {percent(evaluation.top1)}, recall {percent(yes_no.recall)}"
                f"{false_positives}, {calibration}"
            )
        else:
            top5 = "" if evaluation.top5 is None else f", top-5 {percent(evaluation.top5)}"
            out.line(
                f"top-1 {percent(evaluation.top1)}{top5}, {calibration} "
                f"on {evaluation.count:,} images ({evaluation.left_out:,} of other classes skipped)"
            )
        if evaluation.unreadable:
            out.line(f"{many(evaluation.unreadable, 'unreadable image', 'unreadable images')} passed over")
        if (rejection := evaluation.rejection) is not None:
            others = (
                ""
                if rejection.false_accept is None
                else f", {percent(rejection.false_accept)} of {rejection.strangers:,} images of other classes"
            )
            out.line(f"accepted: {percent(rejection.accepted)} of the images of its classes{others}")
        out.line(f"measured in {evaluation.energy}")
        if change is not None:
            metric_name = "top-1" if yes_no is None else "balanced accuracy"
            noise = 100 * change.top1_noise
            changed = {"better": change.better, "worse": change.worse}
            verdicts = [f"{word}: {', '.join(labels)}" for word, labels in changed.items() if labels]
            out.line(
                f"{metric_name} {100 * change.top1:+.2f} pp (noise ± {noise:.2f}) compared with {before}; "
                + ("; ".join(verdicts) or "no class better or worse")
            )

    out.emit(report.to_dict(), human=human, quiet=[f"{evaluation.top1:.4f}"])
