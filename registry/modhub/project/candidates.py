"""Every release that could serve a want, read once, and what speaks against each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.catalog.releases import FileSource, Release, allowed_releases, files_of, newest_release
from modhub.errors import (
    AccessError,
    AmbiguousClassError,
    ClassNotFoundError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    OfflineError,
    RefError,
    ResolutionError,
)
from modhub.labels import nearest_labels
from modhub.project.model import Catalogue, Preferences, ResolvedModule
from modhub.project.rejections import (
    LicenseMismatch,
    LostFile,
    NoClass,
    RecallTooLow,
    Rejection,
    Unreadable,
)
from modhub.project.toml import Project, Want
from modhub.refs import Ref, RepositoryId

STEPS = 5_000_000
"""Of a search and of explaining why it failed: about a minute."""
# What a repository can bring about by what it holds or whom it lets in; a network that fails is not that.
_UNREADABLE = (AccessError, IntegrityError, ManifestError, NotFoundError, RefError)


class Candidates:
    """A catalogue seen through the constraints; answers are remembered.

    Anybody may offer a class, so a provider of a bare label that cannot be read is skipped, for a reason that
    `unreadable` and `module` give; a repository that a want names raises what is wrong with it. Whether the
    files of a module are all there is checked only for those that were chosen: see `rule_out`.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        project: Project,
        prefer: Preferences | None = None,
        *,
        steps: int = STEPS,
        offline: bool = False,
        cached: Callable[[FileSource], bool] = lambda source: False,
    ) -> None:
        self.catalogue = catalogue
        self.constraints = project.constraints
        self.prefer = prefer or Preferences()
        self._offline, self._cached = offline, cached
        self._unreadable = (*_UNREADABLE, OfflineError) if offline else _UNREADABLE
        self._served = {
            _spelling(served[0]): served[1]
            for want in project.wants
            if (served := self.prefer.served.get(want)) is not None
        }
        self.steps = steps
        self._left = steps
        self.published = lru_cache(maxsize=None)(catalogue.releases)
        self.releases = lru_cache(maxsize=None)(self._releases)
        self.manifest = lru_cache(maxsize=None)(catalogue.manifest)
        self.release_at = lru_cache(maxsize=None)(catalogue.release_at)
        self.module = lru_cache(maxsize=None)(self._module)
        self._tagged = lru_cache(maxsize=None)(catalogue.providers)
        self._offers = lru_cache(maxsize=None)(self._offered)
        self.kept = lru_cache(maxsize=None)(self._kept)
        self._ruled_out: dict[tuple[Want, RepositoryId, Release], Rejection] = {}
        self._settled: dict[Want, RepositoryId] = {}

    def spend(self) -> None:
        """Count a release that the search looks at. Raises `ResolutionError` beyond the limit."""
        self._left -= 1
        if self._left < 0:
            raise ResolutionError(
                f"No answer was found in {self.steps:,} steps.",
                hint="Name the repository of more modules, narrow their versions, or ask for fewer at once.",
            )

    def _releases(self, repository: RepositoryId) -> tuple[Release, ...]:
        """Newest first; offline those of which the cache has the manifest, if there are any."""
        tagged = [release for release in self.published(repository) if release.version is not None]
        tagged.sort(key=lambda release: (release.version, release.commit), reverse=True)
        if not self._offline:
            return tuple(tagged)
        return tuple(release for release in tagged if self._known(repository, release)) or tuple(tagged)

    def _known(self, repository: RepositoryId, release: Release) -> bool:
        try:
            self.manifest(repository, release.commit)
        except OfflineError:
            return False
        except _UNREADABLE:
            # Whoever takes it is told what is wrong with it.
            return True
        return True

    def providers(self, want: Want) -> tuple[RepositoryId, ...]:
        """Repositories that may serve a bare label, by name; the one that `settle` chose.

        They are those whose newest release has the class, and the lock's provider while its release is
        active. For a label with a specifier that no release of theirs meets, those of which an older active
        release has the class.
        """
        if settled := self._settled.get(want):
            return (settled,)
        return tuple(repository for repository, problem in self._offers(want).items() if problem is None)

    def settle(self, want: Want, provider: RepositoryId | None) -> None:
        """Let only `provider` serve a bare label from now on; None: any may."""
        if provider is None:
            self._settled.pop(want, None)
        else:
            self._settled[want] = provider

    def fitting_providers(self, want: Want) -> tuple[RepositoryId, ...]:
        """Those of the `providers` that serve a bare label within the constraints.

        If there are any, only those that serve it without moving a release of the lock; offline only those
        whose files are in the cache.
        """
        modules = {
            repository: [
                module
                for release in self.allowed(repository, [want])
                if isinstance(module := self.module(want, repository, release), ResolvedModule)
            ]
            for repository in self.providers(want)
        }
        served = {place: fitting for place, fitting in modules.items() if fitting}
        still = {
            place: fitting
            for place, fitting in served.items()
            if (kept := self.kept(place)) is None or any(module.release == kept for module in fitting)
        }
        near = [place for place, fitting in (still or served).items() if any(map(self.at_hand, fitting))]
        return tuple(near or still or served)

    def unreadable(self, want: Want) -> tuple[Rejection, ...]:
        """Why other repositories that offer a bare label cannot be read."""
        return tuple(problem for problem in self._offers(want).values() if problem is not None)

    def _offered(self, want: Want) -> dict[RepositoryId, Unreadable | None]:
        """Each provider of a bare label, and why its releases cannot be read, None when they can."""
        label = want.ref.label or want.label
        offers = self._offering(label, self._tagged(label)) | self._readable(self._locked_provider(want))
        if str(want.ref.specifier) and not any(
            isinstance(self.module(want, repository, release), ResolvedModule)
            for repository, problem in offers.items()
            if problem is None
            for release in self.allowed(repository, [want])
        ):
            older = self._readable({*self._tagged(label, older=True)} - {*offers})
            offers |= {
                repository: None
                for repository, problem in older.items()
                if problem is None and self._has_class(want, repository)
            }
        return dict(sorted(offers.items()))

    def _offering(
        self, label: str, repositories: Iterable[RepositoryId]
    ) -> dict[RepositoryId, Unreadable | None]:
        """Those whose newest release has the class, or cannot be read; a catalogue may name others, too."""
        offers = self._readable(repositories)
        for repository, problem in [*offers.items()]:
            newest = None if problem is not None else newest_release(self.releases(repository))
            if newest is None:
                continue
            try:
                manifest = self.manifest(repository, newest.commit)
            except self._unreadable as error:
                offers[repository] = Unreadable(repository, newest, error)
            else:
                if not manifest.matching(label):
                    del offers[repository]
        return offers

    def _readable(self, repositories: Iterable[RepositoryId]) -> dict[RepositoryId, Unreadable | None]:
        offers: dict[RepositoryId, Unreadable | None] = {}
        for repository in sorted({*repositories}):
            offers[repository] = None
            try:
                self.releases(repository)
            except self._unreadable as error:
                offers[repository] = Unreadable(repository, None, error)
        return offers

    def _has_class(self, want: Want, repository: RepositoryId) -> bool:
        """Whether a release that the want allows has its class."""
        answers = (self.module(want, repository, release) for release in self.allowed(repository, [want]))
        return any(not isinstance(answer, NoClass | Unreadable) for answer in answers)

    def _locked_provider(self, want: Want) -> tuple[RepositoryId, ...]:
        repository = self.prefer.providers.get(want.label)
        if repository is None:
            return ()
        commit = self.prefer.commits.get(repository)
        try:
            releases = self.releases(repository)
        except _UNREADABLE:
            return ()
        active = any(release.commit == commit and release.active for release in releases)
        return (repository,) if active or self.kept(repository) else ()

    def _kept(self, repository: RepositoryId) -> Release | None:
        """The release that the lock has of a repository, if one of the project's wants came from it."""
        release = self._served.get(_spelling(repository))
        if release is None:
            return None
        with suppress(NotFoundError):
            for other in self.published(repository):
                if (other.version, other.commit) == (release.version, release.commit):
                    return other
        return release

    def unlisted(self, module: ResolvedModule) -> bool:
        """Whether its release is one that only the lock has."""
        if module.release.version is None:
            return False
        try:
            return module.release not in self.published(module.repository)
        except NotFoundError:
            return True

    def allowed(self, repository: RepositoryId, wants: Iterable[Want]) -> tuple[Release, ...]:
        """The releases that every want's specifier and revision allow, newest first, then the lock's.

        Raises `NotFoundError` when the repository or a revision does not exist.
        """
        refs = tuple(want.ref for want in wants)
        kept = self.kept(repository)
        if kept is None or not all(self._meets(kept, ref, repository) for ref in refs):
            return self._allowed(repository, refs)
        try:
            others = self._allowed(repository, refs)
        except NotFoundError:
            # The branch that a ref names may be gone; the lock has a commit of it.
            others = ()
        return others if kept in others else (*others, kept)

    def _meets(self, kept: Release, ref: Ref, repository: RepositoryId) -> bool:
        """Whether the release of the lock is what `ref` may mean."""
        if ref.revision is None:
            return _fits(ref.specifier, kept.version)
        if ref.revision == kept.commit or any(
            (want.ref.revision, release.commit) == (ref.revision, kept.commit)
            and _spelling(place) == _spelling(repository)
            for want, (place, release) in self.prefer.served.items()
        ):
            return True
        try:
            return self.release_at(repository, ref.revision).commit == kept.commit
        except NotFoundError:
            return False

    def _allowed(self, repository: RepositoryId, refs: Sequence[Ref]) -> tuple[Release, ...]:
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
        return allowed_releases(self.releases(repository), specifiers)

    def _module(self, want: Want, repository: RepositoryId, release: Release) -> ResolvedModule | Rejection:
        """The module that fulfils `want` in that release, or the reason why none does."""
        if reason := self._ruled_out.get((want, repository, release)):
            return reason
        try:
            manifest = self.manifest(repository, release.commit)
        except self._unreadable as error:
            # What the lock has must not move because the cache lacks it.
            kept = isinstance(error, OfflineError) and release == self.kept(repository)
            if kept or want.ref.repository is not None:
                raise
            return Unreadable(repository, release, error)
        label = want.ref.label or want.label
        try:
            entry = manifest.module(label, f"{repository} {release}")
        except ClassNotFoundError:
            return NoClass(repository, release, label)
        except AmbiguousClassError as error:
            if want.ref.repository is not None:
                raise
            return Unreadable(repository, release, error)
        licenses, least = self.constraints.licenses, self.constraints.min_recall
        if licenses is not None and (manifest.license or "").casefold() not in licenses:
            return LicenseMismatch(repository, release, manifest.license)
        recall = entry.metrics.get("recall")
        if least is not None and (recall is None or recall < least):
            return RecallTooLow(repository, release, entry.label, recall)
        return ResolvedModule(want, repository, release, entry, manifest.trunk_of(entry))

    def rule_out(self, modules: Iterable[ResolvedModule]) -> bool:
        """Skip those for bare labels of which a file is lost from now on; whether there are any."""
        reasons = {
            (module.want, module.repository, module.release): reason
            for module in modules
            if module.want.ref.repository is None and (reason := self._lacks(module)) is not None
        }
        self._ruled_out |= reasons
        self.module.cache_clear()
        self._offers.cache_clear()
        return bool(reasons)

    def _lacks(self, module: ResolvedModule) -> Rejection | None:
        """Why a module that was chosen cannot be had after all."""
        repository, release = module.repository, module.release
        try:
            manifest = self.manifest(repository, release.commit)
            kept = release == self.kept(repository)
            for source in files_of(repository, release.commit, manifest, module.entry):
                if kept and self._cached(source):
                    continue
                commit = release.commit
                if source.revision != release.commit:
                    try:
                        commit = self.release_at(source.repository, source.revision).commit
                    except NotFoundError:
                        if kept:
                            # The lock says which commit that was.
                            continue
                        raise
                lost = self.catalogue.lost(source.repository, commit)
                if gone := next((file.path for file in source.files if file.path in lost), None):
                    return LostFile(repository, release, source.repository, gone)
        except _UNREADABLE as error:
            return Unreadable(repository, release, error)
        return None

    def at_hand(self, module: ResolvedModule) -> bool:
        """Whether its files can be read: always, or offline if they are in the cache."""
        if not self._offline:
            return True
        manifest = self.manifest(module.repository, module.release.commit)
        sources = files_of(module.repository, module.release.commit, manifest, module.entry)
        return all(map(self._cached, sources))

    def nearest(self, label: str, repository: RepositoryId, release: Release) -> list[str]:
        """Up to five labels of that release that look like `label`, else its first ten."""
        labels = [entry.label for entry in self.manifest(repository, release.commit).modules]
        return nearest_labels(label, labels) or labels[:10]


def _spelling(repository: RepositoryId) -> str:
    """Names that differ only in case name one repository."""
    return str(repository).lower()


def _fits(specifiers: SpecifierSet, version: Version | None) -> bool:
    """Whether a pinned version is allowed; a commit without a release is by no specifier at all."""
    return not str(specifiers) if version is None else specifiers.contains(version, True)
