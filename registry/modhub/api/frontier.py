"""From refs or a project to a frontier, and the page that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

from modhub.api.composing import locked_parts
from modhub.catalog.catalog import Catalog
from modhub.data import ImageSet, open_data, open_unlabelled
from modhub.devices import pick_device, torch_defaults
from modhub.evaluation.charts import STYLE, line_chart
from modhub.evaluation.frontier import BUDGETS, NOISY_NOTE, Frontier
from modhub.evaluation.frontier import frontier as measure
from modhub.files import new_directory, pretty_json
from modhub.reporter import SILENT, Reporter

__all__ = ["frontier", "frontier_directory", "frontier_page"]


@torch_defaults()
def frontier(
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    data: ImageSet | str | None = None,
    split: str = "test",
    budgets: Sequence[float] = BUDGETS,
    kind: str = "flops",
    tune: ImageSet | str | None = None,
    control: bool = True,
    multiple: int = 1,
    seed: int = 0,
    device: str = "auto",
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> Frontier:
    """What the classifier of `modules` (as for `modhub.compose`) costs and keeps at a row of budgets.

    See `modhub.evaluation.frontier.frontier`. Raises `BudgetError`, and what `modhub.compose` raises.
    """
    place = pick_device(device)
    images = None if data is None else open_data(data, split)
    tuning = None if tune is None else open_unlabelled(tune, "train")
    parts = locked_parts(modules, hub=hub, offline=offline, reporter=reporter)
    return measure(
        parts,
        budgets=budgets,
        kind=kind,
        data=images,
        tune=tuning,
        control=control,
        multiple=multiple,
        seed=seed,
        device=place,
        reporter=reporter,
    )


@contextmanager
def frontier_directory(
    directory: Path | None, *, force: bool = False
) -> Iterator[Callable[[Frontier], None]]:
    """What writes `frontier.json` and `frontier.html` into `directory`, whole or not at all; None: nothing.

    Raises `StorageError` before the work when `directory` cannot be written.
    """
    if directory is None:
        yield lambda _: None
        return
    with new_directory(directory, force=force) as scratch:

        def write(found: Frontier) -> None:
            (scratch / "frontier.json").write_bytes(pretty_json(found.to_dict()))
            (scratch / "frontier.html").write_text(frontier_page(found), encoding="utf-8")

        yield write


def frontier_page(found: Frontier) -> str:
    """One HTML document without anything outside it."""
    labels = ", ".join(found.labels[:10]) + (" …" if len(found.labels) > 10 else "")
    share = {"flops": "multiply-adds", "params": "parameters", "time": "estimated time"}[found.kind]
    lines: list[tuple[str, str, list[tuple[float, float]]]] = []
    if found.restricted_top1 is not None:
        level = found.restricted_top1
        lines.append(("restricted logits", "baseline", [(0.0, level), (1.0, level)]))
    for name, kind, field in (
        ("composed", "ours", "agreement" if found.restricted_top1 is None else "top1"),
        ("random channels", "random", "random_top1"),
    ):
        points = [(getattr(point, found.kind), getattr(point, field)) for point in found.points]
        if known := [(x, y) for x, y in points if y is not None]:
            lines.append((name, kind, known))
    counted = (
        f"{found.images:,} synthetic images; no accuracy without labelled ones"
        if found.restricted_top1 is None
        else f"{found.images:,} labelled images, which had no say in anything"
    )
    y_title = "decides as the whole trunks" if found.restricted_top1 is None else "accuracy"
    head = ["budget", "multiply-adds", "parameters", "agreement", "accuracy", "random channels"]
    batches = list(found.points[0].latency) if found.points else []
    head += [f"time, batch {batch}" for batch in batches]
    rows = [
        [
            f"{found.kind}={point.budget:g}",
            *map(_percent, (point.flops, point.params, point.agreement, point.top1, point.random_top1)),
            *map(point.shown_latency, batches),
        ]
        for point in found.points
    ]
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    chart = line_chart(lines, x_title=f"{share} of the whole parents", y_title=y_title)
    notes = [NOISY_NOTE if found.noisy else None, found.smallest]
    note = "".join(f"<p>{escape(text)}</p>" for text in notes if text is not None)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>What {escape(labels)} cost</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(labels)}</h1><p class="soft">Measured on {counted}. Costs and times are fractions of '
        f"the whole parents’.</p>{chart}<table><tr>{columns}</tr>{table}</table>{note}</body></html>\n"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
