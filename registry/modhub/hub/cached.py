"""A hub read through the cache: nothing is downloaded twice; offline, only the cache is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from modhub.errors import ManifestError, NotFoundError, OfflineError, RefError
from modhub.hub.base import Hub
from modhub.hub.cache import Cache
from modhub.refs import RepositoryId, is_commit, parse_version, version_of_tag
from modhub.reporter import SILENT, Reporter
from modhub.store.model import FileEntry, Refs


class CachedHub:
    """Reading from `hub` with `cache` in front.

    With `offline` the network is never used: references are those last read, and what is not in the cache
    raises `OfflineError`. A hub that needs no network is read all the same. `bound` says which namespaces, in
    lower case, have a hub of their own.
    """

    def __init__(
        self, hub: Hub, cache: Cache, *, offline: bool = False, bound: Mapping[str, Hub] | None = None
    ) -> None:
        self.hub = hub
        self.cache = cache
        self._bound = bound or {}
        self._namespaces: dict[str, frozenset[str] | None] = {}
        self.offline = offline and not all(hub.local for hub in self.hubs)

    @property
    def hubs(self) -> tuple[Hub, ...]:
        """All hubs that are read."""
        return tuple(dict.fromkeys((self.hub, *self._bound.values())))

    def at(self, repository: RepositoryId) -> Hub:
        """The hub of a repository: the one to which its namespace is bound, and no other."""
        return self._bound.get(repository.namespace.lower(), self.hub)

    def owns(self, repository: RepositoryId) -> bool:
        """Whether its namespace is the user's on its hub; offline as was last read."""
        hub = self.at(repository)
        if hub.address not in self._namespaces:
            if self.offline and not hub.local:
                names: frozenset[str] | None = self.cache.namespaces(hub.address)
            else:
                names = hub.namespaces()
                if not hub.local and names is not None:
                    self.cache.remember_namespaces(hub.address, names)
            self._namespaces[hub.address] = names
        namespaces = self._namespaces[hub.address]
        return namespaces is None or repository.namespace.lower() in namespaces

    def require(self, what: str) -> None:
        """Raises `OfflineError` naming `what` when the network must not be used."""
        if self.offline:
            raise OfflineError(
                f"{what} is not in the cache, and the hub is not contacted when offline.",
                hint="Run the command once without --offline.",
            )

    def refs(self, repository: RepositoryId) -> Refs:
        """Branches and tags; offline those last read."""
        hub = self.at(repository)
        if self.offline and not hub.local:
            cached = self.cache.refs(hub.address, repository)
            if cached is None:
                self.require(f"The list of releases of '{repository}'")
            else:
                return cached
        refs = hub.refs(repository)
        if not hub.local:
            self.cache.remember_refs(hub.address, repository, refs)
        return refs

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        """The commit that a branch, tag or commit names. Raises `NotFoundError`."""
        if is_commit(revision):
            return revision
        refs = self.refs(repository)
        commit = refs.branches.get(revision) or refs.tags.get(revision)
        if commit is None:
            hint = f"It has: {', '.join([*refs.tags, *refs.branches][:20])}."
            if tag := _release_tag(revision, refs.tags):
                hint = f"Did you mean '=={revision}'? What follows @ is a tag ({tag}), a branch or a commit."
            raise NotFoundError(
                f"There is no revision '{revision}' in '{repository}'.",
                hint=hint,
                missing="revision",
            )
        return commit

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        """All files of a commit."""
        hub = self.at(repository)
        if hub.local:
            return hub.tree(repository, commit)
        tree = self.cache.tree(hub.address, repository, commit)
        if tree is None:
            self.require(f"The list of files of '{repository}' at {commit[:12]}")
            tree = hub.tree(repository, commit)
            self.cache.remember_tree(hub.address, repository, commit, tree)
        return tree

    def fetch(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        *,
        expected: FileEntry | None = None,
        reporter: Reporter = SILENT,
    ) -> Path:
        """The file in the cache, verified against `expected`, or else against the hub's list of files.

        Raises `NotFoundError`, `IntegrityError`, `OfflineError`.
        """
        entry = expected or self.tree(repository, commit).get(path)
        if entry is None:
            raise NotFoundError(
                f"There is no file '{path}' in '{repository}' at {commit[:12]}.",
                hint="Choose another release, or tell its publisher.",
                missing="file",
            )
        place = f"'{path}' of '{repository}' at {commit[:12]}"
        cached = self.cache.find(entry)
        if cached is not None:
            return cached
        hub = self.at(repository)
        if not hub.local:
            self.require(place)
        with reporter.step(path, entry.size):
            return self.cache.fetch(
                entry,
                place,
                lambda stream, offset: hub.download(
                    repository, commit, path, stream, offset=offset, reporter=reporter
                ),
            )

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 64 << 20) -> bytes:
        """A file's bytes, through the cache. Raises `ManifestError` when it has more than `limit`."""
        entry = self.tree(repository, commit).get(path)
        if entry is not None and entry.size > limit:
            raise ManifestError(
                f"'{path}' in '{repository}' has {entry.size:,} bytes; {limit:,} are read at most.",
                hint="Choose another release, or tell its publisher.",
            )
        return self.fetch(repository, commit, path, expected=entry).read_bytes()


def _release_tag(revision: str, tags: Iterable[str]) -> str | None:
    """The tag of the release whose version somebody wrote as a revision."""
    try:
        version = parse_version(revision)
    except RefError:
        return None
    return next((tag for tag in tags if version_of_tag(tag) == version), None)
