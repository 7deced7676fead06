"""Every release that could have a part, asked for once, and what speaks against each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.catalog.releases import Release
from modhub.errors import (
    AccessError,
    IntegrityError,
    ManifestError,
    ModhubError,
    NotFoundError,
    RefError,
)
from modhub.project.model import Catalogue, ResolvedModule
from modhub.project.toml import Constraints, Want
from modhub.refs import Ref, RepositoryId, pinned_versions

__all__ = ["Universe"]

# What a repository can bring about by what it holds or whom it lets in; a network that fails is not that.
_UNREADABLE = (AccessError, IntegrityError, ManifestError, NotFoundError, RefError)


class Universe:
    """A catalogue seen through the constraints; answers are remembered.

    Anybody may offer a class, so a provider of a bare label that cannot be read is none, for a reason that
    `unreadable` and `module` give; a repository that a want names raises what is wrong with it. Whether the
    files of a module are all there is asked of those alone that were chosen: see `rule_out`.
    """

    def __init__(self, catalogue: Catalogue, constraints: Constraints) -> None:
        self.catalogue = catalogue
        self.constraints = constraints
        self.releases = lru_cache(maxsize=None)(self._releases)
        self.manifest = lru_cache(maxsize=None)(catalogue.manifest)
        self.release_at = lru_cache(maxsize=None)(catalogue.release_at)
        self.module = lru_cache(maxsize=None)(self._module)
        self._offers = lru_cache(maxsize=None)(self._asked)
        self._ruled_out: dict[tuple[Want, RepositoryId, Release], str] = {}

    def _releases(self, repository: RepositoryId) -> tuple[Release, ...]:
        """Newest first."""
        marked = [release for release in self.catalogue.releases(repository) if release.version is not None]
        return tuple(sorted(marked, key=lambda release: (release.version, release.commit), reverse=True))

    def _asked(self, label: str) -> dict[RepositoryId, str]:
        """Each provider of a label, and why its releases cannot be read, empty when they can."""
        found = {}
        for repository in sorted(set(self.catalogue.providers(label))):
            found[repository] = ""
            try:
                self.releases(repository)
            except _UNREADABLE as error:
                found[repository] = _cannot_be_read(f"{repository}", error)
        return found

    def providers(self, label: str) -> tuple[RepositoryId, ...]:
        """Repositories that may have a class that answers to `label`, by name."""
        return tuple(repository for repository, problem in self._offers(label).items() if not problem)

    def unreadable(self, label: str) -> tuple[str, ...]:
        """Why other repositories that offer `label` cannot be read."""
        return tuple(problem for problem in self._offers(label).values() if problem)

    def allowed(self, repository: RepositoryId, refs: Iterable[Ref]) -> tuple[Release, ...]:
        """The releases that every ref's specifier and revision allow, newest first.

        Raises `NotFoundError` when the repository or a revision does not exist.
        """
        refs = tuple(refs)
        pinned = {self.release_at(repository, ref.revision) for ref in refs if ref.revision is not None}
        if len({release.commit for release in pinned}) > 1:
            return ()
        specifiers = SpecifierSet()
        for ref in refs:
            specifiers &= ref.specifier
        if pinned:
            # Of several tags on one commit, a commit means the newest: the oldest is what a tag names.
            oldest_first = sorted(pinned, key=lambda release: release.version or Version("0"))
            return tuple(release for release in oldest_first if _fits(specifiers, release.version))[:1]
        releases, named = self.releases(repository), pinned_versions(specifiers)
        standing = [release for release in releases if release.yanked is None or release.version in named]
        fitting = set(specifiers.filter(release.version for release in standing if release.version))
        return tuple(release for release in standing if release.version in fitting)

    def _module(self, want: Want, repository: RepositoryId, release: Release) -> ResolvedModule | str:
        """The module that fulfils `want` in that release, or the reason why none does."""
        if reason := self._ruled_out.get((want, repository, release)):
            return reason
        try:
            manifest = self.manifest(repository, release.commit)
        except _UNREADABLE as error:
            if want.ref.repository is not None:
                raise
            return _cannot_be_read(f"{repository} {release}", error)
        label = want.ref.label or want.label
        try:
            entry = manifest.module(label, f"{repository} {release}")
        except NotFoundError:
            return f"{repository} {release} has no class '{label}'"
        licenses, least = self.constraints.licenses, self.constraints.min_recall
        if licenses is not None and (manifest.license or "").casefold() not in licenses:
            stated = f"'{manifest.license}'" if manifest.license else "not stated"
            return f"the licence of {repository} {release} is {stated}"
        recall = entry.metrics.get("recall")
        if least is not None and recall is None:
            return f"no recall is recorded for '{entry.label}' in {repository} {release}"
        if least is not None and recall is not None and recall < least:
            return f"the recall of '{entry.label}' in {repository} {release} is {recall:.3f}"
        return ResolvedModule(want, repository, release, entry, manifest.trunk_of(entry))

    def rule_out(self, modules: Iterable[ResolvedModule]) -> bool:
        """Pass over those for bare labels of which a file is lost from now on; whether there are any."""
        reasons = {
            (module.want, module.repository, module.release): reason
            for module in modules
            if module.want.ref.repository is None and (reason := self._lacks(module))
        }
        self._ruled_out |= reasons
        self.module.cache_clear()
        return bool(reasons)

    def _lacks(self, module: ResolvedModule) -> str:
        """Why a module that was chosen cannot be had after all; empty when it can."""
        trunk, place = module.trunk, f"{module.repository} {module.release}"
        own = [module.entry.manifest, module.entry.tensors]
        homes = [(module.repository, module.release.commit, own)]
        try:
            if trunk.repository is None:
                own.extend(trunk.files)
            else:
                home = RepositoryId.parse(trunk.repository)
                homes.append(
                    (home, self.release_at(home, trunk.revision or "main").commit, list(trunk.files))
                )
            for repository, commit, files in homes:
                lost = self.catalogue.lost(repository, commit)
                if gone := next((file.path for file in files if file.path in lost), None):
                    return f"{place} cannot be read (the hub has lost '{gone}' of '{repository}')"
        except _UNREADABLE as error:
            return _cannot_be_read(place, error)
        return ""

    def nearest(self, label: str, repository: RepositoryId, release: Release) -> list[str]:
        """Up to five labels of that release that look like `label`, else its first ten."""
        known = [entry.label for entry in self.manifest(repository, release.commit).modules]
        return difflib.get_close_matches(label, known, n=5, cutoff=0.5) or known[:10]


def _cannot_be_read(place: str, error: ModhubError) -> str:
    return f"{place} cannot be read ({error.message.rstrip('.')})"


def _fits(specifiers: SpecifierSet, version: Version | None) -> bool:
    """Whether a pinned version is allowed; a commit without a release is by no specifier at all."""
    return not str(specifiers) if version is None else specifiers.contains(version, True)
