"""Pictures for a self-contained page: inline SVG and PNG data, readable in light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CELL, _ROW, _LEFT = 3, 16, 34


def mask_picture(
    labels: Sequence[str], kept: NDArray[np.bool_], groups: Sequence[tuple[str, int]], title: str
) -> str:
    """Which slots each module keeps, (module, slot), one row each; `groups` are (name, end slot)."""
    rows, slots = kept.shape
    width, height = _LEFT + slots * _CELL + 4, rows * _ROW + 22
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" class="mask">']
    for row, label in enumerate(labels):
        top = row * _ROW
        parts.append(f'<text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">{escape(label)}</text>')
        for start, end in _runs(kept[row]):
            left, wide = _LEFT + start * _CELL, (end - start) * _CELL
            parts.append(f'<rect x="{left}" y="{top + 2}" width="{wide}" height="{_ROW - 4}" class="kept"/>')
    for _, end in groups[:-1]:
        x = _LEFT + end * _CELL
        parts.append(f'<line x1="{x}" x2="{x}" y1="0" y2="{rows * _ROW}" class="rule"/>')
    begin = 0
    for number, (_, end) in enumerate(groups, 1):
        centre = _LEFT + (begin + end) * _CELL / 2
        parts.append(f'<text x="{centre:.0f}" y="{rows * _ROW + 15}" text-anchor="middle">{number}</text>')
        begin = end
    return "".join(parts) + "</svg>"


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def confusion_table(labels: Sequence[str], confusion: Sequence[Sequence[int]], title: str) -> str:
    """Counts of true class (rows) against answer (columns), shaded by their share of the row."""
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    body = []
    for number, (label, row) in enumerate(zip(labels, confusion, strict=True)):
        total = max(sum(row), 1)
        cells = []
        for column, count in enumerate(row):
            kind = "right" if column == number else "wrong"
            shade = f' class="{kind}" style="--share:{count / total:.2f}"' if count else ""
            cells.append(f"<td{shade}>{count or ''}</td>")
        body.append(f'<tr><th scope="row">{escape(label)}</th>{"".join(cells)}</tr>')
    return (
        f'<table class="confusion"><caption>{escape(title)}</caption>'
        f"<tr><td></td>{head}</tr>{''.join(body)}</table>"
    )


def thumbnail(pixels: NDArray[np.uint8], title: str) -> str:
    """An image, uint8 (height, width, 1 or 3), as an <img> with its bytes inside."""
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}" width="48" height="48">'
