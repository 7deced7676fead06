"""A chart as inline SVG, and the style of pages that stand alone, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

STYLE = """
:root { color-scheme: light dark; --ink: #1d2a36; --paper: #fff; --soft: #5b6f82; --line: #ccd6e0;
  --kept: #2f6f9f; --good: 47, 125, 80; --bad: 190, 70, 40; --other: #b4662a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #14191f; --soft: #9fb0c0;
  --line: #36424e; --kept: #6db3e3; --good: 90, 190, 125; --bad: 235, 120, 85; --other: #e8a15c; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } .soft, caption { color: var(--soft); }
table { border-collapse: collapse; margin: .8rem 0; } th, td { padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
svg { max-width: 100%; height: auto; display: block; margin: .4rem 0 1.2rem; }
svg text { fill: var(--ink); font-size: 11px; } .kept { fill: var(--kept); } .rule { stroke: var(--line); }
.line { fill: none; stroke-width: 2; } .ours { stroke: var(--kept); } .dot.ours { fill: var(--kept); }
.random { stroke: var(--other); stroke-dasharray: 5 4; } .dot.random { fill: var(--other); }
.baseline { stroke: var(--soft); stroke-dasharray: 2 3; } .dot.baseline { fill: var(--soft); }
"""


def line_chart(
    lines: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], *, x_title: str, y_title: str
) -> str:
    """Lines of (name, class, points); x and y are fractions in [0, 1], shown in per cent."""
    width, height, left, top, right, bottom = 640, 300, 54, 14, 16, 44
    ys = [y for _, _, points in lines for _, y in points]
    floor = np.floor(min([*ys, 0.9]) * 10) / 10

    def place(x: float, y: float) -> tuple[float, float]:
        share = (y - floor) / max(1 - floor, 1e-9)
        return left + x * (width - left - right), top + (1 - share) * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_title)}" class="chart">']
    for step in range(6):
        value = floor + (1 - floor) * step / 5
        _, y = place(0, value)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" class="rule"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
        x, _ = place(step / 5, floor)
        parts.append(f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{20 * step} %</text>')
    for number, (name, kind, points) in enumerate(lines):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in sorted(points))
        parts.append(f'<polyline points="{path}" class="line {kind}"/>')
        for x, y in points:
            cx, cy = place(x, y)
            parts.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5" class="dot {kind}">'
                f"<title>{escape(name)}: {100 * y:.1f} % at {100 * x:.0f} %</title></circle>"
            )
        y = height - bottom - 16 * (len(lines) - number)
        parts.append(
            f'<line x1="{width - 240}" x2="{width - 216}" y1="{y - 4}" y2="{y - 4}" class="line {kind}"/>'
        )
        parts.append(f'<text x="{width - 208}" y="{y}">{escape(name)}</text>')
    middle = (width + left) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>')
    return "".join(parts) + "</svg>"
