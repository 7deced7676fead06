"""How often a repository was downloaded: two files that grow by some bytes each time.

`downloads` has a byte for every download, and `visits` 8 bytes for each of those whose visitor is told apart.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from modhub.store.disk import disk_errors


def count_download(folder: Path, visit: bytes) -> tuple[int, bool]:
    """Add one to the downloads of the repository in `folder`, unless `visit` (8 bytes, or none) was counted.

    The total, and whether one was added. Raises `StorageError`.
    """
    path = folder / "downloads"
    with disk_errors(path):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            return 0, False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            counted = not visit or _noted(folder / "visits", visit)
            if counted:
                os.write(handle, b"1")
            return os.fstat(handle).st_size, counted
        finally:
            os.close(handle)


def downloads(folder: Path) -> int:
    """The total."""
    try:
        return (folder / "downloads").stat().st_size
    except FileNotFoundError:
        return 0


def _noted(path: Path, visit: bytes) -> bool:
    """Add `visit` to the file; False when it is there."""
    with path.open("a+b") as stream:
        stream.seek(0)
        visits = stream.read()
        place = visits.find(visit)
        # Found across two entries it is neither.
        while place % len(visit) and place >= 0:
            place = visits.find(visit, place + 1)
        if place < 0:
            # A crash may have cut the last one short.
            stream.truncate(len(visits) - len(visits) % len(visit))
            stream.write(visit)
        return place < 0
