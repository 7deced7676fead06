"""A hub seen through the cache: what was fetched is not fetched again; offline, that is all there is."""

from __future__ import annotations

from pathlib import Path

from modhub.errors import ManifestError, NotFoundError, OfflineError
from modhub.hub.base import Hub
from modhub.hub.cache import Cache
from modhub.refs import RepositoryId, is_commit
from modhub.reporter import SILENT, Reporter
from modhub.store.model import FileEntry, Refs

__all__ = ["CachedHub"]


class CachedHub:
    """Reading from `hub` with `cache` in front.

    `offline` never touches the network: references are those last seen, and what is not in the cache raises
    `OfflineError`. A hub that needs no network is asked all the same.
    """

    def __init__(self, hub: Hub, cache: Cache, *, offline: bool = False) -> None:
        self.hub = hub
        self.cache = cache
        self.offline = offline and not hub.local

    def require(self, what: str) -> None:
        """Raises `OfflineError` naming `what` when there is no network to be used."""
        if self.offline:
            raise OfflineError(
                f"{what} is not in the cache, and the hub is not asked when offline.",
                hint="Run the command once without --offline.",
            )

    def refs(self, repository: RepositoryId) -> Refs:
        """Branches and tags; offline those last seen."""
        if self.offline:
            known = self.cache.refs(self.hub.address, repository)
            if known is None:
                self.require(f"What '{repository}' holds")
            else:
                return known
        refs = self.hub.refs(repository)
        if not self.hub.local:
            self.cache.remember_refs(self.hub.address, repository, refs)
        return refs

    def commit_of(self, repository: RepositoryId, revision: str) -> str:
        """The commit that a branch, tag or commit names. Raises `NotFoundError`."""
        if is_commit(revision):
            return revision
        refs = self.refs(repository)
        commit = refs.branches.get(revision) or refs.tags.get(revision)
        if commit is None:
            raise NotFoundError(
                f"There is no revision '{revision}' in '{repository}'.",
                hint=f"It has: {', '.join([*refs.tags, *refs.branches][:20])}.",
                missing="revision",
            )
        return commit

    def tree(self, repository: RepositoryId, commit: str) -> dict[str, FileEntry]:
        """All files of a commit."""
        if self.hub.local:
            return self.hub.tree(repository, commit)
        known = self.cache.tree(self.hub.address, repository, commit)
        if known is None:
            self.require(f"The list of files of '{repository}' at {commit[:12]}")
            known = self.hub.tree(repository, commit)
            self.cache.remember_tree(self.hub.address, repository, commit, known)
        return known

    def fetch(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        *,
        expected: FileEntry | None = None,
        reporter: Reporter = SILENT,
    ) -> Path:
        """The file in the cache, verified against `expected`, else against what the hub says of it.

        Raises `NotFoundError`, `IntegrityError`, `OfflineError`.
        """
        entry = expected or self.tree(repository, commit).get(path)
        if entry is None:
            raise NotFoundError(
                f"There is no file '{path}' in '{repository}' at {commit[:12]}.",
                hint="Take another release, or tell who published it.",
                missing="file",
            )
        place = f"'{path}' of '{repository}' at {commit[:12]}"
        found = self.cache.find(entry)
        if found is not None:
            return found
        self.require(place)
        with reporter.step(path, entry.size):
            return self.cache.fetch(
                entry,
                place,
                lambda stream, offset: self.hub.download(
                    repository, commit, path, stream, offset=offset, reporter=reporter
                ),
            )

    def read(self, repository: RepositoryId, commit: str, path: str, *, limit: int = 64 << 20) -> bytes:
        """A file's bytes, through the cache. Raises `ManifestError` when it has more than `limit`."""
        entry = self.tree(repository, commit).get(path)
        if entry is not None and entry.size > limit:
            raise ManifestError(
                f"'{path}' in '{repository}' has {entry.size:,} bytes; {limit:,} are read at most.",
                hint="Take another release, or tell who published it.",
            )
        return self.fetch(repository, commit, path, expected=entry).read_bytes()
