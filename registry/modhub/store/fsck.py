"""Check a store in use for damage, and repair it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from modhub.errors import IntegrityError, ManifestError, ModhubError, NotFoundError, StorageError
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.manifest.card import CARD_NAME
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.store.front_matter import parse_front_matter
from modhub.store.leftovers import leftovers, remove_leftover
from modhub.store.model import MAIN
from modhub.store.records import HEADS, TAGS, CommitRecord, RepositoryKey, RepositoryRecord, Settings, now
from modhub.store.references import RepositoryState
from modhub.store.releases import same_versions
from modhub.store.store import Store
from modhub.store.tree import Tree

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding(Result):
    """A problem at `place`; `repaired` says what was done about it, or is empty."""

    place: str
    problem: str
    repaired: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" + (f" ({self.repaired})" if self.repaired else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Result):
    """What was checked, and the findings. `clean` when there are none, or all were repaired.

    `leftovers` are files and folders of interrupted writers: harmless, and removed by `repair` and `gc`.
    """

    findings: tuple[Finding, ...]
    repositories: int
    commits: int
    blobs: int
    bytes: int
    leftovers: int = 0

    @property
    def clean(self) -> bool:
        return all(finding.repaired for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `clean`."""
        return {**Result.to_dict(self), "clean": self.clean}


def fsck(store: Store, *, deep: bool = True, repair: bool = False, reporter: Reporter = SILENT) -> Report:
    """Check every repository, reference, commit, list of files, manifest and blob; refresh the index.

    `deep` reads every blob and compares its digest; otherwise presence and size are checked.

    `repair` removes damaged blobs, so that no wrong bytes are served. A backup or a push can restore the
    right ones, so no reference moves because of a file's contents. A branch whose newest commit or its list
    of files is lost (a backup copied during a push) is reset to the newest readable one; a tag stays, since
    its version must not be published with other content. Where an older commit is lost, repair ends the
    history there and keeps every commit that may have come before.
    """
    return _Check(store, deep, repair, reporter).run()


