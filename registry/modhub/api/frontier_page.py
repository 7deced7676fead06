"""The page that shows a frontier."""

from __future__ import annotations

from html import escape

from modhub.evaluation.charts import STYLE, line_chart
from modhub.evaluation.frontier import NOISY_NOTE, Frontier


def frontier_page(frontier: Frontier) -> str:
    """One HTML document without anything outside it."""
    labels = ", ".join(frontier.labels[:10]) + (" …" if len(frontier.labels) > 10 else "")
    share = {"flops": "multiply-adds", "params": "parameters", "time": "estimated time"}[frontier.kind]
    lines: list[tuple[str, str, list[tuple[float, float]]]] = []
    if frontier.restricted_top1 is not None:
        level = frontier.restricted_top1
        lines.append(("restricted logits", "baseline", [(0.0, level), (1.0, level)]))
    for name, kind, field in (
        ("composed", "ours", "agreement" if frontier.restricted_top1 is None else "top1"),
        ("random channels", "random", "random_top1"),
    ):
        points = [(getattr(point, frontier.kind), getattr(point, field)) for point in frontier.points]
        if known := [(x, y) for x, y in points if y is not None]:
            lines.append((name, kind, known))
    counted = (
        f"{frontier.images:,} synthetic images; no accuracy without labelled ones"
        if frontier.restricted_top1 is None
        else f"{frontier.images:,} labelled images, which had no say in anything"
    )
    y_title = "decides as the whole trunks" if frontier.restricted_top1 is None else "accuracy"
    head = ["budget", "multiply-adds", "parameters", "agreement", "accuracy", "random channels"]
    batches = list(frontier.points[0].latency) if frontier.points else []
    head += [f"time, batch {batch}" for batch in batches]
    rows = [
        [
            f"{frontier.kind}={point.budget:g}",
            *map(_percent, (point.flops, point.params, point.agreement, point.top1, point.random_top1)),
            *map(point.shown_latency, batches),
        ]
        for point in frontier.points
    ]
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    chart = line_chart(lines, x_title=f"{share} of the whole parents", y_title=y_title)
    notes = [NOISY_NOTE if frontier.noisy else None, frontier.smallest]
    note = "".join(f"<p>{escape(text)}</p>" for text in notes if text is not None)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>What {escape(labels)} cost</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(labels)}</h1><p class="soft">Measured on {counted}. Costs and times are fractions of '
        f"the whole parents’.</p>{chart}<table><tr>{columns}</tr>{table}</table>{note}</body></html>\n"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
