"""A hub's repositories as a client reads them, through its cache. The rules: `modhub.catalog.releases`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modhub.catalog.releases import (
    REPORT,
    YANKED_LIMIT,
    YANKED_NAME,
    FileSource,
    Release,
    allowed_releases,
    no_release,
    parse_yanked,
    release_at,
    releases_of,
    trunk_home,
)
from modhub.errors import ManifestError, ModhubError, NotFoundError, OfflineError
from modhub.hub import open_hub
from modhub.hub.base import Hub
from modhub.hub.cache import Cache
from modhub.hub.cached import CachedHub
from modhub.labels import slug_of
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleManifest, RepositoryManifest, TrunkInfo
from modhub.manifest.card import CARD_NAME, class_tags
from modhub.refs import Ref, RepositoryId, is_text
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, FileEntry, RepositorySummary

CANDIDATES = 1000
"""Repositories that are considered for one class, at most."""
OLDER_CANDIDATES = 200
"""Repositories whose older releases are searched for one class, at most; each costs several requests."""
CARD_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """A repository's release and, if one was named, one module of it. `card` is empty where there is none."""

    repository: RepositoryId
    release: Release
    releases: tuple[Release, ...]
    manifest: RepositoryManifest
    module: ModuleManifest | None
    card: str


class Catalog:
    """Repositories of modules on `hub`, seen through `cache`. `offline` uses only what is in the cache.

    Methods raise `NotFoundError` (naming what there is instead), `AccessError`, `OfflineError`, `HubError`,
    and `IntegrityError` for bytes that do not match their digest.
    """

    def __init__(
        self,
        hub: Hub,
        cache: Cache | None = None,
        *,
        offline: bool = False,
        bound: Mapping[str, Hub] | None = None,
    ) -> None:
        self.hub = hub
        self._offline = offline
        self.files = CachedHub(hub, cache or Cache(), offline=offline, bound=bound)

    def bound(self, addresses: Mapping[str, str]) -> Catalog:
        """This catalog with the hubs of `addresses` for their namespaces. Raises `HubError`."""
        if not addresses:
            return self
        hubs = {self.hub.address: self.hub}
        for address in addresses.values():
            if address not in hubs:
                hubs[address] = open_hub(address)
        bound = {namespace: hubs[address] for namespace, address in addresses.items()}
        return Catalog(self.hub, self.files.cache, offline=self._offline, bound=bound)

    # Releases

    def releases(self, repository: RepositoryId) -> tuple[Release, ...]:
        """Every release, yanked ones too, the newest version first. Raises `ManifestError`."""
        try:
            refs = self.files.refs(repository)
        except NotFoundError as error:
            raise self._unknown(repository, error) from error
        main = refs.branches.get(MAIN)
        has_yanks = main is not None and YANKED_NAME in self.files.tree(repository, main)

        def read(path: str) -> bytes | None:
            if main is None or not has_yanks:
                return None
            return self.files.read(repository, main, path, limit=YANKED_LIMIT)

        releases = releases_of(refs.tags, read, f"'{repository}'")
        cache, address = self.files.cache, self.files.at(repository).address
        if has_yanks:
            cache.remember_yanks(address, repository, _yanks(releases))
            return releases
        # modhub never removes the file: whoever did has not said that those releases are sound.
        before = {**self._pushed_yanks(repository, releases), **cache.yanks(address, repository)}
        return tuple(
            replace(release, yanked=before.get(f"{release} {release.commit}")) for release in releases
        )

    def _pushed_yanks(self, repository: RepositoryId, releases: Sequence[Release]) -> dict[str, str]:
        """What the newest release, whose commit follows main's, says of the others; often nothing."""
        if not releases:
            return {}
        commit = releases[0].commit
        try:
            if YANKED_NAME not in self.files.tree(repository, commit):
                return {}
            content = self.files.read(repository, commit, YANKED_NAME, limit=YANKED_LIMIT)
        except OfflineError:
            if not self.files.offline:
                raise
            return {}
        reasons = parse_yanked(content, f"{YANKED_NAME} of '{repository}'")
        return _yanks(
            replace(release, yanked=reasons.get(release.version) if release.version else None)
            for release in releases
        )

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        """What a tag, branch or commit names; its version is None when no release tag marks that commit."""
        releases = self.releases(repository)
        return release_at(releases, revision, self.files.commit_of(repository, revision))

    def select(self, ref: Ref) -> Release:
        """The release that `ref`, which names a repository, means: the newest that its specifier allows.

        Raises `ReleaseNotFoundError`.
        """
        repository = repository_of(ref)
        if ref.revision is not None:
            return self.release_at(repository, ref.revision)
        releases = self.releases(repository)
        for release in allowed_releases(releases, ref.specifier):
            return release
        raise no_release(repository, releases, ref.specifier, ref.label)

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
        return RepositoryManifest.from_bytes(content, place, hint=REPORT)

    def details(self, ref: Ref, reporter: Reporter = SILENT) -> Details:
        """The release `ref` means and, if it names a label, that module's manifest."""
        repository = repository_of(ref)
        release = self.select(ref)
        manifest = self.manifest(repository, release.commit)
        module = None
        if ref.label is not None:
            entry = manifest.module(ref.label, f"{repository} {release}")
            path = self.fetch(repository, release.commit, entry.manifest, reporter)
            module = ModuleManifest.from_bytes(
                path.read_bytes(), f"{entry.manifest.path} of '{repository}'", hint=REPORT
            )
        return Details(
            repository=repository,
            release=release,
            releases=self.releases(repository),
            manifest=manifest,
            module=module,
            card=self._card(repository, release.commit),
        )

    def fetch(
        self, repository: RepositoryId, commit: str, info: FileInfo, reporter: Reporter = SILENT
    ) -> Path:
        """A file as a manifest or lock names it, in the cache and verified; no request when it is cached."""
        expected = FileEntry(info.size, info.sha256)
        return self.files.fetch(repository, commit, info.path, expected=expected, reporter=reporter)

    def trunk_source(
        self, repository: RepositoryId, commit: str, trunk: TrunkInfo
    ) -> tuple[RepositoryId, str]:
        """The repository and commit that hold the files of a trunk of `repository` at `commit`."""
        home, revision = trunk_home(repository, commit, trunk)
        return home, self.files.commit_of(home, revision)

    def lost(self, repository: RepositoryId, commit: str) -> frozenset[str]:
        """Files of a commit that the hub reports as lost; none when offline."""
        return frozenset() if self.files.offline else self.files.at(repository).lost(repository, commit)

    def cached(self, source: FileSource) -> bool:
        """Whether the cache has all files of a source."""
        return all(map(self.holds, source.files))

    def holds(self, info: FileInfo) -> bool:
        """Whether the cache has a file."""
        return self.files.cache.holds(FileEntry(info.size, info.sha256))

    # Finding

    def find(
        self, tags: Sequence[str] = (), text: str = "", limit: int = CANDIDATES
    ) -> list[RepositorySummary]:
        """Repositories of modules that carry all `tags` and whose name or tags contain every word of `text`.

        Offline, all that the cache knows of whose name does: it knows no tags.
        """
        return [
            summary
            for hub in self.files.hubs
            for summary in self._find(hub, tags, text, limit)
            if self.files.at(summary.id) is hub
        ]

    def _find(self, hub: Hub, tags: Sequence[str], text: str, limit: int) -> list[RepositorySummary]:
        if self.files.offline and not hub.local:
            words = text.lower().split()
            cached = self.files.cache.repositories(hub.address)
            return [
                RepositorySummary(repository, ())
                for repository in cached
                if all(word in str(repository).lower() for word in words)
            ]
        return hub.find(["modhub", *tags], text=text, limit=limit)

    def providers(self, label: str, *, older: bool = False) -> tuple[RepositoryId, ...]:
        """Repositories whose newest release may have a class that answers to `label`.

        With `older`, the most recent repositories, whose releases are to be read: nothing lists classes that
        only an older release has.
        """
        queries = (
            [self.find(limit=OLDER_CANDIDATES)] if older else [self.find([tag]) for tag in class_tags(label)]
        )
        return tuple(dict.fromkeys(summary.id for summaries in queries for summary in summaries))

    def nearest(self, label: str) -> list[str]:
        """Up to five classes that look like `label`; none when there is one of that name, or offline."""
        prefix = "class:"
        return nearest_classes(
            label,
            [
                tag.removeprefix(prefix)
                for summary in self.find()
                for tag in summary.tags
                if tag.startswith(prefix) and is_text(tag)
            ],
        )

    # Inside

    def _card(self, repository: RepositoryId, commit: str) -> str:
        if CARD_NAME not in self.files.tree(repository, commit):
            return ""
        try:
            return self.files.read(repository, commit, CARD_NAME, limit=CARD_LIMIT).decode(errors="replace")
        except OfflineError:
            # A pull caches no card; everything else is known without it.
            if not self.files.offline:
                raise
            return ""

    def _unknown(self, repository: RepositoryId, error: NotFoundError) -> NotFoundError:
        """The same error with the nearest names as its hint."""
        try:
            visible = sorted(str(summary.id) for summary in self.find())
        except ModhubError:
            return error
        near = difflib.get_close_matches(str(repository), visible, n=5, cutoff=0.5)
        hub = self.files.at(repository)
        if hub.local:
            message = f"There is no repository '{repository}'."
            hint = f"The hub is {hub.address}; name another with --hub."
        else:
            # A repository that may not be read is reported like one that does not exist.
            message, hint = error.message, error.hint
        if near:
            hint = f"Nearest: {', '.join(near)}.{'' if hub.local else f' {hint}'}"
        return NotFoundError(message, hint=hint, missing="repository")


def _yanks(releases: Iterable[Release]) -> dict[str, str]:
    """The reason by version and commit."""
    return {
        f"{release} {release.commit}": release.yanked for release in releases if release.yanked is not None
    }


def nearest_classes(label: str, classes: Sequence[str]) -> list[str]:
    """Up to five of `classes` (as tags name them) that look like `label`; none when it is among them.

    Raises `RefError` for a label without letters and digits.
    """
    wanted, names = slug_of(label), set(classes)
    return [] if wanted in names else difflib.get_close_matches(wanted, sorted(names), n=5, cutoff=0.5)


def repository_of(ref: Ref) -> RepositoryId:
    """The repository that `ref` names. Raises `NotFoundError` for a bare label."""
    if ref.repository is None:
        raise NotFoundError(
            f"'{ref}' names no repository.", hint=f"Look for one with: modhub search {ref.label}"
        )
    return ref.repository