@dataclass(slots=True)
class _Check:
    store: Store
    deep: bool
    repair: bool
    reporter: Reporter
    findings: list[Finding] = field(default_factory=list)
    bad_blobs: set[str] = field(default_factory=set)
    commits: int = 0
    blobs: int = 0
    bytes: int = 0

    def run(self) -> Report:
        if self.deep:
            self.check_blobs()
        keys = list(self.store.repositories.all())
        for key in self.reporter.track(keys, "repositories", len(keys)):
            try:
                with self.store.references.locked(key, reading=not self.repair):
                    self.check_repository(key)
            except StorageError:
                raise
            except Exception as error:
                # One that cannot even be checked must not keep the others from it.
                self.add(f"{key.kind} {key.id}", f"cannot be checked ({error})")
        self.check_removed_releases()
        behind = self.store.index.refresh()
        if behind:
            self.add("index", f"{behind} entries did not match the files", "brought up to date")
        for key in keys:
            with suppress(NotFoundError, IntegrityError):
                self.store.last_changes.fill(key, anew=self.repair)
        return Report(
            findings=tuple(self.findings),
            repositories=len(keys),
            commits=self.commits,
            blobs=self.blobs,
            bytes=self.bytes,
            leftovers=self.count_leftovers(),
        )

    def count_leftovers(self) -> int:
        try:
            before = self.store.blobs.unused_before()
        except StorageError:
            # On a read-only disk nobody writes.
            before = math.inf
        paths = list(leftovers(self.store.root, before))
        for path in paths if self.repair else ():
            remove_leftover(path)
        return len(paths)

    def add(self, place: str, problem: str, repaired: str = "") -> None:
        self.findings.append(Finding(place, problem, repaired))

    def check_removed_releases(self) -> None:
        for key in self.store.references.with_removed_releases():
            try:
                self.store.references.removed_releases(key)
            except IntegrityError as error:
                self.add(f"{key.kind} {key.id}", f"the releases it had cannot be read ({error.message})")

    def check_blobs(self) -> None:
        for sha256 in self.reporter.track(self.store.blobs.all(), "blobs"):
            digest = hashlib.sha256()
            try:
                with self.store.blobs.open(sha256) as stream:
                    while chunk := stream.read(CHUNK):
                        digest.update(chunk)
                        self.bytes += len(chunk)
            except (OSError, IntegrityError) as error:
                # A concurrent gc may have removed it; if it is needed, the checks below report it.
                if self.store.blobs.size(sha256) is None:
                    continue
                self.bad_blobs.add(sha256)
                self.add(f"blob {sha256}", f"cannot be read ({error})")
                continue
            self.blobs += 1
            if digest.hexdigest() != sha256:
                self.bad_blobs.add(sha256)
                done = self.repair and self.store.blobs.discard(sha256, before=math.inf)
                self.add(f"blob {sha256}", "its bytes have another digest", "removed" * done)

    def check_repository(self, key: RepositoryKey) -> None:
        name = f"{key.kind} {key.id}"
        records = dict(self.readable(key, name))
        try:
            has_record = self.store.repositories.exists(key)
        except ModhubError:
            has_record = False
        if not has_record:
            if self.repair:
                record = RepositoryRecord(
                    kind=key.kind, id=key.id, created=now(), settings=Settings(private=True)
                )
                self.store.references.save(record)
            self.add(name, "its settings are missing or damaged", "set to private" if self.repair else "")
        state, intact = self.read_state(key, name, records)
        problems = {commit: self.problem(records, commit) for commit in {*records, *state.refs.values()}}
        self.check_references(key, name, state, records, problems, intact=intact)

    def readable(self, key: RepositoryKey, name: str) -> Iterator[tuple[str, CommitRecord]]:
        for commit, _ in self.store.references.commits(key):
            self.commits += 1
            try:
                record = self.store.references.commit(key, commit)
            except ModhubError:
                self.add(f"{name}, commit {commit}", "is damaged", self.drop_commit(key, commit))
                continue
            if record is not None:
                yield commit, record

    def drop_commit(self, key: RepositoryKey, commit: str) -> str:
        if not self.repair:
            return ""
        self.store.references.remove_commit(key, commit)
        return "removed"

    def read_state(
        self, key: RepositoryKey, name: str, records: dict[str, CommitRecord]
    ) -> tuple[RepositoryState, bool]:
        """The references, and whether all of them could be read."""
        try:
            return self.store.references.state(key), True
        except (IntegrityError, NotFoundError) as error:
            # The newest commit created on each branch replaces the lost reference.
            refs = {record.ref: "" for record in records.values() if record.ref.startswith(HEADS)}
            self.add(
                name,
                f"its references cannot be read ({error.message})",
                "rebuilt from what can be read and from the commits" * self.repair,
            )
            readable = self.store.references.readable_state(key)
            return replace(readable, refs={HEADS + MAIN: "", **refs, **readable.refs}), False

    def check_references(
        self,
        key: RepositoryKey,
        name: str,
        state: RepositoryState,
        records: dict[str, CommitRecord],
        problems: dict[str, str],
        *,
        intact: bool,
    ) -> None:
        refs = dict(state.refs)
        self.check_releases(key, name, state, refs)
        if HEADS + MAIN not in refs:
            refs[HEADS + MAIN] = ""
        for ref, commit in sorted(refs.items()):
            problem = problems.get(commit) or ("" if commit in problems else "it names no commit")
            place = f"{name}, {ref}"
            if not problem:
                self.check_manifest(key, place, records[commit])
                if ref == HEADS + MAIN:
                    self.check_card(place, records[commit])
                continue
            problem = f"commit {commit[:12] or 'unknown'}: {problem}"
            if self.listed(records, commit):
                # All other files are readable, and this one will be once its bytes are restored.
                self.add(place, problem)
                continue
            if ref.startswith(TAGS):
                self.add(place, f"{problem}; the tag stays, so that nothing else takes its name")
                continue
            repaired = ""
            if self.repair:
                listed = {commit for commit in records if self.listed(records, commit)}
                newest = _newest(ref, commit, records, listed)
                if newest is None and ref == HEADS + MAIN:
                    newest = self.empty_commit(key, records)
                if newest is None:
                    del refs[ref]
                    repaired = "removed"
                else:
                    refs[ref] = newest
                    repaired = f"reset to {newest[:12]}"
                self.store.audit.append("repair", key.subject, "fsck", ref=ref, lost=commit, commit=newest)
            self.add(place, problem, repaired)
        lost = self.check_history(key, name, replace(state, refs=refs), records, problems)
        releases = self.store.releases.recorded(key, replace(state, refs=refs))
        mended = replace(state, refs=refs, lost=lost, releases=releases)
        if self.repair and (not intact or mended != state):
            self.store.references.save_state(key, mended)

    def check_releases(
        self, key: RepositoryKey, name: str, state: RepositoryState, refs: dict[str, str]
    ) -> None:
        """Put the tags of releases back on their commits; name what hides a release or repeats one."""
        for tag, release in state.releases.items():
            if refs.get(TAGS + tag) != release.commit:
                commit = refs.get(TAGS + tag, "")[:12] or "nothing"
                problem = f"it names {commit}, and the release is {release.commit[:12]}"
                if self.repair:
                    refs[TAGS + tag] = release.commit
                self.add(f"{name}, {TAGS}{tag}", problem, "reset to the release" * self.repair)
        releases = self.store.releases.recorded(key, state)
        for first, second in same_versions(releases):
            remedy = f"modhub release remove {key}=={second.removeprefix('v')} --force"
            self.add(name, f"{first} and {second} are one version; remove one with: {remedy}")

    def problem(self, records: dict[str, CommitRecord], commit: str) -> str:
        """Why a commit is incomplete, or nothing."""
        record = records.get(commit)
        if record is None:
            return "it is missing"
        if problem := self.list_problem(record):
            return problem
        tree = self.store.reader.tree_of(record)
        for path, file in tree.items():
            size = self.store.blobs.size(file.sha256)
            if size is None:
                return f"the contents of '{path}' are missing (blob {file.sha256})"
            if file.sha256 in self.bad_blobs or size != file.size:
                return f"the contents of '{path}' are damaged (blob {file.sha256})"
        return ""

    def listed(self, records: dict[str, CommitRecord], commit: str) -> bool:
        """Whether a commit's list of files can be read, whatever the state of their contents."""
        record = records.get(commit)
        return record is not None and not self.list_problem(record)

    def list_problem(self, record: CommitRecord) -> str:
        """Why a commit's list of files cannot be read, or nothing."""
        if record.tree in self.bad_blobs or self.store.blobs.size(record.tree) is None:
            return "its list of files is missing or damaged"
        try:
            self.store.reader.tree_of(record)
        except ModhubError as error:
            return error.message
        return ""

    def check_history(
        self,
        key: RepositoryKey,
        name: str,
        state: RepositoryState,
        records: dict[str, CommitRecord],
        problems: dict[str, str],
    ) -> dict[str, tuple[str, ...]]:
        """Look at all commits before those that references name; return `RepositoryState.lost`."""
        places = {
            commit: f"{name}, {ref}"
            for ref, commit in sorted(state.refs.items(), reverse=True)
            if self.listed(records, commit)
        }
        seen = set(places)
        # Each with the generation of its successor, which exceeds its own.
        waiting: list[tuple[str, str, int]] = []
        missing: dict[str, tuple[str, int]] = {}
        lost: dict[str, tuple[str, ...]] = {}
        for ref, commit in state.refs.items():
            if ref.startswith(TAGS) and commit not in seen:
                seen.add(commit)
                record, place = records.get(commit), f"{name}, {ref}"
                if record is None:
                    missing[commit] = (
                        place,
                        1 + max((other.generation for other in records.values()), default=0),
                    )
                else:
                    lost[commit] = ()
                    waiting += [(parent, place, record.generation) for parent in record.parents]
        for pull in state.pulls:
            target = records.get(state.refs.get(HEADS + pull.target, ""))
            after = 0 if target is None else target.generation + 1
            waiting.append((pull.base, f"{name}, pull request {pull.number}", after))
        for commit, place in places.items():
            waiting += [(parent, place, records[commit].generation) for parent in records[commit].parents]
        while waiting or missing:
            if not waiting:
                # Everything reachable has been seen: what is left may have come before a missing commit.
                commit, (place, after) = missing.popitem()
                recorded = state.lost.get(commit)
                lost[commit] = _last_before(after, records, seen) if recorded is None else recorded
                waiting = [(before, place, after) for before in lost[commit]]
                continue
            commit, place, after = waiting.pop()
            if commit in missing:
                missing[commit] = (missing[commit][0], max(after, missing[commit][1]))
            if commit in seen:
                continue
            seen.add(commit)
            record, problem = records.get(commit), problems.get(commit, "it is missing")
            if record is not None:
                waiting += [(parent, place, record.generation) for parent in record.parents]
            repaired = ""
            if record is None or self.list_problem(record):
                if record is None:
                    missing[commit] = (place, after)
                else:
                    lost[commit] = ()
                if commit in state.lost:
                    repaired = "the history ends there since a repair"
                elif self.repair:
                    repaired = "the history ends there now"
                    self.store.audit.append("repair", key.subject, "fsck", lost=commit)
            if problem:
                self.add(place, f"older commit {commit[:12]}: {problem}", repaired)
        return lost

    def check_manifest(self, key: RepositoryKey, place: str, record: CommitRecord) -> None:
        tree: Tree = self.store.reader.tree_of(record)
        if MANIFEST_NAME not in tree:
            return
        try:
            content = self.store.reader.read(key, record.id, MANIFEST_NAME, limit=64 << 20)
            manifest = RepositoryManifest.from_bytes(content, MANIFEST_NAME)
        except ModhubError as error:
            self.add(place, error.message)
            return
        infos = [info for entry in manifest.modules for info in (entry.manifest, entry.tensors)]
        for entry in manifest.modules:
            trunk = manifest.trunk_of(entry)
            infos.extend(() if trunk.repository else trunk.files)
        for info in dict.fromkeys(infos):
            if info.path not in tree or tree[info.path].sha256 != info.sha256:
                self.add(place, f"{MANIFEST_NAME} names '{info.path}', but that file is missing or differs")

    def check_card(self, place: str, record: CommitRecord) -> None:
        card = self.store.reader.tree_of(record).get(CARD_NAME)
        if card is None:
            return
        with self.store.reader.open(card.sha256) as stream:
            content = stream.read(CHUNK)
        try:
            parse_front_matter(content.decode("utf-8", errors="replace"))
        except ManifestError as error:
            self.add(place, f"the card has no search tags: {error.message}")

    def empty_commit(self, key: RepositoryKey, records: dict[str, CommitRecord]) -> str:
        generation = 1 + max((record.generation for record in records.values()), default=0)
        commit = CommitRecord(
            parents=(),
            tree=self.store.commits.put_tree(Tree({})),
            title="Start over: no complete commit was left",
            description="",
            author="fsck",
            date=now(),
            ref=HEADS + MAIN,
            generation=generation,
        )
        self.store.references.add_commit(key, commit)
        return commit.id


def _last_before(generation: int, records: dict[str, CommitRecord], seen: set[str]) -> tuple[str, ...]:
    """The newest unreachable commits before `generation`: a lost commit may have come after them."""
    older = {
        commit: record
        for commit, record in records.items()
        if commit not in seen and record.generation < generation
    }
    inner = {parent for record in older.values() for parent in record.parents}
    return tuple(sorted(commit for commit in older if commit not in inner))


def _newest(ref: str, commit: str, records: dict[str, CommitRecord], listed: Collection[str]) -> str | None:
    """The nearest of `listed` before `commit`; else the newest of them that was created on `ref`."""
    waiting, seen = [commit], set()
    while waiting:
        ancestor = waiting.pop(0)
        if ancestor in seen or ancestor not in records:
            continue
        seen.add(ancestor)
        if ancestor in listed:
            return ancestor
        waiting.extend(records[ancestor].parents)
    created = [
        (record.generation, record.date, other) for other, record in records.items() if record.ref == ref
    ]
    return next((other for _, _, other in sorted(created, reverse=True) if other in listed), None)
