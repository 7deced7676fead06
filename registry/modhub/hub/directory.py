"""The embedded hub: a directory; no server, no network, no account."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from modhub.errors import ConflictError, NotFoundError, StorageError
from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.blobs import store_content
from modhub.store.disk import disk_errors
from modhub.store.index import Query
from modhub.store.model import Add, Change, FileEntry, Refs, RepositorySummary
from modhub.store.records import HEADS, TAGS, RepositoryKey, Settings
from modhub.store.store import Store
from modhub.store.tree import Tree

CHUNK = 1 << 20
MOVES = 10


class DirectoryHub:
    """A `Hub` over the store in `root`, which the first push creates; with `create`, reading does, too.

    Raises `StorageError` where that is impossible. Without `create`, reading a missing directory raises
    `NotFoundError`: a mistyped name leaves nothing behind.
    """

    local = True

    def __init__(self, root: Path | str, *, create: bool = False) -> None:
        path = Path(root).expanduser()
        if path.exists() and not path.is_dir():
            raise StorageError(f"The hub '{path}' is not a directory.", hint="Pass a directory with --hub.")
        self._root = path.resolve()
        self._create = create
        self.address = str(self._root)

    @cached_property
    def store(self) -> Store:
        """The store, created if it does not exist."""
        return Store(self._root)

    @property
    def _existing(self) -> Store:
        if not self._create and not self._root.is_dir():
            raise NotFoundError(
                f"'{self._root}' is not a hub directory.",
                hint="Pass another with --hub, or create it with a push.",
                missing="repository",
            )
        return self.store

    def namespaces(self) -> frozenset[str] | None:
        """All, where the directory is the user's; of another user's directory none."""
        place = next(folder for folder in (self._root, *self._root.parents) if folder.exists())
        return None if place.stat().st_uid == os.getuid() else frozenset()

    def find(self, tags: Sequence[str] = (), *, text: str = "", limit: int = 1000) -> list[RepositorySummary]:
        query = Query(tags=tuple(tags), text=text)
        return [
            RepositorySummary(entry.id, entry.tags, entry.downloads, entry.updated, entry.private, entry.head)
            for entry in self._existing.index.search(query, limit=limit)
        ]

    def refs(self, repository: RepositoryId) -> Refs:
        refs = self._existing.reader.refs(self._key(repository))
        return Refs(
            branches={name.removeprefix(HEADS): refs[name] for name in refs if name.startswith(HEADS)},
            tags={name.removeprefix(TAGS): refs[name] for name in refs if name.startswith(TAGS)},
        )

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        return self._existing.reader.resolve(self._key(repository), revision)

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        return {path: file.entry for path, file in self._tree(repository, commit).items()}

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        return frozenset(self._existing.reader.lost(self._tree(repository, commit)))

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 16 << 20) -> bytes:
        return self._existing.reader.read(
            self._key(repository), self.commit_of(repository, commit), path, limit=limit
        )

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
        file = self._existing.reader.file(self._key(repository), self.commit_of(repository, commit), path)
        with disk_errors(path), self._existing.reader.open(file.sha256, offset) as stream:
            while chunk := stream.read(CHUNK):
                destination.write(chunk)
                reporter.advance(len(chunk))

    def create_repository(
        self, repository: RepositoryId, *, private: bool = False, exist_ok: bool = False
    ) -> None:
        try:
            self.store.repositories.create(
                RepositoryKey.model(repository), settings=Settings(private=private), actor=_user()
            )
        except ConflictError:
            if not exist_ok:
                raise

    def delete_repository(self, repository: RepositoryId) -> None:
        self._existing.repositories.delete(self._key(repository), actor=_user())

    def commit(
        self,
        repository: RepositoryId,
        changes: Sequence[Change],
        message: str,
        *,
        parent: str | None = None,
        reporter: Reporter = SILENT,
    ) -> str:
        key = self._key(repository)
        return self._existing.commits.create(key, changes, title=message, actor=_user(), parent=parent).id

    def restore(self, repository: RepositoryId, lost: Sequence[Add], *, reporter: Reporter = SILENT) -> None:
        for file in lost:
            store_content(self._existing.blobs, file.content)
            reporter.advance(file.size)

    def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
        key = self._key(repository)
        existing = self._existing.tags.create(key, name, revision=commit, actor=_user(), exist_ok=True)
        if existing != commit:
            raise ConflictError(
                f"The tag '{name}' of '{repository}' is on another commit.", hint="Choose another name."
            )

    def _tree(self, repository: RepositoryId, commit: str) -> Tree:
        return self._existing.reader.tree(self._key(repository), self.commit_of(repository, commit))

    def _key(self, repository: RepositoryId) -> RepositoryKey:
        """The repository's key, following its moves as far as a server does."""
        key = RepositoryKey.model(repository)
        for _ in range(MOVES):
            moved = self._existing.repositories.moved_to(key)
            if moved is None:
                break
            key = RepositoryKey.model(moved)
        return key


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
