"""Blobs: bytes by their sha256.

What `finish` returned survives a crash, equal bytes are stored once, and `discard` spares what was written or
touched since a writer at work began.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from modhub.errors import DigestMismatchError, IntegrityError, SizeMismatchError, StorageError
from modhub.files import fsync_directory
from modhub.integrity import git_oid
from modhub.store.disk import disk_errors, file_lock, make_directory
from modhub.store.leases import Leases

SNIFFED = 8192


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes: sha256, size, git's sha1, and whether they begin as UTF-8 text."""

    sha256: str
    size: int
    oid: str
    text: bool


class Blobs:
    """Files `<root>/ab/<sha256>`, received under `<staging>` on the same disk."""

    def __init__(self, root: Path, staging: Path) -> None:
        self._root = root
        self._staging = staging
        self._leases = Leases(staging)

    def _at(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes, or None when there is no such blob."""
        try:
            return self._at(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """Read from `offset` on. Raises `IntegrityError` when the blob is not there."""
        try:
            stream = self._at(sha256).open("rb")
        except FileNotFoundError:
            raise IntegrityError(
                f"The file contents {sha256} are missing from the store.",
                hint="Push the same files again, or restore them from a backup.",
            ) from None
        stream.seek(offset)
        return stream

    def path(self, sha256: str) -> Path | None:
        """A local file with the bytes, never to be changed, if there is one."""
        path = self._at(sha256)
        return path if path.is_file() else None

    def writer(self, *, size: int | None = None) -> BlobWriter:
        """Receive a blob; `size` is what the sender announced."""
        make_directory(self._staging)
        with disk_errors(self._staging):
            with ExitStack() as stack:
                stack.enter_context(self.writing())
                writer = BlobWriter(self, self._staging, size)
                writer.lease = stack.pop_all()
            return writer

    def adopt(self, staged: Path, sha256: str) -> None:
        """Move the synced file `staged` into place, or delete it when the bytes exist already."""
        place = self._at(sha256)
        make_directory(place.parent)
        with disk_errors(place), self._locked(sha256):
            if place.is_file() and place.stat().st_size == staged.stat().st_size:
                os.utime(place)
                staged.unlink()
                return
            os.replace(staged, place)
            fsync_directory(place.parent)

    def writing(self) -> AbstractContextManager[None]:
        """Inside the block nothing that is written or touched in it is before `unused_before`."""
        return self._leases.writing()

    def unused_before(self) -> float:
        """What was written or touched before this moment is in no writer's use.

        Ask before looking at references: then it holds for every writer that begins later, too.
        """
        return self._leases.oldest()

    def touch(self, sha256: str) -> bool:
        """Make it as young as one just written; False when it does not exist."""
        with self._locked(sha256):
            try:
                os.utime(self._at(sha256))
            except FileNotFoundError:
                return False
            return True

    def discard(self, sha256: str, *, before: float, dry_run: bool = False) -> bool:
        """Remove it unless it was written or touched since the moment `before`; whether it goes."""
        place = self._at(sha256)
        with disk_errors(place), self._locked(sha256):
            if not place.is_file() or place.stat().st_mtime >= before:
                return False
            if not dry_run:
                place.unlink()
            return True

    def all(self) -> Iterator[str]:
        """Every digest, in order."""
        if not self._root.is_dir():
            return
        for folder in sorted(self._root.iterdir()):
            if folder.is_dir():
                yield from sorted(name for name in os.listdir(folder) if len(name) == 64)

    def _locked(self, sha256: str) -> AbstractContextManager[bool]:
        return file_lock(self._root / ".locks" / sha256[:2])


class BlobWriter:
    """Receives bytes in chunks. Leaving the `with` block before `finish` leaves nothing behind."""

    def __init__(self, blobs: Blobs, staging: Path, size: int | None) -> None:
        self._blobs = blobs
        self._path = staging / f"blob-{secrets.token_hex(8)}"
        # For reading, by those whom the umask allows it.
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        self._stream = os.fdopen(handle, "wb")
        self._announced = size
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._sha1 = None if size is None else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        self._head = b""
        self.lease = ExitStack()

    def write(self, chunk: bytes) -> None:
        """Raises `StorageError`, and `IntegrityError` as soon as there are more bytes than announced."""
        self._size += len(chunk)
        if self._announced is not None and self._size > self._announced:
            raise IntegrityError(
                f"The upload is larger than the announced {self._announced:,} bytes.",
                hint="Send it again.",
            )
        if len(self._head) < SNIFFED:
            self._head += chunk[: SNIFFED - len(self._head)]
        self._sha256.update(chunk)
        if self._sha1 is not None:
            self._sha1.update(chunk)
        with disk_errors(self._path.parent):
            self._stream.write(chunk)

    def finish(self, *, sha256: str | None = None) -> Blob:
        """Make the bytes durable and visible. Raises `IntegrityError` when digest or size are wrong."""
        if self._announced is not None and self._size != self._announced:
            raise SizeMismatchError(
                "The upload", expected=self._announced, actual=self._size, hint="Send it again."
            )
        digest = self._sha256.hexdigest()
        if sha256 is not None and sha256 != digest:
            raise DigestMismatchError(
                "The upload", algorithm="sha256", expected=sha256, actual=digest, hint="Send it again."
            )
        with disk_errors(self._path.parent):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        oid = git_oid(self._path) if self._sha1 is None else self._sha1.hexdigest()
        self._blobs.adopt(self._path, digest)
        return Blob(digest, self._size, oid, _is_text(self._head))

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk may refuse the last buffered bytes; the file is removed either way.
        with suppress(OSError):
            self._stream.close()
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.lease.close()


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    # A character cut off at the end of the sample does not mean binary data.
    for cut in range(4):
        try:
            head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            if len(head) < SNIFFED:
                return False
        else:
            return True
    return False


def store_content(blobs: Blobs, content: bytes | Path) -> Blob:
    """Store `content`, bytes or a file's. Raises `StorageError`."""
    if isinstance(content, bytes):
        with blobs.writer(size=len(content)) as writer:
            writer.write(content)
            return writer.finish()
    try:
        stream = content.open("rb")
    except OSError as error:
        raise StorageError(
            f"'{content}' cannot be read: {error.strerror or error}.",
            hint="Check that it exists and is readable.",
        ) from error
    with stream, blobs.writer(size=os.fstat(stream.fileno()).st_size) as writer:
        while chunk := stream.read(1 << 20):
            writer.write(chunk)
        return writer.finish()
