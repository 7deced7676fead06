"""What the resolver asks and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modhub.catalog.releases import Release
from modhub.manifest import ModuleEntry, RepositoryManifest, TrunkInfo
from modhub.project.toml import Want
from modhub.refs import RepositoryId


class Catalogue(Protocol):
    """What the resolver asks; it knows neither hub nor network. Each may raise `HubError`."""

    def releases(self, repository: RepositoryId) -> Sequence[Release]:
        """Every release, yanked ones too, in any order. Raises `NotFoundError`."""

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        """What a tag, branch or commit names. Raises `NotFoundError`."""

    def manifest(self, repository: RepositoryId, commit: str) -> RepositoryManifest:
        """`modhub.json` at `commit`. Raises `ManifestError`."""

    def lost(self, repository: RepositoryId, commit: str) -> Collection[str]:
        """Files of a commit that are known to be lost."""

    def providers(self, label: str, *, older: bool = False) -> Sequence[RepositoryId]:
        """Repositories whose newest release may have a class that answers to `label`, in any order.

        With `older` those of which an older release may have it: in the worst case all there are.
        """


@dataclass(frozen=True, slots=True)
class Preferences:
    """What an older lock chose: commit by repository, repository by label. Wishes, not requirements.

    `served` says which release each of its wants came from. While a project has that want, the release may be
    chosen although it was yanked, although its tag is gone or its branch has moved on.
    """

    commits: Mapping[RepositoryId, str] = field(default_factory=dict)
    providers: Mapping[str, RepositoryId] = field(default_factory=dict)
    served: Mapping[Want, tuple[RepositoryId, Release]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedModule:
    """A want and the module that fulfils it."""

    want: Want
    repository: RepositoryId
    release: Release
    entry: ModuleEntry
    trunk: TrunkInfo


@dataclass(frozen=True, slots=True)
class Resolution:
    """Every want, fulfilled, in the order of the wants."""

    modules: tuple[ResolvedModule, ...]
    unlisted: tuple[ResolvedModule, ...] = ()
    """Those of releases that only the lock has: their tag is gone or marks another commit."""

    @property
    def releases(self) -> dict[RepositoryId, Release]:
        """The one release of each repository that has a part in it."""
        return {module.repository: module.release for module in self.modules}

    @property
    def trunks(self) -> frozenset[str]:
        """Content ids of the trunks: as many passes per image."""
        return frozenset(module.trunk.sha256 for module in self.modules)
