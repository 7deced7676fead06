"""Which writers are at work, so that a garbage collection beside them knows what may be in use.

Every writer holds a lock on a file for as long as something that it wrote may lack a reference. Whatever is
younger than the oldest such file is spared. Nothing here depends on how long anybody takes, and all times are
those of the disk, so that no two clocks are compared.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modhub.store.disk import disk_errors, make_directory

ABANDONED_SECONDS = 60.0
_PREFIX = "writer-"


class Leases:
    """The writers of a store, each a locked file in `folder`; the system unlocks those of dead processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside the block everything younger than its beginning is spared. Raises `StorageError`."""
        with disk_errors(self._folder):
            handle, path = self._file()
        try:
            yield
        finally:
            # Its disk may be full or gone by now; without the lock the file says nothing.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(handle)

    def oldest(self) -> float:
        """What was written or touched before this moment, seconds of the disk's clock, is in no writer's use.

        Call it before looking at references: a writer that begins later is younger than the answer.
        """
        with disk_errors(self._folder):
            handle, path = self._file()
            try:
                moment = os.fstat(handle).st_mtime
                for other in self._folder.iterdir():
                    if other != path and is_lease(other):
                        moment = min(moment, _beginning(other, moment))
            finally:
                path.unlink(missing_ok=True)
                os.close(handle)
        return moment

    def _file(self) -> tuple[int, Path]:
        make_directory(self._folder)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=f".{_PREFIX}")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Only now can others find it, so that whoever finds it unlocked knows that its writer is gone.
            path = self._folder / Path(name).name[1:]
            os.rename(name, path)
        except BaseException:
            os.close(handle)
            raise
        return handle, path


def is_lease(path: Path) -> bool:
    """Whether a file stands for a writer; `Leases.oldest` removes those of writers that are gone."""
    return path.name.removeprefix(".").startswith(_PREFIX)


def _beginning(path: Path, now: float) -> float:
    """When the writer began; `now` where it is gone, and its file is removed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return now
    try:
        began = os.fstat(handle).st_mtime
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return began if not path.name.startswith(".") else now
        # One that cannot be found yet may not be locked yet.
        if not path.name.startswith(".") or time.time() - began > ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
        return now
    finally:
        os.close(handle)
