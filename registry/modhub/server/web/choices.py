"""Modules to pick from, as the compose page and a trunk's page list them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from modhub.catalog.releases import Release, newest_release
from modhub.errors import ModhubError
from modhub.manifest import ModuleEntry, RepositoryManifest, Sizes, ranking_key, shown_bound
from modhub.manifest.card import ref_of
from modhub.refs import RepositoryId
from modhub.server.http.request import Request
from modhub.server.web.render import address
from modhub.server.web.repository_view import VisibleRepositories


@dataclass(frozen=True, slots=True)
class Match:
    """A module in the newest release of a repository."""

    repository: RepositoryId
    release: Release
    manifest: RepositoryManifest
    entry: ModuleEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A row of the list. `sizes` is None where the module's manifest cannot be read."""

    ref: str
    href: str
    release: Release
    entry: ModuleEntry
    balanced: str
    trunk: str
    sizes: Sizes | None
    license: str | None
    picked: bool


def matches_in(
    catalogue: VisibleRepositories, repositories: Iterable[RepositoryId], *, label: str = "", trunk: str = ""
) -> list[Match]:
    """Modules of the newest releases of `repositories` that answer to `label` and stand on `trunk`, of which
    an empty one means any."""
    matches: list[Match] = []
    for repository in repositories:
        try:
            release = newest_release(catalogue.releases(repository))
            if release is None:
                continue
            manifest = catalogue.manifest(repository, release.commit)
        except ModhubError:
            # One bad repository must not hide the others.
            continue
        matches += [
            Match(repository, release, manifest, entry)
            for entry in (manifest.matching(label) if label else manifest.modules)
            if trunk in ("", manifest.trunk_of(entry).sha256)
        ]
    return matches


def rank(match: Match) -> tuple[bool, float]:
    """The larger the better: `modhub.manifest.ranking`."""
    return ranking_key(match.entry.metrics, match.entry.sample)


def choice_of(
    request: Request, catalogue: VisibleRepositories, match: Match, picks: Collection[str] = ()
) -> Choice:
    """The row of `match`; it is `picked` where its ref is among `picks`."""
    repository, entry = match.repository, match.entry
    ref, sizes = ref_of(str(repository), entry), None
    with suppress(ModhubError):
        sizes = catalogue.view(repository).module(match.release.commit, entry).sizes
    return Choice(
        ref=ref,
        href=address(request, repository.namespace, repository.name, "modules", entry.slug),
        release=match.release,
        entry=entry,
        balanced=shown_bound(entry.metrics, entry.sample),
        trunk=match.manifest.trunk_of(entry).sha256,
        sizes=sizes,
        license=match.manifest.license,
        picked=ref in picks,
    )
