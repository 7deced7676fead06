"""Disk access: locks between processes, durable directories, refusals as `StorageError`."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modhub.errors import StorageError
from modhub.files import fsync_directory

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def disk_errors(place: Path | str) -> Iterator[None]:
    """Turn what the disk refuses inside the block into `StorageError` naming `place`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"'{place}' cannot be used: {error.strerror or error}.",
            hint="Choose a writable location with free space.",
            path=place if isinstance(place, Path) else None,
        ) from error


@contextmanager
def file_lock(path: Path, *, wait: bool = True, reading: bool = False) -> Iterator[bool]:
    """Hold the lock at `path` against all threads and processes; the system releases it when a process dies.

    Yields False, without the lock, when another holder has it and `wait` is false. With `reading` a lock file
    that cannot be created is not needed, and True is yielded.
    """
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except StorageError:
        if not reading:
            raise
        yield True
        return
    try:
        try:
            lock_file(handle, wait=wait)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def lock_file(handle: int, *, wait: bool = True) -> None:
    """Lock an open file until it is closed.

    On a disk without locks, as some network file systems are, nothing is locked: whoever writes there with
    several processes at once does so at their own risk. Raises `BlockingIOError` where another has the lock
    and there is no `wait`.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise


def make_directory(path: Path) -> None:
    """`path` and what is missing above it, surviving a crash. Raises `StorageError`."""
    if path.is_dir():
        return
    with disk_errors(path):
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)
