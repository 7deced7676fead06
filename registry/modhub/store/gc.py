"""Garbage collection: remove what no reference leads to, beside running writers."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from modhub.errors import IntegrityError, NotFoundError
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.store.leftovers import DAY, leftovers, multipart_uploads, remove_leftover
from modhub.store.records import RepositoryKey
from modhub.store.references import RepositoryState
from modhub.store.store import Store

__all__ = ["DAY", "Collected", "gc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected(Result):
    """What a `gc` removed, or would remove: counts, and bytes on disk."""

    blobs: int
    bytes: int
    commits: int
    uploads: int


def gc(store: Store, *, grace: float = DAY, dry_run: bool = False, reporter: Reporter = SILENT) -> Collected:
    """Remove commits and blobs that no reference leads to and that are older than `grace` seconds.

    No `grace` is too short beside writers: what a commit at work adds is younger than the oldest of them, and
    spared (`modhub.store.leases`). A move touches all blobs of its repository, which could otherwise be seen
    under neither name. Uploads that were acknowledged wait a day for their commit, or `grace` where that is
    longer.

    A repository whose references cannot be read keeps everything, and `reporter.warn` names it. Raises
    `IntegrityError` before it removes any blob when the store is damaged: blobs that seem unused may be what
    a repair needs.
    """
    before = min(store.blobs.unused_before(), time.time() - grace)
    waits = max(grace, DAY)
    live = _parts(store, waits)
    old_uploads: list[tuple[RepositoryKey, str]] = []
    removed_commits = 0
    for key in reporter.track(store.repositories.all(), "mark"):
        with store.references.locked(key):
            state = _state(store, key, reporter)
            doomed = set() if state is None else {*_unreachable(store, key, state, grace)}
            for commit, _ in store.references.commits(key):
                if commit not in doomed:
                    live |= _needs(store, key, commit, () if state is None else state.lost)
            for sha256, age in store.references.uploads(key).items():
                if age >= waits and state is not None:
                    old_uploads.append((key, sha256))
                else:
                    live.add(sha256)
            if not dry_run:
                # Under the lock: no writer can have begun to use these commits.
                for commit in doomed:
                    store.references.remove_commit(key, commit)
                store.last_changes.forget(key, doomed)
            removed_commits += len(doomed)
    blobs = size = 0
    for sha256 in reporter.track(store.blobs.all(), "sweep"):
        if sha256 in live:
            continue
        number = store.blobs.size(sha256) or 0
        if store.blobs.discard(sha256, before=before, dry_run=dry_run):
            blobs += 1
            size += number
    if not dry_run:
        for key, sha256 in old_uploads:
            with store.references.locked(key):
                # It may have been sent again, to this repository or to another that took its name.
                if store.references.uploads(key).get(sha256, 0.0) >= waits:
                    store.references.forget_upload(key, sha256)
        size += sum(remove_leftover(path) for path in leftovers(store.root, before, waits=waits))
    return Collected(blobs=blobs, bytes=size, commits=removed_commits, uploads=len(old_uploads))


def _state(store: Store, key: RepositoryKey, reporter: Reporter) -> RepositoryState | None:
    """The references; None, with a warning, where they or the settings cannot be read: all that the
    repository has is kept then."""
    try:
        store.repositories.get(key)
        return store.references.state(key)
    except (IntegrityError, NotFoundError) as error:
        # One that was deleted meanwhile has nothing left.
        if any(store.references.commits(key)):
            reporter.warn(f"Nothing of the {key.kind} {key.id} is removed: {error.message} Run: modhub fsck")
        return None


def _unreachable(store: Store, key: RepositoryKey, state: RepositoryState, grace: float) -> list[str]:
    waiting = [
        *state.refs.values(),
        *(pull.base for pull in state.pulls),
        *(release.commit for release in state.releases.values()),
    ]
    reached: set[str] = set()
    while waiting:
        commit = waiting.pop()
        if commit not in reached:
            reached.add(commit)
            record = store.references.commit(key, commit)
            if record is None and commit not in state.lost:
                raise IntegrityError(
                    f"The commit {commit} of '{key}' is missing; no blob was removed.",
                    hint="Run: modhub fsck --repair",
                )
            waiting.extend(state.lost.get(commit, ()))
            waiting.extend(() if record is None else record.parents)
    return [commit for commit, age in store.references.commits(key) if commit not in reached and age >= grace]


def _needs(store: Store, key: RepositoryKey, commit: str, lost: Collection[str]) -> set[str]:
    record = store.reader.commit(key, commit)
    try:
        return {record.tree, *(file.sha256 for file in store.reader.tree_of(record).values())}
    except IntegrityError:
        if commit not in lost:
            raise
        return {record.tree}


def _parts(store: Store, waits: float) -> set[str]:
    """The blobs that are parts of uploads younger than `waits` seconds."""
    blobs: set[str] = set()
    for folder in multipart_uploads(store.root):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime < waits:
                blobs.update(part.read_text().strip() for part in folder.glob("*.part"))
    return blobs
