"""The store: repositories, commits and references in a folder, safe between threads, processes and crashes.

    <root>/blobs/ab/<sha256>      file contents and lists of files, each held once    (modhub.store.blobs)
    <root>/repositories, moved    repositories, references, commits                 (modhub.store.references)
    <root>/audit/                 who changed what                                    (modhub.store.audit)
    <root>/index.sqlite           for searching; made anew from the rest if lost      (modhub.store.index)
    <root>/locks, staging         nothing that is missed after a crash

A commit first makes its blobs, list of files and record durable; then one rename of `refs.json` makes it
visible. Whatever dies in between leaves the last commit standing. Repositories share no lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from modhub.errors import (
    ConflictError,
    HubError,
    IntegrityError,
    NotFoundError,
    StaleParentError,
    StorageError,
)
from modhub.refs import RepositoryId, is_commit, is_sha256
from modhub.store.audit import AuditLog
from modhub.store.blobs import Blob, Blobs, BlobWriter, FileBlobs, take_in
from modhub.store.changes import Add, Copy, Delete, Link, Put, StoreChange
from modhub.store.disk import file_lock, make_directory
from modhub.store.front_matter import read_front_matter, tags_of
from modhub.store.index import Index, IndexEntry
from modhub.store.lru import Recent
from modhub.store.model import MAIN
from modhub.store.paths import check_path, check_ref_name
from modhub.store.records import CommitRecord, RepositoryKey, RepositoryRecord, Settings, now
from modhub.store.references import FileReferences, References, State, no_repository
from modhub.store.tree import Tree, TreeFile

__all__ = ["Copy", "Link", "Put", "Store", "StoreChange", "full_ref"]

CARD = "README.md"
LFS_FROM_BYTES = 1 << 20
TREE_FILES = 400_000
HEADS, TAGS, PULLS = "refs/heads/", "refs/tags/", "refs/pr/"
OPEN = Settings()


class Store:
    """A folder of repositories. All methods may be called from any thread and any number of processes.

    Every method that takes a key raises `NotFoundError` (`missing="repository"`) for an unknown one; those
    that write raise `StorageError` when the disk refuses. `actor` is whom the audit log names.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        make_directory(self.root)
        self.blobs: Blobs = FileBlobs(self.root / "blobs", self.root / "staging")
        self.references: References = FileReferences(self.root)
        self.audit = AuditLog(self.root / "audit")
        self.index = Index(
            self.root / "index.sqlite",
            keys=self.references.all,
            describe=self._describe,
            heads=self._heads,
            try_lock=self._try_lock,
        )
        # By their files: thousands of small repositories are all there, and of large ones not too many.
        self._trees: Recent[Tree] = Recent(TREE_FILES)
        self._commits: Recent[CommitRecord] = Recent(4096)

    def close(self) -> None:
        """Close the index; the store may be used on."""
        self.index.close()

    # Repositories

    def repositories(self, kind: str | None = None) -> Iterator[RepositoryKey]:
        """All of them in order of their names; with 10,000 or more prefer `index.search`."""
        return self.references.all(kind)

    def exists(self, key: RepositoryKey) -> bool:
        return self.references.record(key) is not None

    def repository(self, key: RepositoryKey) -> RepositoryRecord:
        """Spelling, creation date and settings."""
        record = self.references.record(key)
        if record is None:
            raise no_repository(key)
        return record

    def moved_to(self, key: RepositoryKey) -> RepositoryId | None:
        """Where the repository of that name went; None when it is there, or never was."""
        return self.references.moved_to(key)

    def create_repository(
        self, key: RepositoryKey, *, settings: Settings = OPEN, actor: str = ""
    ) -> RepositoryRecord:
        """A repository with an empty first commit on main. Raises `ConflictError` when the name is taken."""
        record = RepositoryRecord(kind=key.kind, id=key.id, created=now(), settings=settings)
        empty = self.put_tree(Tree({}))
        first = CommitRecord(
            parents=(),
            tree=empty,
            title="initial commit",
            description="",
            author=actor,
            date=record.created,
            ref=HEADS + MAIN,
            generation=0,
        )
        with self.writing(key):
            if self.exists(key):
                raise _taken(key)
            self.audit.append("create-repository", _subject(key), actor, private=settings.private)
            self.references.create(record, State({HEADS + MAIN: first.id}), first)
        return record

    def delete_repository(self, key: RepositoryKey, *, actor: str = "") -> None:
        """Gone at once; its blobs go with the next `gc`."""
        with self.writing(key):
            self.repository(key)
            self.audit.append("delete-repository", _subject(key), actor)
            self.references.remove(key)

    def move_repository(self, key: RepositoryKey, to: RepositoryId, *, actor: str = "") -> RepositoryRecord:
        """Rename; the old name answers `moved_to` until it is taken again. Raises `ConflictError`."""
        target = RepositoryKey(key.kind, to)
        with self.writing(key, target):
            record = self.repository(key)
            if target != key and self.exists(target):
                raise _taken(target)
            if target != key:
                self._touch_all(key)
            self.audit.append("move-repository", _subject(key), actor, to=str(to))
            self.references.move(record, to)
        return replace(record, id=to)

    def change_settings(self, key: RepositoryKey, settings: Settings, *, actor: str = "") -> RepositoryRecord:
        with self.writing(key):
            record = replace(self.repository(key), settings=settings)
            self.audit.append("change-settings", _subject(key), actor, **settings.to_dict())
            self.references.save(record)
        return record

    def count_download(self, key: RepositoryKey) -> int:
        """One more download; the sum. Survives crashes; counted once however many processes count."""
        number = self.references.count_download(key)
        self.index.set_downloads(key, number)
        return number

    # References

    def refs(self, key: RepositoryKey) -> dict[str, str]:
        """Full name (`refs/heads/main`, `refs/tags/v1.0.0`, `refs/pr/1`) → commit."""
        return dict(self.references.state(key).refs)

    def resolve(self, key: RepositoryKey, revision: str = MAIN) -> str:
        """The commit that a branch, tag, full name, `HEAD` or commit id stands for.

        Raises `NotFoundError` with `missing="revision"`.
        """
        return self._resolve(key, self.references.state(key), revision)

    def create_branch(
        self, key: RepositoryKey, name: str, *, revision: str = MAIN, actor: str = "", exist_ok: bool = False
    ) -> str:
        """A new branch at `revision`; its commit. Raises `ConflictError` unless new or `exist_ok`."""
        return self._create_ref(key, HEADS + check_ref_name(name, "branch"), revision, actor, exist_ok)

    def create_tag(
        self, key: RepositoryKey, name: str, *, revision: str = MAIN, actor: str = "", exist_ok: bool = False
    ) -> str:
        """A new tag at `revision`; its commit. Tags never move: raises `ConflictError` when it exists.

        With `exist_ok` a tag that stands there already is fine.
        """
        return self._create_ref(key, TAGS + check_ref_name(name, "tag"), revision, actor, exist_ok)

    def delete_branch(self, key: RepositoryKey, name: str, *, actor: str = "") -> None:
        """Raises `ConflictError` for main."""
        if name == MAIN:
            raise ConflictError("The branch 'main' cannot be deleted.", hint="Delete the repository instead.")
        self._delete_ref(key, HEADS + name, actor)

    def delete_tag(self, key: RepositoryKey, name: str, *, actor: str = "") -> None:
        self._delete_ref(key, TAGS + name, actor)

    # Reading

    def commit_record(self, key: RepositoryKey, commit: str) -> CommitRecord:
        """One commit by its id."""
        # A gc, or a repository's end, may have taken a commit that is still remembered here.
        known = self._commits.get(commit)
        if known is not None and not self.references.has_commit(key, commit):
            known = None
        if known is None:
            known = self.references.commit(key, commit) if is_commit(commit) else None
            if known is None:
                self.repository(key)
                raise _no_revision(key, commit)
            self._commits.put(commit, known)
        return known

    def tree(self, key: RepositoryKey, revision: str = MAIN) -> Tree:
        """All files of a revision."""
        return self.tree_of(self.commit_record(key, self.resolve(key, revision)))

    def tree_of(self, record: CommitRecord) -> Tree:
        """All files of a commit."""
        tree = self._trees.get(record.tree)
        if tree is None:
            with self.blobs.open(record.tree) as stream:
                content = stream.read()
            if hashlib.sha256(content).hexdigest() != record.tree:
                raise IntegrityError(
                    f"The list of files {record.tree} is damaged on disk.", hint="Run: modhub fsck --repair"
                )
            tree = Tree.from_bytes(content)
            self._trees.put(record.tree, tree, len(tree) + 1)
        return tree

    def file(self, key: RepositoryKey, revision: str, path: str) -> TreeFile:
        """One file. Raises `NotFoundError` with `missing="file"`."""
        found = self.tree(key, revision).get(path)
        if found is None:
            raise NotFoundError(
                f"There is no file '{path}' in '{key}' at '{revision}'.",
                hint="Look at what it holds, or take another revision.",
                missing="file",
            )
        return found

    def holds(self, file: TreeFile) -> bool:
        """Whether the file's contents are there; a repair removes what is damaged."""
        return self.blobs.size(file.sha256) == file.size

    def lost(self, tree: Tree) -> list[str]:
        """The files of which the contents are not there."""
        return [path for path, file in tree.items() if not self.holds(file)]

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """A stored file's bytes from `offset` on."""
        return self.blobs.open(sha256, offset)

    def read(self, key: RepositoryKey, revision: str, path: str, *, limit: int = 16 << 20) -> bytes:
        """A small file. Raises `HubError` when it has more than `limit` bytes."""
        found = self.file(key, revision, path)
        if found.size > limit:
            raise HubError(
                f"'{path}' in '{key}' has {found.size:,} bytes; at most {limit:,} are read at once.",
                hint="Take another release, or tell who published it.",
            )
        with self.open(found.sha256) as stream:
            return stream.read()

    def history(self, key: RepositoryKey, revision: str = MAIN) -> Iterator[CommitRecord]:
        """The commit of `revision` and those before it on its branch, the newest first.

        It ends before a commit that a repair found lost.
        """
        commit: str | None = self.resolve(key, revision)
        lost = self.references.state(key).lost
        while commit is not None:
            record = self.commit_record(key, commit)
            yield record
            commit = record.parents[0] if record.parents else None
            if commit in lost:
                return

    def last_changes(
        self, key: RepositoryKey, revision: str, paths: Iterable[str]
    ) -> dict[str, CommitRecord]:
        """For each path (file or folder) the commit that last changed it."""
        found: dict[str, CommitRecord] = {}
        wanted = set(paths)
        later: tuple[CommitRecord, dict[str, str]] | None = None
        for record in self.history(key, revision):
            listing = self.tree_of(record).listing(recursive=True)
            oids = {path: entry.oid for path, entry in listing.items() if path in wanted}
            if later is not None:
                for path in [path for path in wanted if oids.get(path) != later[1].get(path)]:
                    found[path] = later[0]
                    wanted.discard(path)
            if not wanted:
                break
            later = (record, oids)
        else:
            if later is not None:
                found.update({path: later[0] for path in wanted if path in later[1]})
        return found

    # Writing

    def upload(self, *, size: int | None = None) -> BlobWriter:
        """Take in bytes for a later `Link`.

            with store.upload(size=n) as writer:
                writer.write(chunk)
                blob = writer.finish(sha256=announced)

        Then say whose they are with `note_upload`. Bytes that nobody notes or commits go with a `gc`.
        """
        return self.blobs.writer(size=size)

    def note_upload(self, key: RepositoryKey, blob: Blob) -> None:
        """Let `Link` use an uploaded blob in `key`, and only there: a digest proves no ownership."""
        self.references.note_upload(key, blob)

    def find_blob(self, key: RepositoryKey, sha256: str) -> TreeFile | None:
        """A blob that `key` may `Link`: noted as uploaded, or in a file of one of its references."""
        return self.find_blobs(key, [sha256]).get(sha256)

    def find_blobs(self, key: RepositoryKey, digests: Iterable[str]) -> dict[str, TreeFile]:
        """Those that `find_blob` finds. However many are wanted, every reference is read once."""
        found: dict[str, TreeFile] = {}
        wanted = {one for one in digests if is_sha256(one)}
        for sha256 in wanted:
            blob = self.references.upload(key, sha256)
            if blob is not None and self.blobs.size(sha256) == blob.size:
                found[sha256] = _tree_file(blob)
        for commit in dict.fromkeys(self.refs(key).values()):
            if len(found) == len(wanted):
                break
            # A reference whose commit is lost stays, and is no reason to refuse what is sent.
            with suppress(IntegrityError, NotFoundError):
                for file in self.tree_of(self.commit_record(key, commit)).values():
                    if file.sha256 in wanted and file.sha256 not in found and self.holds(file):
                        found[file.sha256] = file
        return found

    def commit(
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
        changes = self.taken_in(key, changes)
        with self.writing(key):
            state = self.references.state(key)
            head = self._head(key, state, name)
            tree = self.changed(key, head, changes, ref=ref, parent=parent)
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

    def taken_in(self, key: RepositoryKey, changes: Sequence[StoreChange]) -> list[StoreChange]:
        """`changes` for `changed`, their bytes in the store. Nobody waits while those come in."""
        for change in changes:
            check_path(change.path if not isinstance(change, Delete) else change.path.rstrip("/"))
        self.repository(key)
        return [
            Put(change.path, take_in(self.blobs, change.content)) if isinstance(change, Add) else change
            for change in changes
        ]

    def changed(
        self, key: RepositoryKey, head: str, changes: Sequence[StoreChange], *, ref: str, parent: str | None
    ) -> Tree:
        """The files of `head`, the newest commit of `ref`, with `changes` that were `taken_in`.

        Call it inside `writing`; raises what `commit` raises.
        """
        if parent is not None and parent != head:
            raise StaleParentError(
                f"The branch '{ref}' of '{key}' has moved on from {parent[:12]} to {head[:12]}.",
                hint="Read it again and repeat the change.",
            )
        base = self.tree_of(self.commit_record(key, head))
        sent = self.find_blobs(key, [change.sha256 for change in changes if isinstance(change, Link)])
        put: dict[str, TreeFile] = {}
        for change in changes:
            if isinstance(change, Put):
                put[change.path] = _tree_file(change.blob)
            elif isinstance(change, Link):
                put[change.path] = _linked(sent.get(change.sha256), change)
            elif isinstance(change, Copy):
                put.update(self._copied(key, base, change))
        return base.changed(put, [change.path for change in changes if isinstance(change, Delete)])

    def copy_files(
        self, source: RepositoryKey, key: RepositoryKey, *, title: str, actor: str = ""
    ) -> CommitRecord:
        """Give main of `key` all files of main of `source`, as one commit; no bytes are copied."""
        files = self.tree(source)
        with self.writing(key):
            state = self.references.state(key)
            head = self._head(key, state, HEADS + MAIN)
            tree = self.tree_of(self.commit_record(key, head)).changed(files, [])
            return self.append(key, state, HEADS + MAIN, (head,), tree, title=title, actor=actor)

    def squash(self, key: RepositoryKey, ref: str = MAIN, *, title: str, actor: str = "") -> CommitRecord:
        """Replace the history of `ref` by one commit with the same files; tags keep what they name."""
        name = full_ref(ref)
        with self.writing(key):
            state = self.references.state(key)
            head = self.commit_record(key, self._head(key, state, name))
            tree = self.tree_of(head)
            return self.append(key, state, name, (), tree, title=title, actor=actor, after=head.generation)

    def append(
        self,
        key: RepositoryKey,
        state: State,
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
        """Write a commit of `tree` and move `ref` (a full name) of `state` to it. Call it inside `writing`.

        What was uploaded for the changes `sent` is noted as in use, and no more as waiting for a commit.
        The last look at the blobs: what a `gc` took meanwhile is refused with `IntegrityError`.
        """
        old = self.tree_of(self.commit_record(key, parents[0])) if parents else Tree({})
        for path, file in tree.items():
            if old.get(path) != file and not self.blobs.touch(file.sha256):
                raise IntegrityError(
                    f"The contents of '{path}' are not in the store any more.", hint="Send them again."
                )
        generations = [self.commit_record(key, parent).generation for parent in parents]
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
        self.references.add_commit(key, record)
        self.audit.append(
            "commit",
            _subject(key),
            actor,
            ref=ref,
            commit=record.id,
            parent=state.refs.get(ref),
            title=title[:200],
        )
        self.references.save_state(key, replace(state, refs={**state.refs, ref: record.id}))
        for change in sent:
            if isinstance(change, Link):
                self.references.forget_upload(key, change.sha256)
        return record

    @contextmanager
    def writing(self, *keys: RepositoryKey) -> Iterator[None]:
        """Keep other writers out of `keys` and bring the index up to date afterwards."""
        with self.references.locked(*keys):
            for key in keys:
                self.index.mark(key)
            try:
                yield
            finally:
                # What was done stays done; an index that lags keeps the mark and catches up.
                with suppress(StorageError):
                    self.index.update(*keys)

    # Inside

    def _try_lock(self, key: RepositoryKey) -> AbstractContextManager[bool]:
        return file_lock(self.root / "locks" / f"{key.path}.lock", wait=False, reading=True)

    def _touch_all(self, key: RepositoryKey) -> None:
        """Make all blobs of `key` look new: a `gc` at work may have been at its new name before it comes."""
        needed: set[str] = set(self.references.uploads(key))
        for commit, _ in self.references.commits(key):
            # What is damaged cannot be read, and may be moved all the same.
            with suppress(IntegrityError, NotFoundError):
                record = self.commit_record(key, commit)
                needed.add(record.tree)
                needed.update(file.sha256 for file in self.tree_of(record).values())
        for sha256 in needed:
            self.blobs.touch(sha256)

    def _copied(self, key: RepositoryKey, base: Tree, change: Copy) -> dict[str, TreeFile]:
        tree = base if change.revision is None else self.tree(key, change.revision)
        if change.source in tree:
            return {change.path: tree[change.source]}
        prefix = change.source.rstrip("/") + "/"
        found = {
            check_path(f"{change.path}/{path[len(prefix) :]}"): file
            for path, file in tree.items()
            if path.startswith(prefix)
        }
        if not found:
            raise NotFoundError(
                f"There is no '{change.source}' in '{key}' to copy.",
                hint="Check the path, and the revision that it is copied from.",
                missing="file",
            )
        return found

    def _create_ref(self, key: RepositoryKey, ref: str, revision: str, actor: str, exist_ok: bool) -> str:
        with self.writing(key):
            state = self.references.state(key)
            commit = self._resolve(key, state, revision)
            there = state.refs.get(ref)
            if there is not None and not exist_ok:
                raise ConflictError(
                    f"Reference {ref} already exists in '{key}'.", hint="Choose another name."
                )
            if there is not None:
                return there
            self.audit.append("create-ref", _subject(key), actor, ref=ref, commit=commit)
            self.references.save_state(key, replace(state, refs={**state.refs, ref: commit}))
        return commit

    def _delete_ref(self, key: RepositoryKey, ref: str, actor: str) -> None:
        with self.writing(key):
            state = self.references.state(key)
            if ref not in state.refs:
                raise _no_revision(key, ref)
            self.audit.append("delete-ref", _subject(key), actor, ref=ref, commit=state.refs[ref])
            refs = {name: commit for name, commit in state.refs.items() if name != ref}
            self.references.save_state(key, replace(state, refs=refs))

    def _resolve(self, key: RepositoryKey, state: State, revision: str) -> str:
        if is_commit(revision):
            return self.commit_record(key, revision).id
        name = MAIN if revision == "HEAD" else revision
        for candidate in (name,) if name.startswith("refs/") else (HEADS + name, TAGS + name):
            if candidate in state.refs:
                return state.refs[candidate]
        raise _no_revision(key, revision)

    def _head(self, key: RepositoryKey, state: State, ref: str) -> str:
        if ref not in state.refs:
            raise _no_revision(key, ref)
        return state.refs[ref]

    def put_tree(self, tree: Tree) -> str:
        """Store a list of files; its sha256."""
        content = tree.to_bytes()
        blob = take_in(self.blobs, content)
        self._trees.put(blob.sha256, tree, len(tree) + 1)
        return blob.sha256

    def _heads(self, key: RepositoryKey) -> tuple[str, bool, str]:
        settings = self.repository(key).settings
        return self.resolve(key), settings.private, settings.gated

    def _describe(self, key: RepositoryKey) -> IndexEntry | None:
        record = self.references.record(key)
        if record is None:
            return None
        head = self.commit_record(key, self.resolve(key))
        card = self.tree_of(head).get(CARD)
        front_matter = {}
        if card is not None:
            with self.open(card.sha256) as stream:
                front_matter = read_front_matter(stream.read(1 << 20))
        return IndexEntry(
            kind=record.kind,
            id=record.id,
            private=record.settings.private,
            gated=record.settings.gated,
            created=record.created,
            updated=head.date,
            downloads=self.references.downloads(key),
            head=head.id,
            tags=tags_of(front_matter),
            front_matter=front_matter,
        )


def full_ref(ref: str) -> str:
    """The full name of something commits can be made on: `main` → `refs/heads/main`; `refs/pr/1` as it is.

    Raises `RefError` for anything else, tags included.
    """
    if ref.startswith(PULLS) and ref[len(PULLS) :].isdecimal():
        return ref
    return HEADS + check_ref_name(ref.removeprefix(HEADS), "branch")


def _tree_file(blob: Blob) -> TreeFile:
    return TreeFile(blob.sha256, blob.size, blob.oid, lfs=not blob.text or blob.size > LFS_FROM_BYTES)


def _linked(found: TreeFile | None, change: Link) -> TreeFile:
    if found is None or (change.size is not None and change.size != found.size):
        raise IntegrityError(
            f"The contents of '{change.path}' (sha256 {change.sha256[:12]}…) were never sent.",
            hint="Send them before the commit.",
        )
    return found if change.lfs is None else replace(found, lfs=change.lfs)


def _subject(key: RepositoryKey) -> str:
    return f"{key.kind}/{key.id}"


def _taken(key: RepositoryKey) -> ConflictError:
    return ConflictError(
        f"A {key.kind} repository called '{key.id}' exists already.", hint="Choose another name."
    )


def _no_revision(key: RepositoryKey, revision: str) -> NotFoundError:
    return NotFoundError(
        f"There is no revision '{revision}' in '{key}'.",
        hint="Take one of its branches, tags or commits.",
        missing="revision",
    )
