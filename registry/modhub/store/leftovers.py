"""What interrupted writers leave: files that were being received or written, and folders on their way."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from modhub.store.leases import is_lease

DAY = 86_400.0
# As `modhub.files.new_file` names them.
_UNFINISHED = re.compile(r"\..*\.part\.[a-z0-9_]{8}(\.[^.]*)?\Z", re.DOTALL)


def leftovers(root: Path, before: float, *, waits: float = DAY) -> Iterator[Path]:
    """Files and folders of the store at `root` that were last written before that moment, and lead nowhere.

    The parts of an upload in several parts were acknowledged, and stay for `waits` seconds.
    """
    parts = {*multipart_uploads(root)}
    for path in _entries(root / "staging"):
        limit = min(before, time.time() - waits) if path in parts else before
        if not is_lease(path) and _age_before(path, limit):
            yield path
    for path in (*_entries(root), *_below(root)):
        if _UNFINISHED.match(path.name) and _age_before(path, before):
            yield path


def multipart_uploads(root: Path) -> list[Path]:
    """The folders of uploads that come in several parts."""
    return [path for path in _entries(root / "staging") if path.name.startswith("multipart-")]


def remove_leftover(path: Path) -> int:
    """Remove a file or folder; the bytes that the file had."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return 0
    with suppress(FileNotFoundError):
        size = path.stat().st_size
        path.unlink()
        return size
    return 0


def _below(root: Path) -> Iterator[Path]:
    for name in ("repositories", "moved", "removed"):
        for folder, _, files in os.walk(root / name):
            yield from (Path(folder, file) for file in files)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False
