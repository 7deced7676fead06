"""The values of a versioned file store: files, changes, references, summaries of repositories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modhub.integrity import check_content, matches
from modhub.refs import RepositoryId

MAIN = "main"
HUB_FILES = ("yanked.json", ".gitattributes")
"""Files that belong to the hub or to all releases, not to one."""


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


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the file or folder `source` of `revision` (None: the branch's newest) to `path`."""

    path: str
    source: str
    revision: str | None = None


Change = Add | Copy | Delete


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a commit: its size in bytes, and the digest to verify it by.

    `sha256` is of the content; hubs that keep small files in git know only `oid`, git's sha1 of a blob.
    """

    size: int
    sha256: str | None
    oid: str | None = None

    def matches(self, content: bytes | Path) -> bool:
        """Whether `content` (bytes or a file) has this size and digest."""
        return matches(content, size=self.size, sha256=self.sha256, oid=self.oid)

    def check(self, content: bytes | Path, place: str, *, hint: str) -> None:
        """Raise `IntegrityError` naming `place` unless `content` has this size and digest."""
        check_content(content, size=self.size, sha256=self.sha256, oid=self.oid, place=place, hint=hint)


@dataclass(frozen=True, slots=True)
class Refs:
    """Names of commits: `branches` and `tags` map a short name (`main`, `v1.0.0`) to 40 hex digits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """A repository as a search returns it; `updated` is ISO 8601 in UTC, or empty where unknown."""

    id: RepositoryId
    tags: tuple[str, ...]
    downloads: int = 0
    updated: str = ""
    private: bool = False
    head: str | None = field(default=None, compare=False)
