"""References: repositories, their settings, branches and tags, commit records, and their form on disk.

Everything here is small and changes by whole documents under `locked`. A repository is one folder:

    repositories/model/<namespace>/<name>/      lower case; names that differ only in case are the same
        repository.json     spelling, creation date, settings
        refs.json           every reference and pull request: one file, so that they change together
        commits/<id>        one file per commit
        uploads/<sha256>    blobs sent for a later commit
        downloads           one byte per download
        visits              who downloaded what, 8 bytes each
    moved/model/<namespace>/<name>.json         the new name of a repository
    removed/model/<namespace>/<name>.json       releases that were there and are gone
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modhub.errors import IntegrityError, ManifestError, NotFoundError, RefError
from modhub.files import fsync_directory, write_bytes
from modhub.manifest.fields import Fields
from modhub.refs import RepositoryId, is_commit, is_text
from modhub.store.blobs import Blob
from modhub.store.disk import disk_errors, file_lock, make_directory
from modhub.store.downloads import count_download, downloads
from modhub.store.records import (
    HEADS,
    KINDS,
    PULLS,
    TAGS,
    CommitRecord,
    PullRequest,
    ReleaseRecord,
    RepositoryKey,
    RepositoryRecord,
    Settings,
    now,
)
from modhub.text import canonical_json, parse_json, pretty_json

REFS = (HEADS, TAGS, PULLS)
_FSCK = "Run: modhub fsck --repair"


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """The references of a repository, full name (`refs/heads/main`) → commit, and its pull requests.

    `releases` has the record of each release by its tag; see `modhub.store.releases` for older stores.
    `lost` are earlier commits whose record or list of files a repair could not read; each with the commits
    that may have come before it, which are kept for that reason. A history ends at a lost commit.
    """

    refs: Mapping[str, str]
    pulls: tuple[PullRequest, ...] = ()
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    releases: Mapping[str, ReleaseRecord] = field(default_factory=dict)


class References:
    """Repositories and their references. Writers hold `locked` around read, decide, save."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, key: RepositoryKey) -> Path:
        return self._root / "repositories" / key.path

    @contextmanager
    def locked(self, *keys: RepositoryKey, reading: bool = False) -> Iterator[None]:
        """Keep all other writers of these repositories out, in all processes.

        With `reading` it also works where no lock can be created.
        """
        with ExitStack() as locks:
            # In one order, so that nobody waits for somebody who waits for them.
            for name in sorted({key.path for key in keys}):
                locks.enter_context(file_lock(self._root / "locks" / f"{name}.lock", reading=reading))
            yield

    def all(self, kind: str | None = None) -> Iterator[RepositoryKey]:
        """Every repository, in order of its lower-case name."""
        return _keys(self._root / "repositories", KINDS if kind is None else (kind,))

    def namespaces(self) -> frozenset[str]:
        """Those of all repositories, in lower case."""
        return frozenset(name for kind in KINDS for name in _names(self._root / "repositories" / kind))

    def record(self, key: RepositoryKey) -> RepositoryRecord | None:
        """None when there is no such repository."""
        path = self._folder(key) / "repository.json"
        fields = _document(path)
        if fields is None:
            return None
        with _reading():
            # A move writes the new spelling before it renames the folder: the one that fits it counts.
            spelled = [text for text in fields.strings("names") if text.lower() == f"{key.id}".lower()]
            return RepositoryRecord(
                kind=key.kind,
                id=RepositoryId.parse(spelled[-1] if spelled else f"{key.id}".lower()),
                created=fields.string("created"),
                settings=Settings.from_dict(fields.child("settings")),
            )

    def create(self, record: RepositoryRecord, state: RepositoryState, commit: CommitRecord) -> None:
        folder = self._folder(record.key)
        make_directory(folder.parent)
        make_directory(self._root / "staging")
        with disk_errors(folder):
            scratch = self._root / "staging" / f"repository-{secrets.token_hex(8)}"
            scratch.mkdir()
        try:
            with disk_errors(folder):
                (scratch / "commits").mkdir()
                (scratch / "uploads").mkdir()
            write_bytes(scratch / "commits" / commit.id, commit.to_bytes())
            write_bytes(scratch / "refs.json", _state_bytes(state))
            write_bytes(scratch / "repository.json", _record_bytes(record, (record.id,)))
            with disk_errors(folder):
                fsync_directory(scratch)
                os.rename(scratch, folder)
                fsync_directory(folder.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def save(self, record: RepositoryRecord) -> None:
        write_bytes(self._folder(record.key) / "repository.json", _record_bytes(record, (record.id,)))

    def remove(self, key: RepositoryKey) -> None:
        folder = self._folder(key)
        make_directory(self._root / "staging")
        with disk_errors(folder):
            scratch = self._root / "staging" / f"removed-{secrets.token_hex(8)}"
            scratch.mkdir()
            os.rename(folder, scratch / "repository")
            fsync_directory(folder.parent)
        shutil.rmtree(scratch, ignore_errors=True)

    def move(self, record: RepositoryRecord, to: RepositoryId) -> None:
        """Rename at once; the old name answers `moved_to`."""
        old, new = record.key, RepositoryKey(record.kind, to)
        source, target = self._folder(old), self._folder(new)
        make_directory(target.parent)
        write_bytes(source / "repository.json", _record_bytes(record, (record.id, to)))
        if source == target:
            return
        write_bytes(self._moved(old), pretty_json({"to": str(to), "date": now()}))
        with disk_errors(target):
            os.rename(source, target)
            fsync_directory(target.parent)
            fsync_directory(source.parent)

    def moved_to(self, key: RepositoryKey) -> RepositoryId | None:
        """The new name of a repository that was called so."""
        if (self._folder(key) / "repository.json").exists():
            return None
        fields = _document(self._moved(key))
        with _reading():
            return None if fields is None else RepositoryId.parse(fields.string("to"))

    def _moved(self, key: RepositoryKey) -> Path:
        return self._root / "moved" / f"{key.path}.json"

    def _removed(self, key: RepositoryKey) -> Path:
        return self._root / "removed" / f"{key.path}.json"

    def removed_releases(self, key: RepositoryKey) -> dict[str, ReleaseRecord]:
        """Releases that a repository of this name had; empty where none is gone."""
        fields = _document(self._removed(key))
        with _reading():
            return {} if fields is None else _releases(fields)

    def add_removed_releases(self, key: RepositoryKey, releases: Mapping[str, ReleaseRecord]) -> None:
        """Remember them under this name for good."""
        present = self.removed_releases(key)
        if added := {tag: release for tag, release in releases.items() if present.get(tag) != release}:
            write_bytes(self._removed(key), pretty_json(_release_documents({**present, **added})))

    def with_removed_releases(self) -> Iterator[RepositoryKey]:
        """The names under which any are remembered."""
        return _keys(self._root / "removed", KINDS, suffix=".json")

    def state(self, key: RepositoryKey) -> RepositoryState:
        """Raises `NotFoundError` or, where they cannot be read, `IntegrityError`."""
        path = self._folder(key) / "refs.json"
        fields = _document(path)
        if fields is None:
            if (self._folder(key) / "repository.json").exists():
                raise IntegrityError(f"'{path}' is missing.", hint=_FSCK)
            raise no_repository(key)
        with _reading():
            state = RepositoryState(
                refs=fields.string_map("refs"),
                pulls=tuple(PullRequest.from_dict(pull) for pull in fields.children("pulls")),
                lost=fields.optional("lost", lambda lost: {name: lost.strings(name) for name in lost.value})
                or {},
                releases=_releases(fields),
            )
        earlier = (commit for commits in state.lost.values() for commit in commits)
        for commit in (*state.refs.values(), *(pull.base for pull in state.pulls), *state.lost, *earlier):
            if not is_commit(commit):
                raise IntegrityError(f"'{path}' names {commit[:50]!r}, which is no commit.", hint=_FSCK)
        return state

    def readable_state(self, key: RepositoryKey) -> RepositoryState:
        """The references and pull requests that can be read where not all of them can."""
        try:
            fields = _document(self._folder(key) / "refs.json")
        except IntegrityError:
            fields = None
        document = {} if fields is None else fields.value
        refs, listed = document.get("refs"), document.get("pulls")
        pulls: list[PullRequest] = []
        for value in listed if isinstance(listed, list) else ():
            with suppress(ManifestError):
                pulls.append(PullRequest.from_dict(Fields(value, "a pull request")))
        return RepositoryState(
            refs={
                ref: commit
                for ref, commit in (refs.items() if isinstance(refs, Mapping) else ())
                if ref.startswith(REFS) and is_text(ref) and isinstance(commit, str) and is_commit(commit)
            },
            pulls=tuple(pull for pull in pulls if is_commit(pull.base)),
            releases=_readable_releases(document),
        )

    def save_state(self, key: RepositoryKey, state: RepositoryState) -> None:
        """Makes commits, tags and branches visible: atomically, and durably when it returns."""
        write_bytes(self._folder(key) / "refs.json", _state_bytes(state))

    def commit(self, key: RepositoryKey, commit: str) -> CommitRecord | None:
        try:
            content = (self._folder(key) / "commits" / commit).read_bytes()
        except FileNotFoundError:
            return None
        return CommitRecord.from_bytes(content, commit)

    def has_commit(self, key: RepositoryKey, commit: str) -> bool:
        return (self._folder(key) / "commits" / commit).exists()

    def add_commit(self, key: RepositoryKey, commit: CommitRecord) -> None:
        write_bytes(self._folder(key) / "commits" / commit.id, commit.to_bytes())

    def remove_commit(self, key: RepositoryKey, commit: str) -> None:
        (self._folder(key) / "commits" / commit).unlink(missing_ok=True)

    def commits(self, key: RepositoryKey) -> Iterator[tuple[str, float]]:
        """Every commit, referenced or not, with the seconds since it was written."""
        for name in _names(self._folder(key) / "commits"):
            if is_commit(name):
                with suppress(FileNotFoundError):
                    yield name, time.time() - (self._folder(key) / "commits" / name).stat().st_mtime

    def note_upload(self, key: RepositoryKey, blob: Blob) -> None:
        """Remember that this repository was sent `blob`."""
        folder = self._folder(key) / "uploads"
        if not folder.is_dir():
            raise no_repository(key)
        document = {"size": blob.size, "oid": blob.oid, "text": blob.text}
        write_bytes(folder / blob.sha256, canonical_json(document))

    def upload(self, key: RepositoryKey, sha256: str) -> Blob | None:
        """A blob noted by `note_upload`, else None."""
        fields = _document(self._folder(key) / "uploads" / sha256)
        if fields is None:
            return None
        with _reading():
            return Blob(sha256, fields.integer("size"), fields.string("oid"), fields.boolean("text"))

    def uploads(self, key: RepositoryKey) -> Mapping[str, float]:
        """Blobs sent for later commits, each with the seconds since then."""
        folder, ages = self._folder(key) / "uploads", {}
        for name in _names(folder):
            with suppress(FileNotFoundError):
                ages[name] = time.time() - (folder / name).stat().st_mtime
        return ages

    def forget_upload(self, key: RepositoryKey, sha256: str) -> None:
        (self._folder(key) / "uploads" / sha256).unlink(missing_ok=True)

    def count_download(self, key: RepositoryKey, visit: bytes) -> tuple[int, bool]:
        """Add one, unless `visit` (8 bytes, or none) was counted; the total, and whether one was added."""
        return count_download(self._folder(key), visit)

    def downloads(self, key: RepositoryKey) -> int:
        return downloads(self._folder(key))


def no_repository(key: RepositoryKey) -> NotFoundError:
    return NotFoundError(
        f"There is no repository '{key}'.", hint="Look for it with: modhub search", missing="repository"
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _keys(root: Path, kinds: Iterable[str], suffix: str = "") -> Iterator[RepositoryKey]:
    for kind in kinds:
        for namespace in _names(root / kind):
            for name in _names(root / kind / namespace):
                with suppress(RefError):
                    yield RepositoryKey(kind, RepositoryId(namespace, name.removesuffix(suffix)))


def _document(path: Path) -> Fields | None:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with _reading():
        return Fields(parse_json(content, f"'{path}'"), f"'{path}'")


@contextmanager
def _reading() -> Iterator[None]:
    """A document of the store that does not follow its format is damage."""
    try:
        yield
    except (ManifestError, RefError) as error:
        raise IntegrityError(error.message, hint=_FSCK) from error


def _releases(fields: Fields) -> dict[str, ReleaseRecord]:
    def read(releases: Fields) -> dict[str, ReleaseRecord]:
        return {tag: ReleaseRecord.from_dict(releases.child(tag)) for tag in releases.value}

    return fields.optional("releases", read) or {}


def _readable_releases(document: Mapping[str, Any]) -> dict[str, ReleaseRecord]:
    releases: dict[str, ReleaseRecord] = {}
    listed = document.get("releases")
    for tag, value in listed.items() if isinstance(listed, Mapping) else ():
        with suppress(ManifestError):
            releases[tag] = ReleaseRecord.from_dict(Fields(value, "a release"))
    return releases


def _release_documents(releases: Mapping[str, ReleaseRecord]) -> dict[str, Any]:
    return {"releases": {tag: release.to_dict() for tag, release in sorted(releases.items())}}


def _record_bytes(record: RepositoryRecord, names: tuple[RepositoryId, ...]) -> bytes:
    document: dict[str, Any] = {
        "names": [str(name) for name in names],
        "created": record.created,
        "settings": record.settings.to_dict(),
    }
    return pretty_json(document)


def _state_bytes(state: RepositoryState) -> bytes:
    document: dict[str, Any] = {
        "refs": dict(sorted(state.refs.items())),
        "pulls": [pull.to_dict() for pull in state.pulls],
    }
    if state.lost:
        document["lost"] = {commit: list(kept) for commit, kept in sorted(state.lost.items())}
    if state.releases:
        document |= _release_documents(state.releases)
    return pretty_json(document)
