"""The releases of a repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from modhub.api.catalogs import open_catalog
from modhub.catalog.catalog import Catalog
from modhub.refs import RepositoryId
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReleaseInfo(Result):
    """A release; `yanked` is the reason, empty without one, or None for an active release."""

    version: str
    commit: str
    yanked: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Versions(Result, Sequence[ReleaseInfo]):
    """The releases of a repository, newest first, yanked ones among them."""

    repository: str
    releases: tuple[ReleaseInfo, ...]

    def __len__(self) -> int:
        return len(self.releases)

    @overload
    def __getitem__(self, index: int) -> ReleaseInfo: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ReleaseInfo, ...]: ...

    def __getitem__(self, index: int | slice) -> ReleaseInfo | tuple[ReleaseInfo, ...]:
        return self.releases[index]


def versions(repository: str, *, hub: str | Catalog | None = None, offline: bool = False) -> Versions:
    """The releases of a repository. Raises `RefError` and `HubError`."""
    catalog = open_catalog(hub, offline=offline)
    return Versions(
        repository=repository,
        releases=tuple(
            ReleaseInfo(version=str(release.version), commit=release.commit, yanked=release.yanked)
            for release in catalog.releases(RepositoryId.parse(repository))
        ),
    )
