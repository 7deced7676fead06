"""Figures as SVG, without script or style attributes, with text alternatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

CELLS_A_ROW = 96
CELLS_LIMIT = 9600
Mask = NDArray[np.bool_]


def mask_picture(mask: Mask) -> Markup:
    """One cell for each channel slot, row by row from the first layer on; filled where it is kept.

    More than 9,600 slots are binned, and a cell's strength is the share of its bin that is kept.
    """
    slots = len(mask)
    bin_size = -(-slots // CELLS_LIMIT)
    padded = np.zeros(-(-slots // bin_size) * bin_size)
    padded[:slots] = mask
    shares = padded.reshape(-1, bin_size).mean(1)
    columns = min(CELLS_A_ROW, len(shares))
    rows = -(-len(shares) // columns)
    full, cells = [], []
    for index, share in enumerate(shares):
        if share > 0:
            x, y = index % columns, index // columns
            if share >= 1:
                # One path for all: a wide trunk has thousands of cells.
                full.append(f"M{x * 8} {y * 8}h7v7h-7z")
                continue
            strength = f' opacity="{max(share, 0.15):.2f}"'
            cells.append(f'<rect x="{x * 8}" y="{y * 8}" width="7" height="7"{strength}/>')
    cells += [f'<path d="{"".join(full)}"/>'] if full else []
    shift = ' transform="translate(.5 .5)"'
    kept = int(mask.sum())
    title = f"{kept:,} of {slots:,} channels kept ({100 * kept / slots:.1f} %)"
    return _svg("mask", columns * 8, rows * 8, title, f'<g class="kept"{shift}>{"".join(cells)}</g>')


def overlap(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """(modules, modules): the share of the row's channels that the column's module keeps, in [0, 1]."""
    stacked = np.stack(masks).astype(np.float32)
    sizes = stacked.sum(1, keepdims=True)
    shared: NDArray[np.float64] = (stacked @ stacked.T / np.maximum(sizes, 1)).astype(np.float64)
    return shared


def overlap_picture(labels: Sequence[str], shares: NDArray[np.float64], current: int) -> Markup:
    """The matrix as squares, darker for a larger share; row and column `current` are marked."""
    side, room, count = 20, 130, len(labels)
    parts = []
    for row, label in enumerate(labels):
        chosen = ' class="current"' if row == current else ""
        short = label if len(label) <= 16 else label[:15] + "…"
        y = room + row * side
        parts.append(f'<text x="{room - 6}" y="{y + 14}" text-anchor="end"{chosen}>{escape(short)}</text>')
        place = f'transform="translate({room + row * side + 14} {room - 6}) rotate(-90)"'
        parts.append(f"<text {place}{chosen}>{escape(short)}</text>")
        for column in range(count):
            share = float(shares[row, column])
            title = f"{label} and {labels[column]}: {100 * share:.0f} % shared"
            parts.append(
                f'<rect class="share" x="{room + column * side + 1}" y="{y + 1}" width="{side - 2}" '
                f'height="{side - 2}" opacity="{0.06 + 0.94 * share:.2f}">'
                f"<title>{escape(title)}</title></rect>"
            )
    size = room + count * side + 4
    return _svg("overlap", size, size, f"Shared channels of {count} modules", "".join(parts))


def calibration_picture(
    slope: float, intercept: float, mean: float, deviation: float, *, over: str = "margin"
) -> Markup:
    """The probability that an image is of the class rather than another class of the parent, over its margin
    or its log odds in the parent's softmax, at even prior odds.

    The band is that of images of the class: mean ± one standard deviation.
    """
    width, height, pad = 460, 240, 34
    middle = -intercept / slope if slope else 0.0
    reach = max(abs(mean - middle) + 2 * deviation, 6 / slope if slope > 0 else 1.0, 1e-6)
    low, high = middle - reach, middle + reach

    def x(margin: float) -> float:
        return pad + (min(max(margin, low), high) - low) / (high - low) * (width - 2 * pad)

    def y(probability: float) -> float:
        return height - pad - probability * (height - 2 * pad)

    margins = np.linspace(low, high, 121)
    curve = " ".join(f"{x(m):.1f},{y(_sigmoid(slope * m + intercept)):.1f}" for m in map(float, margins))
    left, right = x(mean - deviation), x(mean + deviation)
    parts = [
        f'<rect class="band" x="{left:.1f}" y="{pad}" width="{max(right - left, 1):.1f}" '
        f'height="{height - 2 * pad}"/>',
        *(
            f'<line class="grid" x1="{pad}" x2="{width - pad}" y1="{y(p):.1f}" y2="{y(p):.1f}"/>'
            f'<text x="{pad - 6}" y="{y(p) + 4:.1f}" text-anchor="end">{p:g}</text>'
            for p in (0.0, 0.5, 1.0)
        ),
        f'<polyline class="curve" points="{curve}"/>',
        *(
            f'<text x="{x(m):.1f}" y="{height - 12}" text-anchor="middle">{m:.3g}</text>'
            for m in (low, middle, high)
        ),
        f'<text x="{(left + right) / 2:.1f}" y="{pad - 8}" text-anchor="middle">images of the class</text>',
    ]
    title = (
        f"Calibration: probability one half at {over} {middle:.3g}; images of the class have "
        f"{mean:.3g} ± {deviation:.3g}"
    )
    return _svg("calibration", width, height, title, "".join(parts))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-min(max(value, -60.0), 60.0)))


def _svg(kind: str, width: float, height: float, title: str, body: str) -> Markup:
    return Markup(
        f'<svg class="picture {kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )
