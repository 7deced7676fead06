"""The search index: an SQLite table made from the store's files, and made again whenever it is lost.

A writer marks a repository before a change and removes the mark after indexing it; marks of dead writers are
settled by the next search. So the index never lags behind the files, whichever process dies. Where the disk
is full or read-only, searches use a table in memory that is refreshed every minute.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modhub.errors import HubError, StorageError
from modhub.refs import RepositoryId
from modhub.store.disk import disk_errors, make_directory
from modhub.store.records import RepositoryKey

SORTS = {
    "updated": "updated DESC, path",
    "created": "created DESC, path",
    "downloads": "downloads DESC, path",
    "name": "path",
}
_TABLES = """
CREATE TABLE IF NOT EXISTS repositories (
    path TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, namespace TEXT NOT NULL,
    private INTEGER NOT NULL, gated TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
    downloads INTEGER NOT NULL, head TEXT NOT NULL, tags TEXT NOT NULL, front_matter TEXT NOT NULL,
    haystack TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS repositories_updated ON repositories (kind, updated DESC, path);
CREATE INDEX IF NOT EXISTS repositories_downloads ON repositories (kind, downloads DESC, path);
CREATE INDEX IF NOT EXISTS repositories_namespace ON repositories (namespace);
CREATE TABLE IF NOT EXISTS tags (
    tag TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (tag, path)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_path ON tags (path);
CREATE TABLE IF NOT EXISTS changes (
    path TEXT NOT NULL, commit_id TEXT NOT NULL, parent TEXT NOT NULL, steps INTEGER NOT NULL,
    weight INTEGER NOT NULL, complete INTEGER NOT NULL, paths BLOB NOT NULL, PRIMARY KEY (path, commit_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""
VERSION = 4
MEMORY_SECONDS = 60.0
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A repository as the index lists it: `head` is the commit of main, `updated` that commit's date.

    `front_matter` is that of the card shown for the repository (`presented_commit`), reduced to plain
    values and lists of them; `tags` are the card's, and that of the trunk which the modules share.
    """

    kind: str
    id: RepositoryId
    private: bool
    gated: str
    created: str
    updated: str
    downloads: int
    head: str
    tags: tuple[str, ...]
    front_matter: dict[str, Any]

    @property
    def key(self) -> RepositoryKey:
        return RepositoryKey(self.kind, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Conditions of a search, joined by AND, case-insensitive.

    `text` is split at spaces, every word must occur in name, tags or card head; `author` is a namespace.
    Private repositories are left out unless `visible` is None (all) or holds their namespace (lower case).
    """

    kind: str | None = "model"
    tags: Sequence[str] = ()
    text: str = ""
    author: str = ""
    gated: bool | None = None
    visible: Collection[str] | None = None


EVERYTHING = Query()


def trunk_tag(digest: str) -> str:
    """The tag of repositories with modules on the trunk of that content id, which the index adds."""
    return f"trunk:{digest}"


class Index:
    """The index of a store.

    `keys`, `heads` (commit of main, private, gated) and `describe` (None when it is gone) read the files;
    `try_lock` yields whether no writer is at work on a repository, and keeps them out meanwhile.
    """

    def __init__(
        self,
        path: Path,
        *,
        keys: Callable[[], Iterable[RepositoryKey]],
        describe: Callable[[RepositoryKey], IndexEntry | None],
        heads: Callable[[RepositoryKey], tuple[str, bool, str]],
        try_lock: Callable[[RepositoryKey], AbstractContextManager[bool]],
    ) -> None:
        self._path = path
        self._keys = keys
        self._describe = describe
        self._heads = heads
        self._try_lock = try_lock
        self._local = threading.local()
        self._connections: list[tuple[int, sqlite3.Connection]] = []
        weakref.finalize(self, _close_connections, self._connections)
        self._memory_lock = threading.Lock()
        self._memory: sqlite3.Connection | None = None
        self._memory_state = (0, 0.0)

    def search(
        self, query: Query = EVERYTHING, *, sort: str = "updated", limit: int = 100, offset: int = 0
    ) -> list[IndexEntry]:
        """Entries that match. `sort` is updated, created or downloads (most first), or name."""
        if sort not in SORTS:
            raise HubError(f"Unknown sort order '{sort}'.", hint=f"Use {', '.join(SORTS)}.")
        rows = self._rows(
            query,
            f"SELECT * FROM repositories r WHERE {{}} ORDER BY {SORTS[sort]} LIMIT ? OFFSET ?",
            limit,
            offset,
        )
        return [_entry(row) for row in rows]

    def count(self, query: Query = EVERYTHING) -> int:
        """How many entries match."""
        return int(self._rows(query, "SELECT count(*) FROM repositories r WHERE {}")[0][0])

    def facets(self, prefix: str, query: Query = EVERYTHING, *, limit: int = 100) -> list[tuple[str, int]]:
        """What follows `prefix` (`class:`, `dataset:`) in the tags of matching entries, and how often."""
        # A range instead of LIKE, so that the primary key serves it.
        rows = self._rows(
            query,
            "SELECT t.tag, count(*) AS number FROM tags t JOIN repositories r ON r.path = t.path "
            "WHERE {} AND t.tag >= ? AND t.tag < ? GROUP BY t.tag ORDER BY number DESC, t.tag LIMIT ?",
            prefix.lower(),
            prefix.lower() + "\U0010ffff",
            limit,
        )
        return [(row["tag"][len(prefix) :], row["number"]) for row in rows]

    def mark(self, key: RepositoryKey) -> None:
        """Record that `key` is about to change. Raises `StorageError`."""
        self._run(lambda connection: _mark(connection, key))

    def update(self, *keys: RepositoryKey) -> None:
        """Index `keys` again and remove their marks. Call it while holding their locks."""

        def work(connection: sqlite3.Connection) -> None:
            for key in keys:
                self._update(connection, key)

        self._run(work)

    def set_downloads(self, key: RepositoryKey, number: int) -> None:
        """Set the number of downloads."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("UPDATE repositories SET downloads = ? WHERE path = ?", (number, key.path))

        self._run(work)

    def refresh(self) -> int:
        """Bring everything up to date with the files; how many entries were out of date."""
        return self.query(self._refresh)

    def close(self) -> None:
        """Close the connections of all threads; the next use opens another."""
        with self._memory_lock:
            _close_connections(self._connections)
            self._local = threading.local()
            self._memory = None

    def _refresh(self, connection: sqlite3.Connection) -> int:
        indexed = {
            row["path"]: (row["head"], bool(row["private"]), row["gated"])
            for row in connection.execute("SELECT path, head, private, gated FROM repositories").fetchall()
        }
        changed = 0
        for key in self._keys():
            try:
                current = indexed.pop(key.path, None) == self._heads(key)
            except Exception:
                current = False
            if not current:
                self._update_or_mark(connection, key)
                changed += 1
        for path in indexed:
            self._update_or_mark(connection, _key_of(path))
        connection.execute("PRAGMA optimize")
        return changed + len(indexed)

    def _update(self, connection: sqlite3.Connection, key: RepositoryKey) -> None:
        gone = False
        try:
            entry = self._describe(key)
            gone = entry is None
            described = None if entry is None else (_row(entry), entry.tags)
        except Exception:
            # A repository that cannot be read, for whatever reason, cannot be found by search, and must not
            # stop the search for others; fsck names it.
            described = None
        with connection:
            _remove(connection, key.path)
            if described is not None:
                _insert(connection, *described)
            if gone:
                connection.execute("DELETE FROM changes WHERE path = ?", (key.path,))
            connection.execute("DELETE FROM marks WHERE path = ?", (key.path,))

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Index what dead writers left marked; a living one removes its own mark."""
        for row in connection.execute("SELECT path FROM marks").fetchall():
            key = _key_of(row["path"])
            with self._try_lock(key) as free:
                if free:
                    self._update(connection, key)

    def _update_or_mark(self, connection: sqlite3.Connection, key: RepositoryKey) -> None:
        with self._try_lock(key) as free:
            if free:
                self._update(connection, key)
                return
        _mark(connection, key)

    def _rows(self, query: Query, select: str, *values: Any) -> list[sqlite3.Row]:
        """Rows of `select`, whose `{}` stands for the query's conditions; `values` fill what follows them."""
        where, parameters = _where(query)

        def work(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            self._settle(connection)
            return connection.execute(select.format(where), (*parameters, *values)).fetchall()

        return self.query(work)

    def query(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `work` returns for the connection of this thread, or where the disk refuses for the table in
        memory. Raises `StorageError`."""
        try:
            return self._run(work)
        except StorageError as error:
            if not _is_unwritable(error.__cause__):
                raise
        with self._memory_lock:
            return work(self._in_memory())

    def _in_memory(self) -> sqlite3.Connection:
        """This process's table in memory, at most a minute behind the files."""
        number, refreshed = self._memory_state
        if self._memory is None or number != os.getpid():
            self._memory, refreshed = self._connected(":memory:"), 0.0
        if not refreshed or time.monotonic() - refreshed > MEMORY_SECONDS:
            self._refresh(self._memory)
            self._memory_state = (os.getpid(), time.monotonic())
        return self._memory

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        for last in (False, True):
            try:
                return work(self._open())
            except sqlite3.DatabaseError as error:
                # Damaged: make it again from the files, once.
                if isinstance(error, sqlite3.OperationalError) or last:
                    raise StorageError(
                        f"The index '{self._path}' cannot be used: {error}.",
                        hint="If this persists, delete the file; it is rebuilt from the store.",
                    ) from error
                self._drop()
        raise StorageError(
            f"The index '{self._path}' cannot be used.", hint="Delete the file; it is rebuilt from the store."
        )

    def _open(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        # After a fork the parent's connection must not be used, nor closed.
        if connection is not None and self._local.state == (os.getpid(), _inode(self._path)):
            return connection
        make_directory(self._path.parent)
        connection = self._connected(self._path)
        self._local.connection, self._local.state = connection, (os.getpid(), _inode(self._path))
        fresh = connection.execute("SELECT value FROM meta WHERE name = 'filled'").fetchone() is None
        if fresh:
            self._refresh(connection)
            with connection:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('filled', '1')")
        return connection

    def _connected(self, place: Path | str) -> sqlite3.Connection:
        connection = _prepared(sqlite3.connect(place, timeout=30, check_same_thread=False))
        self._connections.append((os.getpid(), connection))
        return connection

    def _drop(self) -> None:
        self.close()
        with disk_errors(self._path):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _close_connections(connections: list[tuple[int, sqlite3.Connection]]) -> None:
    """Close and forget the connections that this process opened: after a fork others are its parent's."""
    for process, connection in [*connections]:
        if process == os.getpid():
            connections.remove((process, connection))
            connection.close()


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    """With the tables in it; closed where that fails."""
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
        version = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        if version is not None and version[0] != str(VERSION):
            connection.executescript(
                "DROP TABLE IF EXISTS repositories; DROP TABLE IF EXISTS tags;"
                "DROP TABLE IF EXISTS marks; DELETE FROM meta;"
            )
        connection.executescript(_TABLES)
        with connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (str(VERSION),))
    except BaseException:
        connection.close()
        raise
    return connection


def _is_unwritable(cause: BaseException | None) -> bool:
    """Whether the disk refuses, rather than another writer holding the table."""
    if isinstance(cause, sqlite3.Error):
        # The lower byte is the primary result code.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _UNWRITABLE
    return isinstance(cause, OSError)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _key_of(path: str) -> RepositoryKey:
    kind, namespace, name = path.split("/")
    return RepositoryKey(kind, RepositoryId(namespace, name))


def _where(query: Query) -> tuple[str, list[Any]]:
    conditions = ["1"]
    values: list[Any] = []
    if query.kind is not None:
        conditions.append("r.kind = ?")
        values.append(query.kind)
    for tag in query.tags:
        conditions.append("r.path IN (SELECT path FROM tags WHERE tag = ?)")
        values.append(tag.lower())
    for word in query.text.lower().split():
        conditions.append("instr(r.haystack, ?) > 0")
        values.append(word)
    if query.author:
        conditions.append("r.namespace = ?")
        values.append(query.author.lower())
    if query.gated is not None:
        conditions.append("(r.gated != '') = ?")
        values.append(int(query.gated))
    if query.visible is not None:
        marks = ",".join("?" * len(query.visible))
        conditions.append(f"(r.private = 0 OR r.namespace IN ({marks}))")
        values.extend(query.visible)
    return " AND ".join(conditions), values


def _entry(row: sqlite3.Row) -> IndexEntry:
    return IndexEntry(
        kind=row["kind"],
        id=RepositoryId.parse(row["id"]),
        private=bool(row["private"]),
        gated=row["gated"],
        created=row["created"],
        updated=row["updated"],
        downloads=row["downloads"],
        head=row["head"],
        tags=tuple(json.loads(row["tags"])),
        front_matter=json.loads(row["front_matter"]),
    )


def _mark(connection: sqlite3.Connection, key: RepositoryKey) -> None:
    with connection:
        connection.execute("INSERT OR REPLACE INTO marks VALUES (?)", (key.path,))


def _remove(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("DELETE FROM tags WHERE path = ?", (path,))
    connection.execute("DELETE FROM repositories WHERE path = ?", (path,))


def _row(entry: IndexEntry) -> tuple[str | int, ...]:
    """The entry as the table has it. Raises `ValueError` for text that it cannot hold, and for NaN."""
    haystack = "\n".join([str(entry.id), *entry.tags, str(entry.front_matter.get("model_name", ""))]).lower()
    row = (
        entry.key.path,
        entry.kind,
        str(entry.id),
        entry.id.namespace.lower(),
        int(entry.private),
        entry.gated,
        entry.created,
        entry.updated,
        entry.downloads,
        entry.head,
        json.dumps(entry.tags, ensure_ascii=False),
        json.dumps(entry.front_matter, ensure_ascii=False, allow_nan=False),
        haystack,
    )
    "".join(map(str, row)).encode()
    return row


def _insert(connection: sqlite3.Connection, row: tuple[str | int, ...], tags: Iterable[str]) -> None:
    connection.execute("INSERT INTO repositories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.executemany(
        "INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag.lower(), row[0]) for tag in tags]
    )
