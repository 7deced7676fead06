"""Tables as lines of text, fitted to a width by leaving out columns, never by breaking a cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from modhub_cli.terminal import cell_width, printable

_GAP = 2
# Where space is short, text outside the first column is cut to this. Numbers are never cut.
_TEXT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as it is printed. `hidden` are the columns for which there was no space."""

    header: str
    lines: tuple[str, ...]
    hidden: tuple[str, ...]


def fit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    width: int | None = None,
) -> Table:
    """Lay out a table within `width` columns; None is no limit. Every row is one line.

    Columns stand in order of importance. Where they do not fit, long texts are cut, then columns are left out
    from the right. The first column identifies the row and is the last to be cut, in the middle. Columns in
    `right` hold numbers: aligned to the right and never cut.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = _widths(cells)
    if width is not None and _total(widths) > width:
        texts = [position for position in range(1, len(columns)) if position not in right]
        cells = [
            [_cut(cell, _TEXT) if position in texts else cell for position, cell in enumerate(row)]
            for row in cells
        ]
        widths = _widths(cells)
        while len(widths) > 1 and _total(widths) > width:
            widths.pop()
        if widths[0] > width:
            cells = [[_cut(row[0], width)] for row in cells]
            widths = [width]
    header, *lines = (
        (" " * _GAP)
        .join(
            _padded(cell, columns_taken, right=position in right)
            for position, (cell, columns_taken) in enumerate(zip(row, widths, strict=False))
        )
        .rstrip()
        for row in cells
    )
    return Table(header=header, lines=tuple(lines), hidden=tuple(columns[len(widths) :]))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_width, column)) for column in zip(*cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _padded(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - cell_width(text))
    return padding + text if right else text + padding


def _cut(text: str, width: int) -> str:
    """At most `width` columns: the beginning and the end, which is where refs differ."""
    if cell_width(text) <= width:
        return text
    end = _beginning(text[::-1], (width - 1) // 2)[::-1]
    return f"{_beginning(text, width - 1 - cell_width(end))}…{end}"


def _beginning(text: str, width: int) -> str:
    while cell_width(text) > width:
        text = text[:-1]
    return text
