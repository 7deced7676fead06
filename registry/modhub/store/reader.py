"""Reading: which commit a name means, which files a commit has, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from modhub.errors import HubError, IntegrityError, NotFoundError
from modhub.integrity import check_content
from modhub.refs import is_commit, version_of_tag
from modhub.store.blobs import Blobs
from modhub.store.lru import LRU
from modhub.store.model import MAIN
from modhub.store.records import HEADS, TAGS, CommitRecord, RepositoryKey
from modhub.store.references import References, RepositoryState, no_repository
from modhub.store.tree import Tree, TreeFile

# Counted by files: thousands of small trees fit, and not too many large ones.
TREE_FILES = 100_000
"""In the lists of files that stay in memory: some 40 MB."""
COMMITS = 4096
_FSCK = "Run: modhub fsck --repair"


class Reader:
    """Reads the repositories of a store.

    Raises `NotFoundError` with `missing` "repository", "revision" or "file" for what is not there.
    """

    def __init__(self, blobs: Blobs, references: References) -> None:
        self._blobs = blobs
        self._references = references
        self._trees: LRU[Tree] = LRU(TREE_FILES)
        self._commits: LRU[CommitRecord] = LRU(COMMITS)
        # Through which commit of a branch or tag another was reached.
        self._reached: LRU[str] = LRU(COMMITS)

    def refs(self, key: RepositoryKey) -> dict[str, str]:
        """Full name (`refs/heads/main`, `refs/tags/v1.0.0`, `refs/pr/1`) → commit."""
        return dict(self._references.state(key).refs)

    def resolve(self, key: RepositoryKey, revision: str = MAIN) -> str:
        """The commit that a branch, tag, full name, `HEAD` or commit id stands for.

        A commit id stands for itself where a branch or tag leads to it: whoever may propose changes could
        otherwise give this repository's name to files of their own.
        """
        return self.resolve_in(key, self._references.state(key), revision)

    def resolve_in(self, key: RepositoryKey, state: RepositoryState, revision: str) -> str:
        """`resolve` against references that were read before."""
        if is_commit(revision):
            if not self._reaches(key, state, revision):
                raise no_revision(key, revision)
            return self.commit(key, revision).id
        name = MAIN if revision == "HEAD" else revision
        names = (HEADS + name, TAGS + name)
        if version_of_tag(name) is not None:
            # No branch hides a release, in stores from before that was refused.
            names = names[::-1]
        for ref in (name,) if name.startswith("refs/") else names:
            if ref in state.refs:
                return state.refs[ref]
        raise no_revision(key, revision)

    def _reaches(self, key: RepositoryKey, state: RepositoryState, commit: str) -> bool:
        """Whether a branch or tag is on `commit`, or on one that came after it."""
        tips = {tip for ref, tip in state.refs.items() if ref.startswith((HEADS, TAGS))}
        if commit in tips or self._reached.get(f"{key.path}/{commit}") in tips:
            return True
        if not self._references.has_commit(key, commit):
            return False
        generation = self.commit(key, commit).generation
        seen: set[str] = set()
        for tip in tips:
            waiting = [tip]
            while waiting:
                later = waiting.pop()
                if later in seen:
                    continue
                seen.add(later)
                parents: list[str] = list(state.lost.get(later, ()))
                with suppress(IntegrityError, NotFoundError):
                    record = self.commit(key, later)
                    # Generations grow, so that nothing before this one is the commit.
                    parents += record.parents if record.generation > generation else ()
                if commit in parents:
                    self._reached.put(f"{key.path}/{commit}", tip)
                    return True
                waiting += parents
        return False

    def commit(self, key: RepositoryKey, commit: str) -> CommitRecord:
        """The commit with this id, whatever leads to it."""
        record = self._commits.get(commit)
        # A gc, or a deleted repository, may have removed a commit that is still remembered here.
        if record is not None and self._references.has_commit(key, commit):
            return record
        record = self._references.commit(key, commit) if is_commit(commit) else None
        if record is None:
            if self._references.record(key) is None:
                raise no_repository(key)
            raise no_revision(key, commit)
        self._commits.put(commit, record)
        return record

    def tree(self, key: RepositoryKey, revision: str = MAIN) -> Tree:
        """All files of a revision, or of the commit with this id."""
        commit = revision if is_commit(revision) else self.resolve(key, revision)
        return self.tree_of(self.commit(key, commit))

    def tree_of(self, record: CommitRecord, *, remember: bool = True) -> Tree:
        """All files of a commit. Raises `IntegrityError` when the list of them is lost or damaged.

        Without `remember` it does not displace others from memory.
        """
        tree = self._trees.get(record.tree)
        if tree is None:
            with self._blobs.open(record.tree) as stream:
                content = stream.read()
            place = f"The list of files {record.tree}"
            check_content(content, size=len(content), sha256=record.tree, place=place, hint=_FSCK)
            tree = Tree.from_bytes(content)
            if remember:
                self.remember(record.tree, tree)
        return tree

    def remember(self, sha256: str, tree: Tree) -> None:
        """Keep a tree in memory under the digest of its list of files."""
        self._trees.put(sha256, tree, len(tree) + 1)

    def file(self, key: RepositoryKey, revision: str, path: str) -> TreeFile:
        """A file of a revision."""
        file = self.tree(key, revision).get(path)
        if file is None:
            raise NotFoundError(
                f"There is no file '{path}' in '{key}' at '{revision}'.",
                hint="List its files, or choose another revision.",
                missing="file",
            )
        return file

    def holds(self, file: TreeFile) -> bool:
        """Whether the file's contents are there; a repair removes what is damaged."""
        return self._blobs.size(file.sha256) == file.size

    def lost(self, tree: Tree) -> list[str]:
        """The files whose contents are not there."""
        return [path for path, file in tree.items() if not self.holds(file)]

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """A stored file's bytes from `offset` on."""
        return self._blobs.open(sha256, offset)

    def read(self, key: RepositoryKey, revision: str, path: str, *, limit: int = 16 << 20) -> bytes:
        """A small file. Raises `HubError` when it has more than `limit` bytes."""
        file = self.file(key, revision, path)
        if file.size > limit:
            raise HubError(
                f"'{path}' in '{key}' has {file.size:,} bytes; at most {limit:,} are read at once.",
                hint="Choose another release, or tell its publisher.",
            )
        with self.open(file.sha256) as stream:
            return stream.read()

    def history(self, key: RepositoryKey, revision: str = MAIN) -> Iterator[CommitRecord]:
        """The commit of `revision` and those before it on its branch, the newest first.

        It ends before a commit that a repair recorded as lost.
        """
        commit: str | None = revision if is_commit(revision) else self.resolve(key, revision)
        lost = self._references.state(key).lost
        while commit is not None:
            record = self.commit(key, commit)
            yield record
            commit = record.parents[0] if record.parents else None
            if commit in lost:
                return


def no_revision(key: RepositoryKey, revision: str) -> NotFoundError:
    return NotFoundError(
        f"There is no revision '{revision}' in '{key}'.",
        hint="Use one of its branches, tags or commits.",
        missing="revision",
    )
