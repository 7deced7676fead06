"""Text on a terminal: its width, styles, and characters that must not reach it."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from typing import Any

import click


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is a pipe or a file."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def cell_width(text: str) -> int:
    """Columns that the text takes: East Asian characters take two, combining ones none."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def printable(text: str) -> str:
    """Text on one line, control characters written as escapes: file names may hold any."""
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) == "Cc" else character for character in text
    )


def styled(text: str, **style: Any) -> str:
    """`click.style`, unless NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)
