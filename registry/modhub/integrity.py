"""Bytes against the size and digest recorded for them: one check, one wording."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from modhub.errors import DigestMismatchError, IntegrityError, MissingFileError, SizeMismatchError

_CHUNK = 1 << 20


def git_oid(content: bytes | Path) -> str:
    """Git's sha1 of a blob with these bytes (or this file's), 40 hex digits."""
    head = hashlib.sha1(b"blob %d\0" % _size(content), usedforsecurity=False)
    return _digest(content, head)


def matches(content: bytes | Path, *, size: int, sha256: str | None, oid: str | None = None) -> bool:
    """Whether `content` (bytes or a file) has this size and digest.

    The digest is `sha256` or, where that is None, git's sha1 `oid`; without either nothing matches. Raises
    `OSError` for a file that cannot be read.
    """
    return _mismatch(content, size, sha256, oid, "") is None


def check_content(
    content: bytes | Path, *, size: int, sha256: str | None, place: str, hint: str, oid: str | None = None
) -> None:
    """Raise `IntegrityError` unless `content` (bytes or a file) has this size and digest.

    `place` names the content in the message and `hint` says how to get it again. The kinds of error are
    `MissingFileError`, `SizeMismatchError` and `DigestMismatchError`; a file that cannot be read is the base.
    """
    try:
        error = _mismatch(content, size, sha256, oid, place)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        error = MissingFileError(place)
    except OSError as refusal:
        error = IntegrityError(f"{place} cannot be read: {refusal.strerror or refusal}.")
    if error is not None:
        error.hint = hint
        raise error


def read_checked(path: Path, *, size: int, sha256: str, place: str, hint: str) -> bytes:
    """The file's content, once `check_content` has passed it; a file of another size is not read."""
    content: bytes | Path = path
    with suppress(OSError):
        if path.stat().st_size == size:
            content = path.read_bytes()
    check_content(content, size=size, sha256=sha256, place=place, hint=hint)
    return path.read_bytes() if isinstance(content, Path) else content


def _mismatch(
    content: bytes | Path, size: int, sha256: str | None, oid: str | None, place: str
) -> IntegrityError | None:
    if (actual := _size(content)) != size:
        return SizeMismatchError(place, expected=size, actual=actual)
    if sha256 is not None:
        algorithm, expected, digest = "sha256", sha256, _digest(content, hashlib.sha256())
    else:
        algorithm, expected, digest = "git sha1", oid or "", git_oid(content)
    if digest != expected:
        return DigestMismatchError(place, algorithm=algorithm, expected=expected, actual=digest)
    return None


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _digest(content: bytes | Path, digest: hashlib._Hash) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
