"""What a hub is to modhub: a versioned file store. Nothing in here knows what a module is.

A repository has branches and tags, each naming a commit; a commit is a whole tree of files and never changes.
Three hubs behave alike: `DirectoryHub` (files, no server), any endpoint of the Hugging Face Hub protocol, and
huggingface.co. `modhub.catalog` gives the files their meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter

__all__ = ["Add", "Change", "Delete", "FileEntry", "Hub", "Refs", "RepositorySummary", "git_oid"]

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


class Hub(Protocol):
    """A versioned file store. Every method may raise `HubError`, `AccessError` and `OfflineError`.

    `NotFoundError.missing` says which of repository, revision and file is not there. Commits are named by 40
    hex digits; a `revision` is a commit, a tag or a branch.
    """

    @property
    def address(self) -> str:
        """Where it is, without credentials: a directory, `https://host`, or `hf`."""

    @property
    def local(self) -> bool:
        """Whether it works without a network."""

    def find(
        self, tags: Sequence[str] = (), *, text: str = "", author: str = "", limit: int = 1000
    ) -> list[RepositorySummary]:
        """Repositories that carry all `tags`, whose name or tags contain `text`; the most recent first."""

    def refs(self, repository: RepositoryId) -> Refs:
        """Branches and tags as they are now."""

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        """The commit that `revision` names now. Raises `NotFoundError`."""

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        """All files of a commit by path; the same for ever."""

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Files of a commit of which the hub says that it lost their contents; `restore` brings them back."""

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 16 << 20) -> bytes:
        """A small file's bytes. Raises `HubError` when it has more than `limit`."""

    def download(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        destination: BinaryIO,
        *,
        offset: int = 0,
        reporter: Reporter = SILENT,
    ) -> None:
        """Write the file's bytes from `offset` on to `destination`; `reporter.advance` counts bytes.

        Verifies nothing: the caller knows what to expect (`modhub.hub.cache` does it for everybody).
        """

    def create_repository(
        self, repository: RepositoryId, *, private: bool = False, exist_ok: bool = False
    ) -> None:
        """Raises `ConflictError` when it exists and `exist_ok` is false."""

    def commit(
        self,
        repository: RepositoryId,
        changes: Sequence[Change],
        message: str,
        *,
        parent: str | None = None,
        branch: str = MAIN,
        reporter: Reporter = SILENT,
    ) -> str:
        """Apply `changes` to `branch` as one commit, all or nothing; the new commit.

        With `parent`, raises `StaleParentError` when the branch is no longer there; that may be because this
        very commit landed, and a hub whose answer got lost was asked again.
        """

    def restore(self, repository: RepositoryId, lost: Sequence[Add], *, reporter: Reporter = SILENT) -> None:
        """Send contents that the hub has `lost` of files in any of its commits; no reference moves."""

    def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
        """Raises `ConflictError` when the tag stands on another commit; on the same nothing happens."""


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
