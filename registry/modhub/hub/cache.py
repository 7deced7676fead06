"""The cache: downloaded files by content, so that a trunk shared by repositories or releases is stored once.

    <root>/files/ab/<sha256>      complete, verified files
    <root>/oids/<sha1>            the sha256 of a file whose hub knows only git's sha1
    <root>/partial/<digest>       running or interrupted downloads; the next attempt resumes
    <root>/hubs/<hub>/<repository>/…    references and trees as last read, for working offline

Size and digest are checked after every download and again every time a file is returned; its modification
time is that of its last use, by which `prune` decides. Digests and commits come from a hub: none becomes part
of a path before it proved to be hex digits.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import platformdirs

from modhub.errors import IntegrityError, ManifestError, RefError, StorageError
from modhub.files import fsync_directory, permitted, sha256_of_file, write_bytes
from modhub.integrity import matches
from modhub.refs import RepositoryId, is_commit, is_sha256, is_text
from modhub.results import Result
from modhub.store.disk import disk_errors, lock_file, make_directory
from modhub.store.model import FileEntry, Refs
from modhub.text import canonical_json, parse_json

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


CACHE_VARIABLE = "MODHUB_CACHE"
Fetch = Callable[[BinaryIO, int], None]
_DAMAGED = "Nothing was kept. Try again; if it fails again, the hub's copy is damaged."


def default_cache() -> Path:
    """`MODHUB_CACHE`, or modhub's directory in the user's cache directory."""
    path = os.environ.get(CACHE_VARIABLE)
    return Path(path).expanduser() if path else Path(platformdirs.user_cache_dir("modhub"))


@dataclass(frozen=True, slots=True)
class CacheUsage(Result):
    """A number of files, and their bytes."""

    files: int
    bytes: int


class Cache:
    """Files by content under `root`. Any number of processes may use one; writing raises `StorageError`."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = default_cache() if root is None else Path(root).expanduser()

    # Files

    def find(self, entry: FileEntry) -> Path | None:
        """The verified local file, or None. A damaged one counts as missing, and `fetch` replaces it.

        It is not removed: another process may have replaced it by a sound one meanwhile.
        """
        sha256 = entry.sha256 or self._sha256_of(entry)
        if sha256 is None:
            return None
        path = self._at(sha256)
        with disk_errors(path):
            try:
                with path.open("rb") as stream:
                    # `prune` removes nothing that is locked, or was touched.
                    with suppress(OSError):
                        fcntl.flock(stream, fcntl.LOCK_SH)
                    if matches(path, size=entry.size, sha256=sha256):
                        _touch(path)
                        return path
            except (FileNotFoundError, NotADirectoryError):
                return None
        return None

    def holds(self, entry: FileEntry) -> bool:
        """Whether a file of that digest and size is there; `find` verifies it."""
        sha256 = entry.sha256 or self._sha256_of(entry)
        return sha256 is not None and _size(self._at(sha256)) == entry.size

    def fetch(self, entry: FileEntry, place: str, download: Fetch) -> Path:
        """The verified local file, downloaded unless it is there.

        `download(stream, offset)` appends the bytes from `offset` on; `place` names the file in errors. Of
        several processes that want the same file, one downloads and the others wait for it. Raises
        `IntegrityError` for a file of another size or digest, as soon as it is larger.
        """
        cached = self.find(entry)
        if cached is not None:
            return cached
        with self._hinting(), self._partial(entry, place) as (stream, partial):
            cached = self.find(entry)
            if cached is not None:
                return cached
            offset = stream.seek(0, os.SEEK_END)
            if offset > entry.size:
                offset = _restart(stream)
            self._download(stream, offset, entry, download)
            if offset and partial.stat().st_size == entry.size and not entry.matches(partial):
                # The part of an earlier attempt may be what is wrong.
                self._download(stream, _restart(stream), entry, download)
            with disk_errors(partial):
                size = partial.stat().st_size
                if size < entry.size:
                    raise IntegrityError(
                        f"{place} ended after {size:,} of {entry.size:,} bytes.",
                        hint="Run the command again to resume.",
                    )
                try:
                    entry.check(partial, place, hint=_DAMAGED)
                except IntegrityError:
                    partial.unlink()
                    raise
                os.fsync(stream.fileno())
                return self._adopt(partial, entry)

    @contextmanager
    def _hinting(self) -> Iterator[None]:
        """Hint at the cache's commands where its disk refuses, and not where a directory hub's does."""
        try:
            yield
        except StorageError as error:
            path = error.path
            if path is not None and (
                path == self.root or self.root in path.parents or path in self.root.parents
            ):
                error.hint = (
                    "Free some space, for example with 'modhub cache --prune 30', "
                    f"or set {CACHE_VARIABLE} to a writable directory."
                )
            raise

    def _download(self, stream: BinaryIO, offset: int, entry: FileEntry, download: Fetch) -> None:
        if offset < entry.size:
            with disk_errors(self.root):
                try:
                    download(stream, offset)
                finally:
                    stream.flush()

    def _adopt(self, partial: Path, entry: FileEntry) -> Path:
        sha256 = entry.sha256 or sha256_of_file(partial)
        path = self._at(sha256)
        make_directory(path.parent)
        with suppress(OSError):
            os.chmod(partial, permitted(0o444))
        os.replace(partial, path)
        fsync_directory(path.parent)
        if entry.sha256 is None:
            write_bytes(self.root / "oids" / _commit(entry.oid), sha256.encode())
        return path

    def _at(self, sha256: str) -> Path:
        return self.root / "files" / sha256[:2] / _sha256(sha256)

    def _sha256_of(self, entry: FileEntry) -> str | None:
        if entry.oid is None:
            return None
        try:
            sha256 = (self.root / "oids" / _commit(entry.oid)).read_bytes().decode("ascii", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return sha256 if is_sha256(sha256) else None

    @contextmanager
    def _partial(self, entry: FileEntry, place: str) -> Iterator[tuple[BinaryIO, Path]]:
        """The part downloaded so far, open and locked. After waiting for the lock, `find` the file again."""
        name = f"git-{_commit(entry.oid)}-{entry.size:d}" if entry.sha256 is None else _sha256(entry.sha256)
        path = self.root / "partial" / name
        make_directory(path.parent)
        while True:
            with disk_errors(path):
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            # Closing writes what a full disk refused before, and is refused again.
            with disk_errors(path), _Bounded(io.FileIO(handle, "r+"), entry.size, place) as stream:
                lock_file(handle)
                if not _names(path, handle):
                    continue
                try:
                    yield stream, path
                finally:
                    # Once complete and moved away, the name may be another download's part.
                    if _names(path, handle) and os.fstat(handle).st_size == 0:
                        path.unlink()
                return

    # Size

    def usage(self) -> CacheUsage:
        """What the cache holds now, partial downloads included."""
        sizes = [_size(path) for path in self._files()]
        return CacheUsage(len(sizes), sum(sizes))

    def prune(self, seconds: float, *, dry_run: bool = False) -> CacheUsage:
        """Remove files not used for `seconds`; what was removed, or would be.

        Safe beside other processes: files being fetched or checked stay.
        """
        before = time.time() - seconds
        removed: list[int] = []
        with disk_errors(self.root):
            for path in self._files():
                size = _size(path)
                if _unused(path, before, remove=not dry_run):
                    removed.append(size)
        return CacheUsage(len(removed), sum(removed))

    def _files(self) -> Iterator[Path]:
        yield from self.root.glob("files/*/*")
        yield from self.root.glob("partial/*")

    # References and trees, for working offline

    def remember_refs(self, hub: str, repository: RepositoryId, refs: Refs) -> None:
        """Keep the references for working offline."""
        document = {"id": str(repository), "branches": dict(refs.branches), "tags": dict(refs.tags)}
        self._remember(self._folder(hub, repository) / "refs.json", document)

    def refs(self, hub: str, repository: RepositoryId) -> Refs | None:
        """The references as last read."""
        document = self._recall(self._folder(hub, repository) / "refs.json") or {}
        branches, tags = _commits(document.get("branches")), _commits(document.get("tags"))
        return None if branches is None or tags is None else Refs(branches, tags)

    def remember_yanks(self, hub: str, repository: RepositoryId, yanks: Mapping[str, str]) -> None:
        """Keep which releases were yanked, for a hub that no longer says so."""
        path = self._folder(hub, repository) / "yanks.json"
        if yanks or path.exists():
            self._remember(path, yanks)

    def yanks(self, hub: str, repository: RepositoryId) -> dict[str, str]:
        """What was remembered; nothing when there is nothing."""
        yanks = self._recall(self._folder(hub, repository) / "yanks.json") or {}
        return {release: reason for release, reason in yanks.items() if isinstance(reason, str)}

    def remember_namespaces(self, hub: str, names: frozenset[str]) -> None:
        """Keep which namespaces are the user's for working offline."""
        self._remember(self._hub(hub) / "namespaces.json", {"namespaces": sorted(names)})

    def namespaces(self, hub: str) -> frozenset[str]:
        """The user's namespaces as last read."""
        names = (self._recall(self._hub(hub) / "namespaces.json") or {}).get("namespaces")
        return frozenset(filter(is_text, map(str, names))) if isinstance(names, list) else frozenset()

    def repositories(self, hub: str) -> list[RepositoryId]:
        """Repositories whose references are remembered."""
        repositories = []
        for path in sorted(self._hub(hub).glob("*/*/refs.json")):
            with suppress(RefError):
                repositories.append(RepositoryId.parse(str((self._recall(path) or {}).get("id"))))
        return repositories

    def remember_tree(
        self, hub: str, repository: RepositoryId, commit: str, tree: dict[str, FileEntry]
    ) -> None:
        """Keep the list of files of a commit, which never changes."""
        document = {path: [entry.size, entry.sha256, entry.oid] for path, entry in tree.items()}
        self._remember(self._tree(hub, repository, commit), document)

    def tree(self, hub: str, repository: RepositoryId, commit: str) -> dict[str, FileEntry] | None:
        """The list of files of a commit, if it was read before."""
        document = self._recall(self._tree(hub, repository, commit))
        if document is None:
            return None
        tree = {path: entry for path, facts in document.items() if (entry := _entry(facts))}
        return tree if len(tree) == len(document) else None

    def _tree(self, hub: str, repository: RepositoryId, commit: str) -> Path:
        return self._folder(hub, repository) / "trees" / f"{_commit(commit)}.json"

    def _hub(self, hub: str) -> Path:
        return self.root / "hubs" / hashlib.sha256(hub.encode()).hexdigest()[:16]

    def _folder(self, hub: str, repository: RepositoryId) -> Path:
        return self._hub(hub) / str(repository).lower()

    def _remember(self, path: Path, document: Mapping[str, Any]) -> None:
        content = canonical_json(document)
        with suppress(FileNotFoundError, NotADirectoryError):
            if path.read_bytes() == content:
                return
        # Only needed offline: a disk that refuses is reported when a file is fetched.
        with suppress(StorageError):
            write_bytes(path, content)

    def _recall(self, path: Path) -> dict[str, Any] | None:
        try:
            document = parse_json(path.read_bytes(), f"'{path}'")
        except (FileNotFoundError, NotADirectoryError, ManifestError):
            return None
        return document if isinstance(document, dict) else None


class _Bounded(io.BufferedRandom):
    """A file of at most `limit` bytes; more raises `IntegrityError`: no endless response fills the disk."""

    def __init__(self, raw: io.FileIO, limit: int, place: str) -> None:
        super().__init__(raw)
        self._limit = limit
        self._place = place

    def write(self, chunk: ReadableBuffer, /) -> int:
        if self.tell() + memoryview(chunk).nbytes > self._limit:
            # What came before is suspect, too: the next attempt starts over.
            _restart(self)
            raise IntegrityError(
                f"{self._place} is larger than the expected {self._limit:,} bytes.",
                hint=_DAMAGED,
            )
        return super().write(chunk)


def _sha256(text: str) -> str:
    """`text` itself, fit for a path. Raises `IntegrityError`."""
    if not is_sha256(text):
        raise IntegrityError(f"{text!a} is not a sha256 digest (64 hex digits).", hint="Check the hub.")
    return text


def _commit(text: str | None) -> str:
    """`text` itself, a git sha1 fit for a path. Raises `IntegrityError`."""
    if text is None or not is_commit(text):
        raise IntegrityError(f"{text!a} is not a git sha1 (40 hex digits).", hint="Check the hub.")
    return text


def _commits(names: object) -> dict[str, str] | None:
    """Commits by name as they were remembered; None when they are not."""
    if not isinstance(names, dict) or not all(
        isinstance(commit, str) and is_commit(commit) for commit in names.values()
    ):
        return None
    return names


def _entry(facts: object) -> FileEntry | None:
    """A file as it was remembered; None when the record is invalid."""
    match facts:
        case [int(size), str(sha256), str() | None as oid] if is_sha256(sha256):
            return FileEntry(size, sha256, oid)
        case [int(size), None, str(oid)] if is_commit(oid):
            return FileEntry(size, None, oid)
    return None


def _names(path: Path, handle: int) -> bool:
    """Whether `path` is still the file that is open as `handle`."""
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        raise
    except OSError:
        # Another user's cache, or one on a read-only disk, can be used all the same.
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unused(path: Path, before: float, *, remove: bool) -> bool:
    """Whether a file was last used `before` that time and is not locked; with `remove` it is deleted."""
    with suppress(FileNotFoundError), path.open("rb") as stream:
        try:
            lock_file(stream.fileno(), wait=False)
        except BlockingIOError:
            return False
        if _names(path, stream.fileno()) and os.fstat(stream.fileno()).st_mtime < before:
            if remove:
                path.unlink(missing_ok=True)
            return True
    return False


def _restart(stream: BinaryIO) -> int:
    stream.seek(0)
    stream.truncate()
    return 0
