"""What a versioned file store is made of: files, changes, references, summaries of repositories."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modhub.refs import RepositoryId

__all__ = ["MAIN", "Add", "Change", "Delete", "FileEntry", "Refs", "RepositorySummary", "git_oid"]

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Add:
    """Put `content` (bytes, or a file to read them from) at `path`, replacing what is there."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the file at `path`, or everything below it when it is a folder. Missing paths are an error."""

    path: str


Change = Add | Delete


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a commit: size in bytes and what there is to verify it with.

    `sha256` is of the content; hubs that keep small files in git know only `oid`, git's sha1 of a blob.
    """

    size: int
    sha256: str | None
    oid: str | None = None

    def matches(self, content: bytes | Path) -> bool:
        """Whether `content` (bytes or a file) is what this entry promises."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        if size != self.size:
            return False
        if self.sha256 is not None:
            return _digest(content, hashlib.sha256()) == self.sha256
        return self.oid is not None and git_oid(content) == self.oid


@dataclass(frozen=True, slots=True)
class Refs:
    """Names of commits: `branches` and `tags` map a short name (`main`, `v1.0.0`) to 40 hex digits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """What a search says of one repository; `updated` is ISO 8601 in UTC, empty when the hub does not say."""

    id: RepositoryId
    tags: tuple[str, ...]
    downloads: int = 0
    updated: str = ""
    private: bool = False
    head: str | None = field(default=None, compare=False)


def git_oid(content: bytes | Path) -> str:
    """Git's sha1 of a blob with these bytes, 40 hex digits."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    return _digest(content, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False))


def _digest(content: bytes | Path, digest: hashlib._Hash) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
