"""Measurements that survive an interruption: one JSON line each, written when it is known."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Row", "markdown"]


class Ledger:
    """`measure(key, work)` runs `work` once; a later run reads what it returned. Out of time, it skips, and
    so it does what is not named as `only` says.

    Several processes may keep one file: none measures what another is at.
    """

    def __init__(self, path: Path, *, seconds: float | None = None, only: str = "") -> None:
        self.path, self.only = path, re.compile(only)
        self.until = None if seconds is None else time.monotonic() + seconds
        self.known: dict[str, Any] = {}
        self.skipped = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._read()

    def measure(self, key: str, work: Callable[[], Any]) -> Any:
        """What `work()` returned, now or in an earlier run; None when there is no time left for it, or
        another process is at it."""
        if key in self.known:
            return self.known[key]
        late = self.until is not None and time.monotonic() > self.until
        if late or not self.only.search(key):
            self.skipped += 1
            return None
        with self._claimed(key) as free:
            if not free:
                self.skipped += 1
                return None
            self._read()
            if key not in self.known:
                start = time.perf_counter()
                self._keep(key, work())
                print(f"  {key}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        return self.known[key]

    def _read(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            # A run that was killed may leave half a last line.
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self.known[entry["key"]] = entry["value"]

    def _keep(self, key: str, value: Any) -> None:
        self.known[key] = value
        with self.path.open("a") as stream:
            stream.write(json.dumps({"key": key, "value": value}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def _claimed(self, key: str) -> Iterator[bool]:
        """Whether no other process was at `key`, which then is this one's; the system lets go of it when a
        process ends, however it ends."""
        path = self.path.parent / "claims" / f"{zlib.crc32(key.encode()):08x}"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


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
