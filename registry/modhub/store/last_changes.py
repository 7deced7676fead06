"""Which commit last changed each path, from a table that every commit adds a row to.

A row holds the paths that its commit changed, or, once as many have come together as there are files, the
last change of every path. So a question reads about as much as the list of files is long, however many
commits there are. The table is in the search index; what it lacks is filled from the commits.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress

from modhub.errors import BusyError, IntegrityError, NotFoundError, StorageError
from modhub.store.index import Index
from modhub.store.reader import Reader
from modhub.store.records import HEADS, CommitRecord, RepositoryKey
from modhub.store.tree import Tree

STEPS = 256
"""Rows from one that is complete to the next."""
BATCH = 64
SECONDS = 0.5
"""How long one request fills the table."""
_Row = tuple[str, tuple[str, ...], Mapping[str, str], Mapping[str, str]]
"""A commit, its first parent (none: the history begins), the git ids of its files, and of the parent's."""


class LastChanges:
    """The last change of every path, in the histories of a store's repositories."""

    def __init__(self, reader: Reader, index: Index) -> None:
        self._reader = reader
        self._index = index
        self._filling = threading.Lock()

    def record(self, key: RepositoryKey, commit: CommitRecord, before: Tree, tree: Tree) -> None:
        """Add the row of `commit`, whose files are `tree` and whose first parent's are `before`."""
        row = commit.id, commit.parents[:1], _oids(tree), _oids(before)
        # Where the table cannot be written it is filled later.
        with suppress(StorageError):
            self._index.query(lambda table: _add(table, key, [row]))

    def of(self, key: RepositoryKey, commit: str, paths: Iterable[str]) -> dict[str, CommitRecord]:
        """For each of `paths` (files and folders of `commit`) the commit that last changed it.

        Raises `BusyError` where an older store's history is long, and its table not filled yet.
        """
        changes = self._index.query(lambda table: _changes(table, key, commit))
        if changes is None:
            self._fill(key, commit, SECONDS)
            changes = self._index.query(lambda table: _changes(table, key, commit)) or {}
        records: dict[str, CommitRecord] = {}
        for path in paths:
            if path in changes:
                with suppress(NotFoundError, IntegrityError):
                    records[path] = self._reader.commit(key, changes[path])
        return records

    def fill(self, key: RepositoryKey, *, anew: bool = False) -> None:
        """Fill the table for all branches, `anew` from nothing, however long it takes."""
        if anew:
            self.forget(key)
        for ref, commit in self._reader.refs(key).items():
            if ref.startswith(HEADS):
                with suppress(NotFoundError, IntegrityError):
                    self._fill(key, commit, None)

    def forget(self, key: RepositoryKey, commits: Iterable[str] | None = None) -> None:
        """Drop the rows of `commits`, or all of the repository's."""

        def work(table: sqlite3.Connection) -> None:
            with table:
                if commits is None:
                    table.execute("DELETE FROM changes WHERE path = ?", (key.path,))
                else:
                    rows = [(key.path, commit) for commit in commits]
                    table.executemany("DELETE FROM changes WHERE path = ? AND commit_id = ?", rows)

        with suppress(StorageError):
            self._index.query(work)

    def _fill(self, key: RepositoryKey, commit: str, seconds: float | None) -> None:
        until = float("inf") if seconds is None else time.monotonic() + seconds
        busy = BusyError(
            f"The history of '{key}' is being indexed.",
            hint="Ask again in a few seconds; 'modhub fsck' on the hub's machine indexes all of it.",
            after=2,
        )
        if not self._filling.acquire(timeout=-1 if seconds is None else seconds):
            raise busy
        try:
            missing: list[CommitRecord] = []
            for record in self._reader.history(key, commit):
                if time.monotonic() > until:
                    raise busy
                if self._index.query(lambda table, id_=record.id: _present(table, key, id_)):  # type: ignore[misc]
                    break
                missing.append(record)
            else:
                # The history ends here, whether or not a commit came before that is lost.
                first = missing.pop()
                files = self._files(first)
                row: _Row = (first.id, (), self._files(first), {})
                self._index.query(lambda table: _add(table, key, [row]))  # noqa: B023
            former: tuple[str, dict[str, str]] | None = None
            while missing:
                batch = [missing.pop() for _ in range(min(BATCH, len(missing)))]
                rows: list[_Row] = []
                for record in batch:
                    if time.monotonic() > until:
                        break
                    parent = record.parents[0]
                    if former is None or former[0] != parent:
                        former = parent, self._files(self._reader.commit(key, parent))
                    files = self._files(record)
                    rows.append((record.id, (parent,), files, former[1]))
                    former = record.id, files
                self._index.query(lambda table, rows=rows: _add(table, key, rows))  # type: ignore[misc]
                if len(rows) < len(batch):
                    raise busy
        finally:
            self._filling.release()

    def _files(self, record: CommitRecord) -> dict[str, str]:
        return _oids(self._reader.tree_of(record, remember=False))


def _oids(tree: Tree) -> dict[str, str]:
    return {path: file.oid for path, file in tree.items()}


def _add(table: sqlite3.Connection, key: RepositoryKey, rows: Iterable[_Row]) -> None:
    with table:
        for row in rows:
            _insert(table, key, *row)


def _insert(
    table: sqlite3.Connection,
    key: RepositoryKey,
    commit: str,
    parents: tuple[str, ...],
    files: Mapping[str, str],
    former: Mapping[str, str],
) -> None:
    changed = {path for path, oid in files.items() if former.get(path) != oid}
    changed |= former.keys() - files.keys()
    changed |= {above for path in changed for above in _folders(path)}
    parent, steps, weight, complete = "", 0, 0, True
    paths: object = dict.fromkeys(sorted(changed), commit)
    if parents:
        row = table.execute(
            "SELECT steps, weight FROM changes WHERE path = ? AND commit_id = ?", (key.path, parents[0])
        ).fetchone()
        if row is None:
            # Without the rows before it this one answers nothing.
            return
        parent, steps, weight = parents[0], row["steps"] + 1, row["weight"] + len(changed)
        complete = steps > STEPS or weight > len(files)
        if complete:
            before = _changes(table, key, parent) or {}
            present = {*files, *(above for path in files for above in _folders(path))}
            paths = {path: commit if path in changed else before.get(path, commit) for path in present}
            steps = weight = 0
        else:
            paths = sorted(changed)
    content = zlib.compress(json.dumps(paths).encode(), 1)
    table.execute(
        "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key.path, commit, parent, steps, weight, complete, content),
    )


def _present(table: sqlite3.Connection, key: RepositoryKey, commit: str) -> bool:
    select = "SELECT 1 FROM changes WHERE path = ? AND commit_id = ?"
    return table.execute(select, (key.path, commit)).fetchone() is not None


def _changes(table: sqlite3.Connection, key: RepositoryKey, commit: str) -> dict[str, str] | None:
    """The last change of every path up to `commit`; None where rows are missing."""
    changes: dict[str, str] = {}
    while True:
        row = table.execute(
            "SELECT parent, complete, paths FROM changes WHERE path = ? AND commit_id = ?", (key.path, commit)
        ).fetchone()
        if row is None:
            return None
        paths = json.loads(zlib.decompress(row["paths"]))
        if row["complete"]:
            return {**paths, **changes}
        for path in paths:
            changes.setdefault(path, commit)
        commit = row["parent"]


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
