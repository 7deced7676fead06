"""Writing commits: contents first, then the list of files and the record, last the reference to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modhub.errors import IntegrityError, NotFoundError, StaleParentError
from modhub.store.audit import AuditLog
from modhub.store.blobs import Blobs, store_content
from modhub.store.changes import Add, Copy, Delete, Link, Put, StoreChange
from modhub.store.last_changes import LastChanges
from modhub.store.model import MAIN
from modhub.store.paths import check_path, check_ref_name
from modhub.store.reader import Reader, no_revision
from modhub.store.records import HEADS, PULLS, CommitRecord, RepositoryKey, now
from modhub.store.references import References, RepositoryState, no_repository
from modhub.store.tree import Tree, TreeFile
from modhub.store.uploads import Uploads, tree_file
from modhub.store.write_lock import WriteLock


@dataclass(frozen=True, slots=True)
class Commits:
    """Writes commits. `actor` is whom the audit log names.

    Raises `NotFoundError` for an unknown repository, and `StorageError` when the disk refuses.
    """

    _blobs: Blobs
    _references: References
    _audit: AuditLog
    _reader: Reader
    _uploads: Uploads
    _last_changes: LastChanges
    _write_lock: WriteLock

    def create(
        self,
        key: RepositoryKey,
        changes: Sequence[StoreChange],
        *,
        title: str,
        description: str = "",
        actor: str = "",
        parent: str | None = None,
        ref: str = MAIN,
    ) -> CommitRecord:
        """Apply `changes` to `ref` (a branch's short name, or `refs/pr/N`) as one commit, all or nothing.

        When it returns, the commit is on disk for good. Raises `StaleParentError` when `parent` is given and
        is not the newest commit of `ref`; without it the changes go on top of whatever is there. Raises
        `NotFoundError` for a deletion or copy of nothing, `IntegrityError` for paths no repository may have.
        """
        name = full_ref(ref)
        with self._blobs.writing():
            changes = self.store_contents(key, changes)
            with self._write_lock(key):
                state = self._references.state(key)
                head = _head(key, state, name)
                tree = self.apply(key, head, changes, ref=ref, parent=parent)
                return self.append(
                    key,
                    state,
                    name,
                    (head,),
                    tree,
                    title=title,
                    description=description,
                    actor=actor,
                    sent=changes,
                )

    def copy_files(
        self, source: RepositoryKey, key: RepositoryKey, *, title: str, actor: str = ""
    ) -> CommitRecord:
        """Give main of `key` all files of main of `source`, as one commit; no bytes are copied."""
        files = self._reader.tree(source)
        with self._write_lock(key):
            state = self._references.state(key)
            head = _head(key, state, HEADS + MAIN)
            tree = self._reader.tree_of(self._reader.commit(key, head)).changed(files, [])
            return self.append(key, state, HEADS + MAIN, (head,), tree, title=title, actor=actor)

    def squash(self, key: RepositoryKey, ref: str = MAIN, *, title: str, actor: str = "") -> CommitRecord:
        """Replace the history of `ref` by one commit with the same files; tags keep what they name."""
        name = full_ref(ref)
        with self._write_lock(key):
            state = self._references.state(key)
            head = self._reader.commit(key, _head(key, state, name))
            tree = self._reader.tree_of(head)
            return self.append(key, state, name, (), tree, title=title, actor=actor, after=head.generation)

    def store_contents(self, key: RepositoryKey, changes: Sequence[StoreChange]) -> list[StoreChange]:
        """`changes` for `apply`, with their bytes in the store. No lock is held while those come in.

        Call it within `Blobs.writing`, up to the commit.
        """
        for change in changes:
            check_path(change.path if not isinstance(change, Delete) else change.path.rstrip("/"))
        if self._references.record(key) is None:
            raise no_repository(key)
        return [
            Put(change.path, store_content(self._blobs, change.content))
            if isinstance(change, Add)
            else change
            for change in changes
        ]

    def apply(
        self, key: RepositoryKey, head: str, changes: Sequence[StoreChange], *, ref: str, parent: str | None
    ) -> Tree:
        """The files of `head`, the newest commit of `ref`, with `changes` from `store_contents`.

        Call it under the write lock; raises what `create` raises.
        """
        if parent is not None and parent != head:
            raise StaleParentError(
                f"The branch '{ref}' of '{key}' has moved on from {parent[:12]} to {head[:12]}.",
                hint="Read it again and repeat the change.",
            )
        base = self._reader.tree_of(self._reader.commit(key, head))
        links = [change.sha256 for change in changes if isinstance(change, Link)]
        uploaded = self._uploads.find_all(key, links)
        put: dict[str, TreeFile] = {}
        for change in changes:
            if isinstance(change, Put):
                put[change.path] = tree_file(change.blob)
            elif isinstance(change, Link):
                put[change.path] = _linked(uploaded.get(change.sha256), change)
            elif isinstance(change, Copy):
                put.update(self._copied(key, base, change))
        return base.changed(put, [change.path for change in changes if isinstance(change, Delete)])

    def append(
        self,
        key: RepositoryKey,
        state: RepositoryState,
        ref: str,
        parents: tuple[str, ...],
        tree: Tree,
        *,
        title: str,
        description: str = "",
        actor: str = "",
        after: int = 0,
        sent: Sequence[StoreChange] = (),
    ) -> CommitRecord:
        """Write a commit of `tree` and move `ref` (a full name) of `state` to it, under the write lock.

        Uploads used by the changes `sent` no longer wait for a commit. Raises `IntegrityError` when a `gc`
        removed contents meanwhile.
        """
        old = self._reader.tree_of(self._reader.commit(key, parents[0])) if parents else Tree({})
        for path, file in tree.items():
            if old.get(path) != file and not self._blobs.touch(file.sha256):
                raise IntegrityError(
                    f"The contents of '{path}' are not in the store any more.", hint="Send them again."
                )
        generations = [self._reader.commit(key, parent).generation for parent in parents]
        record = CommitRecord(
            parents=parents,
            tree=self.put_tree(tree),
            title=title,
            description=description,
            author=actor,
            date=now(),
            ref=ref,
            generation=1 + max([after, *generations]),
        )
        self._references.add_commit(key, record)
        self._audit.append(
            "commit",
            key.subject,
            actor,
            ref=ref,
            commit=record.id,
            parent=state.refs.get(ref),
            title=title[:200],
        )
        self._references.save_state(key, replace(state, refs={**state.refs, ref: record.id}))
        self._last_changes.record(key, record, old, tree)
        for change in sent:
            if isinstance(change, Link):
                self._references.forget_upload(key, change.sha256)
        return record

    def put_tree(self, tree: Tree) -> str:
        """Store a list of files; its sha256."""
        sha256 = store_content(self._blobs, tree.to_bytes()).sha256
        self._reader.remember(sha256, tree)
        return sha256

    def _copied(self, key: RepositoryKey, base: Tree, change: Copy) -> dict[str, TreeFile]:
        tree = base if change.revision is None else self._reader.tree(key, change.revision)
        if change.source in tree:
            return {change.path: tree[change.source]}
        prefix = change.source.rstrip("/") + "/"
        copies = {
            check_path(f"{change.path}/{path[len(prefix) :]}"): file
            for path, file in tree.items()
            if path.startswith(prefix)
        }
        if not copies:
            raise NotFoundError(
                f"There is no '{change.source}' in '{key}' to copy.",
                hint="Check the path, and the revision that it is copied from.",
                missing="file",
            )
        return copies


def full_ref(ref: str) -> str:
    """The full name of something commits can be made on: `main` → `refs/heads/main`; `refs/pr/1` as it is.

    Raises `RefError` for anything else, tags included.
    """
    if ref.startswith(PULLS) and ref[len(PULLS) :].isdecimal():
        return ref
    return HEADS + check_ref_name(ref.removeprefix(HEADS), "branch")


def _head(key: RepositoryKey, state: RepositoryState, ref: str) -> str:
    if ref not in state.refs:
        raise no_revision(key, ref)
    return state.refs[ref]


def _linked(file: TreeFile | None, change: Link) -> TreeFile:
    if file is None or (change.size is not None and change.size != file.size):
        raise IntegrityError(
            f"The contents of '{change.path}' (sha256 {change.sha256[:12]}…) were never sent.",
            hint="Send them before the commit.",
        )
    return file if change.lfs is None else replace(file, lfs=change.lfs)
