"""Repositories: create, delete, rename, and who may see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from modhub.errors import ConflictError, IntegrityError, NotFoundError, RefError
from modhub.refs import RepositoryId, skeleton
from modhub.store.audit import AuditLog
from modhub.store.blobs import Blobs, store_content
from modhub.store.commits import Commits
from modhub.store.index import Index
from modhub.store.last_changes import LastChanges
from modhub.store.model import MAIN
from modhub.store.reader import Reader
from modhub.store.records import HEADS, CommitRecord, RepositoryKey, RepositoryRecord, Settings, now
from modhub.store.references import References, RepositoryState, no_repository
from modhub.store.releases import Releases
from modhub.store.tree import Tree
from modhub.store.uploads import tree_file
from modhub.store.write_lock import WriteLock

PUBLIC = Settings()
NO_FILES: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Repositories:
    """All repositories of a store. `actor` is whom the audit log names.

    Raises `NotFoundError` (`missing="repository"`) for an unknown key, `StorageError` when the disk refuses.
    """

    _blobs: Blobs
    _references: References
    _audit: AuditLog
    _index: Index
    _reader: Reader
    _commits: Commits
    _releases: Releases
    _last_changes: LastChanges
    _write_lock: WriteLock

    def all(self, kind: str | None = None) -> Iterator[RepositoryKey]:
        """All of them in order of their names; with 10,000 or more prefer `Index.search`."""
        return self._references.all(kind)

    def exists(self, key: RepositoryKey) -> bool:
        return self._references.record(key) is not None

    def get(self, key: RepositoryKey) -> RepositoryRecord:
        """Spelling, creation date and settings."""
        record = self._references.record(key)
        if record is None:
            raise no_repository(key)
        return record

    def moved_to(self, key: RepositoryKey) -> RepositoryId | None:
        """Where the repository of that name went; None when it is there, or never was."""
        return self._references.moved_to(key)

    def create(
        self,
        key: RepositoryKey,
        *,
        settings: Settings = PUBLIC,
        files: Mapping[str, bytes] = NO_FILES,
        actor: str = "",
    ) -> RepositoryRecord:
        """A repository with `files` in its first commit on main.

        Raises `ConflictError` for a taken name, `RefError` for a namespace that looks like another one.
        """
        record = RepositoryRecord(kind=key.kind, id=key.id, created=now(), settings=settings)
        with self._write_lock(key):
            if self.exists(key):
                raise _name_taken(key)
            self._check_namespace(key)
            contents = files.items()
            tree = Tree({path: tree_file(store_content(self._blobs, content)) for path, content in contents})
            first = CommitRecord(
                parents=(),
                tree=self._commits.put_tree(tree),
                title="initial commit",
                description="",
                author=actor,
                date=record.created,
                ref=HEADS + MAIN,
                generation=0,
            )
            self._audit.append("create-repository", key.subject, actor, private=settings.private)
            self._references.create(record, RepositoryState({HEADS + MAIN: first.id}), first)
            self._last_changes.record(key, first, Tree({}), tree)
        return record

    def _check_namespace(self, key: RepositoryKey) -> None:
        """Raises `RefError` for a new namespace that is easily taken for one that is there."""
        present = self._references.namespaces()
        namespace = key.id.namespace.lower()
        if namespace in present:
            return
        for other in sorted(present):
            if skeleton(other) == skeleton(namespace):
                raise RefError(
                    f"The namespace '{key.id.namespace}' looks like '{other}', which is there.",
                    hint="Choose one that nobody takes for it.",
                )

    def delete(self, key: RepositoryKey, *, actor: str = "") -> None:
        """Removed at once; its blobs go with the next `gc`, and its releases stay on record."""
        with self._write_lock(key):
            self.get(key)
            self._releases.leave_behind(key)
            self._audit.append("delete-repository", key.subject, actor)
            self._references.remove(key)

    def move(self, key: RepositoryKey, to: RepositoryId, *, actor: str = "") -> RepositoryRecord:
        """Rename; the old name answers `moved_to` until it is taken again.

        Raises `ConflictError` when the new name is taken, `ReleaseError` when a repository of that name had
        a release that one of these is not.
        """
        target = RepositoryKey(key.kind, to)
        with self._write_lock(key, target):
            record = self.get(key)
            if target != key and self.exists(target):
                raise _name_taken(target)
            if target != key:
                self._releases.leave_behind(key, target)
                self._touch_all(key)
            self._audit.append("move-repository", key.subject, actor, to=str(to))
            self._references.move(record, to)
        return replace(record, id=to)

    def change_settings(self, key: RepositoryKey, settings: Settings, *, actor: str = "") -> RepositoryRecord:
        with self._write_lock(key):
            record = replace(self.get(key), settings=settings)
            self._audit.append("change-settings", key.subject, actor, **settings.to_dict())
            self._references.save(record)
        return record

    def count_download(self, key: RepositoryKey, visit: bytes = b"") -> int:
        """Add one download, unless one of the same `visit` was counted; the total.

        Survives crashes; counted once however many processes count.
        """
        total, counted = self._references.count_download(key, visit)
        if counted:
            self._index.set_downloads(key, total)
        return total

    def _touch_all(self, key: RepositoryKey) -> None:
        """Make all blobs of `key` look new: a running `gc` may have passed its new name already."""
        needed: set[str] = set(self._references.uploads(key))
        for commit, _ in self._references.commits(key):
            # Damaged commits cannot be read, and may be moved all the same.
            with suppress(IntegrityError, NotFoundError):
                record = self._reader.commit(key, commit)
                needed.add(record.tree)
                needed.update(file.sha256 for file in self._reader.tree_of(record).values())
        for sha256 in needed:
            self._blobs.touch(sha256)


def _name_taken(key: RepositoryKey) -> ConflictError:
    return ConflictError(
        f"A {key.kind} repository called '{key.id}' exists already.", hint="Choose another name."
    )
