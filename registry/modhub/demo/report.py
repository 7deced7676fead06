"""The demo's story as one HTML file without anything outside it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from modhub.demo.pictures import confusion_table, mask_picture, thumbnail
from modhub.demo.story import Measured, Story
from modhub.evaluation.charts import STYLE, line_chart
from modhub.files import write_text

REPORT_NAME = "report.html"

_STYLE = (
    STYLE
    + """
pre { background: color-mix(in srgb, var(--line) 35%, transparent); padding: .5rem .8rem; overflow-x: auto;
  border-radius: .4rem; margin: .3rem 0 1.2rem; font-size: .85rem; }
.confusion { display: inline-table; margin-right: 1.5rem; font-size: .8rem; }
.confusion th, .confusion td { padding: .15rem .4rem; text-align: center; min-width: 1.4rem; }
.confusion caption { text-align: left; padding-bottom: .3rem; max-width: 24rem; }
.right { background: rgba(var(--good), calc(.12 + .6 * var(--share))); }
.wrong { background: rgba(var(--bad), calc(.25 + .75 * var(--share))); }
figure { display: inline-block; margin: .3rem; text-align: center; font-size: .8rem; }
figure img { image-rendering: pixelated; border: 2px solid rgb(var(--good)); }
figure.miss img { border-color: rgb(var(--bad)); }
"""
)


def write_report(path: Path, story: Story) -> Path:
    """Write the page of a finished story. Raises `StorageError`."""
    write_text(path, report_page(story))
    return path


def report_page(story: Story) -> str:
    """The whole HTML document."""
    digits = sum(story.measured[-1].evaluation.confusion[0]) if story.measured else 0
    sections = [
        "<h1>Ten digits from two parents that know six each</h1>",
        '<p class="soft">scikit-learn’s handwritten digits (real scans, 8 × 8). Every figure below is of the '
        f"test split ({digits} images per class), which had no say in anything. "
        f"{story.seconds:.0f} seconds in all.</p>",
        "<h2>What was done</h2>",
        *(_step(number, story) for number in range(len(story.steps))),
        "<h2>How right it is</h2>",
        "<p>Beside each classifier: the whole parents’ own logits, restricted to its classes, and the same "
        "modules on as many random channels.</p>",
        _accuracies(story.measured),
        '<p class="soft">Across parents the restricted logits are compared as they are.</p>',
        "<h2>Where it errs</h2>",
        *(
            confusion_table(measured.evaluation.labels, measured.evaluation.confusion, measured.name)
            for measured in story.measured
        ),
        "<h2>Accuracy against size</h2>",
        "<p>The classifier of 0 to 5, compiled to smaller and smaller budgets from the same modules, "
        "without any image: what the modules carry chooses the channels and makes up for those removed.</p>",
        _frontier(story),
        "<h2>What each module keeps</h2>",
        "<p>One row per module, one column per channel slot of its parent’s trunk; the numbers are the "
        "groups of channels.</p>",
    ]
    for name, mask in story.masks.items():
        sections.append(f"<h3>{escape(name)}</h3>")
        sections.append(mask_picture(mask.labels, mask.kept, mask.groups, f"channels kept, parent {name}"))
        groups = ", ".join(f"{number} {group}" for number, (group, _) in enumerate(mask.groups, 1))
        sections.append(f'<p class="soft">Groups: {escape(groups)}.</p>')
    sections.append("<h2>Twenty answers</h2>")
    for pixels, truth, answer, probability in story.samples:
        kind = "hit" if truth == answer else "miss"
        caption = f"{escape(answer)} · {100 * probability:.0f} %"
        sections.append(
            f'<figure class="{kind}">{thumbnail(pixels, f"a {truth}")}'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>modhub demo</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _step(number: int, story: Story) -> str:
    step = story.steps[number]
    commands = f"<pre>{escape(chr(10).join(step.commands))}</pre>" if step.commands else ""
    return (
        f"<p><strong>{number + 1}. {escape(step.title)}.</strong> {escape(step.sentence)} "
        f'<span class="soft">({step.seconds:.1f} s)</span></p>{commands}'
    )


def _accuracies(measured: list[Measured]) -> str:
    rows = []
    for entry in measured:
        random = "–" if entry.random is None else f"{100 * entry.random:.1f} %"
        rows.append(
            f"<tr><td>{escape(entry.name)}</td><td>{100 * entry.evaluation.top1:.1f} %</td>"
            f"<td>{100 * entry.restricted:.1f} %</td><td>{random}</td><td>{entry.passes}</td>"
            f"<td>{100 * entry.flops_fraction:.0f} %</td><td>{entry.bytes / 1000:.0f} kB</td></tr>"
        )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in (
            "classifier",
            "top-1",
            "restricted logits",
            "random mask",
            "passes",
            "multiply-adds",
            "weights",
        )
    )
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _frontier(story: Story) -> str:
    ours = [(point.flops_fraction, point.top1) for point in story.frontier]
    random = [(point.flops_fraction, point.random) for point in story.frontier]
    level = story.parents["plain"].top1 if story.parents else 1.0
    return line_chart(
        [
            ("modhub", "ours", ours),
            ("random channels", "random", random),
            ("the whole parent", "baseline", [(0.0, level), (1.0, level)]),
        ],
        x_title="multiply-adds, of one pass through the whole parent",
        y_title="top-1 accuracy against multiply-adds",
    )
