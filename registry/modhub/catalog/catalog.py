"""What the files on a hub mean: releases, modules, yanking, searching. The same on every hub.

A release `1.2.0` is the tag `v1.2.0`; it never changes. The newest files stand on main, where `yanked.json`
says which releases were taken back, and why: `{"1.0.0": "reason"}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from modhub.catalog.releases import Release
from modhub.errors import (
    HubError,
    IntegrityError,
    ManifestError,
    ModhubError,
    NotFoundError,
    OfflineError,
    RefError,
)
from modhub.files import parse_json
from modhub.hub.base import Hub
from modhub.hub.cache import Cache
from modhub.hub.cached import CachedHub
from modhub.manifest import (
    MANIFEST_NAME,
    FileInfo,
    ModuleEntry,
    ModuleManifest,
    RepositoryManifest,
    Sample,
    TrunkInfo,
    at_least,
    standing,
)
from modhub.manifest.card import CARD_NAME, class_tag
from modhub.refs import Ref, RepositoryId, is_text, pinned_versions, slug_of, version_of_tag
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, FileEntry, RepositorySummary

__all__ = [
    "YANKED_NAME",
    "Catalog",
    "Details",
    "ModuleHit",
    "Pulled",
    "PulledModule",
    "nearest_classes",
    "yanked_warning",
]

YANKED_NAME = "yanked.json"
CANDIDATES = 1000
"""Repositories that a search looks into, at most."""
_PUBLISHED = "Take another release, or tell who published it."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleHit:
    """A module that a search found, in the newest release of its repository.

    `metrics` are fractions in [0, 1] as recorded when it was made, on the images `sample` if that is said;
    `bytes` counts its own two files, not the trunk.
    """

    repository: RepositoryId
    release: Release
    label: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    sample: Sample | None
    license: str | None
    dataset: str | None
    architecture: str
    kept_channels_fraction: float
    bytes: int
    downloads: int

    @property
    def ref(self) -> str:
        """How to name it: `namespace/name/label`."""
        return f"{self.repository}/{self.label}"

    @property
    def at_least(self) -> float | None:
        """The balanced accuracy it has in all likelihood: `modhub.manifest.ranking`."""
        return at_least(self.metrics, self.sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """All there is to know of a repository's release, and of one module if one was named."""

    repository: RepositoryId
    release: Release
    releases: tuple[Release, ...]
    manifest: RepositoryManifest
    module: ModuleManifest | None
    card: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledModule:
    """A module's files on this machine, verified."""

    entry: ModuleEntry
    manifest: Path
    tensors: Path
    trunk: TrunkInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought: `files` maps each path as the manifests name it to a verified local file.

    `bytes_fetched` counts what was not in the cache before. `trunk_commits` says for each trunk (by its
    content id) which commit of which repository its files came from.
    """

    repository: RepositoryId
    release: Release
    manifest: RepositoryManifest
    modules: tuple[PulledModule, ...]
    files: Mapping[str, Path]
    trunk_commits: Mapping[str, tuple[RepositoryId, str]]
    bytes_fetched: int

    def locate(self, info: FileInfo) -> Path:
        """The local file that a manifest speaks of (for `modhub.artifact.read_modules`)."""
        return self.files[info.path]


class Catalog:
    """Repositories of modules on `hub`, seen through `cache`. `offline` uses only what is in the cache.

    Methods raise `NotFoundError` (naming what there is instead), `AccessError`, `OfflineError`, `HubError`,
    and `IntegrityError` for bytes that are not what their digest promises.
    """

    def __init__(self, hub: Hub, cache: Cache | None = None, *, offline: bool = False) -> None:
        self.hub = hub
        self.files = CachedHub(hub, cache or Cache(), offline=offline)

    # Releases

    def releases(self, repository: RepositoryId) -> tuple[Release, ...]:
        """Every release, the newest version first, those taken back too."""
        try:
            refs = self.files.refs(repository)
        except NotFoundError as error:
            raise self._unknown(repository, error) from error
        reasons = self._yanked(repository, refs.branches.get(MAIN))
        found = [
            Release(version, commit, reasons.get(version))
            for tag, commit in refs.tags.items()
            if (version := version_of_tag(tag)) is not None
        ]
        return tuple(sorted(found, key=lambda one: one.version or Version("0"), reverse=True))

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        """What a tag, branch or commit names; its version is None when no release tag marks that commit."""
        releases = self.releases(repository)
        try:
            commit = self.files.commit_of(repository, revision)
        except NotFoundError as error:
            raise NotFoundError(error.message, hint=_existing(releases), missing="revision") from error
        exact = [release for release in releases if f"v{release.version}" == revision]
        marked = exact or [release for release in releases if release.commit == commit]
        return marked[0] if marked else Release(None, commit)

    def select(self, ref: Ref) -> Release:
        """The release that `ref`, which names a repository, means: the newest that its specifier allows.

        Releases taken back count only when pinned (`==1.0.0`, `@v1.0.0`); pre-releases as PEP 440 has it.
        """
        repository = _repository(ref)
        if ref.revision is not None:
            return self.release_at(repository, ref.revision)
        releases = self.releases(repository)
        pinned = pinned_versions(ref.specifier)
        standing = [
            release
            for release in releases
            if release.version and (release.yanked is None or release.version in pinned)
        ]
        fitting = set(ref.specifier.filter(release.version for release in standing if release.version))
        for release in standing:
            if release.version in fitting:
                return release
        wanted = f" that fits '{ref.specifier}'" if str(ref.specifier) else ""
        raise NotFoundError(
            f"'{repository}' has no release{wanted}.", hint=_existing(releases), missing="revision"
        )

    # Reading

    def manifest(self, repository: RepositoryId, commit: str) -> RepositoryManifest:
        """`modhub.json` at a commit. Raises `ManifestError` when the repository holds no modules."""
        place = f"{MANIFEST_NAME} of '{repository}' at {commit[:12]}"
        try:
            content = self.files.read(repository, commit, MANIFEST_NAME)
        except NotFoundError as error:
            if error.missing == "repository":
                raise self._unknown(repository, error) from error
            if error.missing == "revision":
                raise
            raise ManifestError(
                f"'{repository}' at {commit[:12]} has no {MANIFEST_NAME}.", hint="It holds no modules."
            ) from error
        return RepositoryManifest.from_bytes(content, place, hint=_PUBLISHED)

    def details(self, ref: Ref, reporter: Reporter = SILENT) -> Details:
        """The release `ref` means and, if it names a label, that module's manifest."""
        repository = _repository(ref)
        release = self.select(ref)
        manifest = self.manifest(repository, release.commit)
        module = None
        if ref.label is not None:
            entry = manifest.module(ref.label, f"'{repository}'")
            path = self.fetch(repository, release.commit, entry.manifest, reporter)
            module = ModuleManifest.from_bytes(
                path.read_bytes(), f"{entry.manifest.path} of '{repository}'", hint=_PUBLISHED
            )
        card = ""
        if CARD_NAME in self.files.tree(repository, release.commit):
            try:
                content = self.files.read(repository, release.commit, CARD_NAME, limit=4 << 20)
                card = content.decode(errors="replace")
            except OfflineError:
                # A pull brings no card; what else there is to know is told without it.
                if not self.files.offline:
                    raise
        return Details(
            repository=repository,
            release=release,
            releases=self.releases(repository),
            manifest=manifest,
            module=module,
            card=card,
        )

    def fetch(
        self, repository: RepositoryId, commit: str, info: FileInfo, reporter: Reporter = SILENT
    ) -> Path:
        """A file as a manifest or lock names it, in the cache and verified. Asks nobody when it is there."""
        expected = FileEntry(info.size, info.sha256)
        return self.files.fetch(repository, commit, info.path, expected=expected, reporter=reporter)

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Files of a commit that the hub says it has lost; offline nobody says so."""
        return frozenset() if self.files.offline else self.hub.lost(repository, commit)

    # Finding

    def providers(self, label: str) -> tuple[RepositoryId, ...]:
        """Repositories of which some release may have a class that answers to `label`."""
        return tuple(summary.id for summary in self._find([class_tag(label)]))

    def search(
        self,
        labels: Sequence[str] = (),
        *,
        license: str = "",  # noqa: A002 - the word users know
        dataset: str = "",
        architecture: str = "",
        text: str = "",
        limit: int = 100,
        reporter: Reporter = SILENT,
    ) -> list[ModuleHit]:
        """Modules that answer to any of `labels` (all modules without any), the best measured first.

        `modhub.manifest.ranking` says which are the best. `license`, `dataset` and `architecture` must match
        whatever their case; every word of `text` occurs in the repository's name or tags. Repositories
        without a release are passed over, and so are those that cannot be read; `reporter.warn` says how
        many, and why the first.
        """
        wanted = {"license": license, "dataset": dataset, "architecture": architecture}
        found: dict[tuple[RepositoryId, str], ModuleHit] = {}
        unread: list[str] = []
        for summary in self._candidates(labels, text):
            for hit in self._hits(summary, labels, unread):
                if all(
                    not value or (getattr(hit, name) or "").casefold() == value.casefold()
                    for name, value in wanted.items()
                ):
                    found[hit.repository, hit.label] = hit
        if unread:
            number = "1 repository" if len(unread) == 1 else f"{len(unread)} repositories"
            reporter.warn(f"What cannot be read was passed over: {number}, the first because: {unread[0]}")
        order = {label.casefold(): place for place, label in enumerate(labels)}

        def rank(hit: ModuleHit) -> tuple[Any, ...]:
            unseen, bound = standing(hit.metrics, hit.sample)
            asked = min((order[name] for name in _names(hit) if name in order), default=0)
            return (asked, not unseen, -bound, -hit.downloads, hit.repository, hit.label)

        return sorted(found.values(), key=rank)[:limit]

    def nearest(self, label: str) -> list[str]:
        """Up to five classes that look like `label`; none when there is one of that name, or offline."""
        prefix = "class:"
        return nearest_classes(
            label,
            [
                tag.removeprefix(prefix)
                for summary in self._find()
                for tag in summary.tags
                if tag.startswith(prefix) and is_text(tag)
            ],
        )

    def _candidates(self, labels: Sequence[str], text: str) -> Iterable[RepositorySummary]:
        found: dict[RepositoryId, RepositorySummary] = {}
        for tags in [[class_tag(label)] for label in labels] or [[]]:
            found.update({summary.id: summary for summary in self._find(tags, text)})
        return found.values()

    def _find(self, tags: Sequence[str] = (), text: str = "") -> list[RepositorySummary]:
        if self.files.offline:
            words = text.lower().split()
            known = self.files.cache.repositories(self.hub.address)
            return [
                RepositorySummary(one, ()) for one in known if all(word in f"{one}".lower() for word in words)
            ]
        return self.hub.find(["modhub", *tags], text=text, limit=CANDIDATES)

    def _hits(self, summary: RepositorySummary, labels: Sequence[str], unread: list[str]) -> list[ModuleHit]:
        """What of a repository matches; why it cannot be read goes to `unread`."""
        try:
            release = self.select(Ref(summary.id, None))
            manifest = self.manifest(summary.id, release.commit)
        except NotFoundError:
            return []
        except (HubError, ManifestError, IntegrityError, RefError) as error:
            # One bad repository must not keep anybody from finding the others.
            if not (isinstance(error, OfflineError) and self.files.offline):
                unread.append(error.message)
            return []
        return [
            ModuleHit(
                repository=summary.id,
                release=release,
                label=entry.label,
                aliases=entry.aliases,
                metrics=entry.metrics,
                sample=entry.sample,
                license=manifest.license,
                dataset=manifest.parent.dataset,
                architecture=manifest.parent.architecture,
                kept_channels_fraction=entry.kept_channels_fraction,
                bytes=entry.bytes,
                downloads=summary.downloads,
            )
            for entry in manifest.modules
            if not labels or any(entry.answers_to(label) for label in labels)
        ]

    # Pulling

    def pull(self, ref: Ref, *, reporter: Reporter = SILENT, labels: Sequence[str] | None = None) -> Pulled:
        """Bring the module `ref` names (or `labels` of its repository, or all) and their trunks here.

        Only what is not in the cache is fetched: a second module of a repository costs kilobytes. A trunk
        that stands in another repository is fetched from there. Raises `NotFoundError` listing the nearest
        classes.
        """
        repository = _repository(ref)
        release = self.select(ref)
        manifest = self.manifest(repository, release.commit)
        wanted = labels if ref.label is None else [ref.label]
        entries = (
            manifest.modules
            if wanted is None
            else tuple(manifest.module(label, f"'{repository}'") for label in wanted)
        )
        return self.pull_entries(repository, release, manifest, entries, reporter)

    def pull_entries(
        self,
        repository: RepositoryId,
        release: Release,
        manifest: RepositoryManifest,
        entries: Sequence[ModuleEntry],
        reporter: Reporter = SILENT,
    ) -> Pulled:
        """`pull` of modules that are known already."""
        files: dict[str, Path] = {
            MANIFEST_NAME: self.files.fetch(repository, release.commit, MANIFEST_NAME, reporter=reporter)
        }
        fetched = 0

        def bring(source: RepositoryId, commit: str, info: FileInfo) -> Path:
            nonlocal fetched
            if info.path not in files:
                if self.files.cache.find(FileEntry(info.size, info.sha256)) is None:
                    fetched += info.size
                files[info.path] = self.fetch(source, commit, info, reporter)
            return files[info.path]

        modules: list[PulledModule] = []
        trunk_commits: dict[str, tuple[RepositoryId, str]] = {}
        for entry in entries:
            trunk = manifest.trunk_of(entry)
            if trunk.sha256 not in trunk_commits:
                trunk_commits[trunk.sha256] = self.trunk_source(repository, release.commit, trunk)
                for info in trunk.files:
                    bring(*trunk_commits[trunk.sha256], info)
            modules.append(
                PulledModule(
                    entry=entry,
                    manifest=bring(repository, release.commit, entry.manifest),
                    tensors=bring(repository, release.commit, entry.tensors),
                    trunk=trunk,
                )
            )
        return Pulled(
            repository=repository,
            release=release,
            manifest=manifest,
            modules=tuple(modules),
            files=files,
            trunk_commits=trunk_commits,
            bytes_fetched=fetched,
        )

    def trunk_source(
        self, repository: RepositoryId, commit: str, trunk: TrunkInfo
    ) -> tuple[RepositoryId, str]:
        """The repository and commit that hold a trunk's files: the module's own, or the one it names."""
        if trunk.repository is None:
            return repository, commit
        source = RepositoryId.parse(trunk.repository)
        return source, self.files.commit_of(source, trunk.revision or MAIN)

    # Inside

    def _yanked(self, repository: RepositoryId, head: str | None) -> dict[Version, str]:
        if head is None or YANKED_NAME not in self.files.tree(repository, head):
            return {}
        content = self.files.read(repository, head, YANKED_NAME, limit=1 << 20)
        return read_yanked(content, f"{YANKED_NAME} of '{repository}'")

    def _unknown(self, repository: RepositoryId, error: NotFoundError) -> NotFoundError:
        """The same error with the nearest names as its hint."""
        try:
            known = {str(summary.id) for summary in self._find()}
        except ModhubError:
            return error
        near = difflib.get_close_matches(str(repository), sorted(known), n=5, cutoff=0.5)
        if self.hub.local:
            message = f"There is no repository '{repository}'."
            hint = f"The hub is {self.hub.address}; name another with --hub."
        else:
            # Whoever may not see one is told the same as where there is none.
            message, hint = error.message, error.hint
        if near:
            hint = f"Nearest: {', '.join(near)}.{'' if self.hub.local else f' {hint}'}"
        return NotFoundError(message, hint=hint, missing="repository")


def nearest_classes(label: str, known: Iterable[str]) -> list[str]:
    """Up to five of the classes `known` (as tags name them) that look like `label`; none when it is one of
    them. Raises `RefError` for a label without letters and digits."""
    wanted, names = slug_of(label), set(known)
    return [] if wanted in names else difflib.get_close_matches(wanted, sorted(names), n=5, cutoff=0.5)


def yanked_warning(repository: RepositoryId, release: Release) -> str:
    """What whoever takes a release in spite of it should hear."""
    return f"{repository} {release} was taken back: {release.yanked or 'no reason given'}."


def read_yanked(content: bytes, place: str) -> dict[Version, str]:
    """Reason by version, from `yanked.json`. Raises `ManifestError`."""
    document = parse_json(content, place)
    if not isinstance(document, dict) or not all(
        isinstance(reason, str) and is_text(reason) for reason in document.values()
    ):
        raise ManifestError(
            f"{place} should map versions to reasons, each one line of text.", hint=_PUBLISHED
        )
    found = ((version_of_tag(f"v{text}"), reason) for text, reason in document.items())
    return {version: reason for version, reason in found if version is not None}


def _repository(ref: Ref) -> RepositoryId:
    if ref.repository is None:
        raise NotFoundError(
            f"'{ref}' names no repository.", hint=f"Look for one with: modhub search {ref.label}"
        )
    return ref.repository


def _existing(releases: Sequence[Release]) -> str:
    if not releases:
        return "It has no release yet."
    shown = [f"{release.version}{' (yanked)' if release.yanked is not None else ''}" for release in releases]
    return f"Releases: {', '.join(shown[:20])}{', …' if len(shown) > 20 else ''}."


def _names(hit: ModuleHit) -> list[str]:
    return [name.casefold() for name in (hit.label, *hit.aliases)]
