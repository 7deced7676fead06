"""Measurements that survive an interruption: one JSON line each, written when it is known."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Row", "markdown"]


class Ledger:
    """`measure(key, work)` runs `work` once; a later run reads what it returned. Out of time, it skips."""

    def __init__(self, path: Path, *, seconds: float | None = None) -> None:
        self.path = path
        self.until = None if seconds is None else time.monotonic() + seconds
        self.known: dict[str, Any] = {}
        self.skipped = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                # A run that was killed may leave half a last line.
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                self.known[entry["key"]] = entry["value"]

    def measure(self, key: str, work: Callable[[], Any]) -> Any:
        """What `work()` returned, now or in an earlier run; None when there is no time left for it."""
        if key in self.known:
            return self.known[key]
        if self.until is not None and time.monotonic() > self.until:
            self.skipped += 1
            return None
        start = time.perf_counter()
        value = work()
        self.known[key] = value
        with self.path.open("a") as stream:
            stream.write(json.dumps({"key": key, "value": value}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        print(f"  {key}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        return value


class Row:
    """One line of the table: what, on which parents, the target, what was measured, and whether it is met."""

    def __init__(self, what: str, parents: str, target: str, measured: str, met: bool | None) -> None:
        self.what, self.parents, self.target, self.measured, self.met = what, parents, target, measured, met

    def cells(self) -> list[str]:
        word = {True: "met", False: "missed", None: "reported"}[self.met]
        return [self.what, self.parents, self.target, self.measured, word]


def markdown(rows: list[Row]) -> str:
    """A Markdown table of rows."""
    head = ["what", "parents", "target", "measured", ""]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
