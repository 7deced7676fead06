"""Pulling modules into the cache: their files and their trunks', verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modhub.catalog.catalog import Catalog, repository_of
from modhub.catalog.releases import Release
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleEntry, RepositoryManifest, TrunkInfo
from modhub.refs import Ref, RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.model import FileEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledModule:
    """A module's files on this machine, verified."""

    entry: ModuleEntry
    manifest: Path
    tensors: Path
    trunk: TrunkInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """Modules of one release in the cache: `files` maps each path in the manifests to a verified local file.

    `bytes_fetched` counts what was not in the cache before. `trunk_commits` maps each trunk (by its content
    id) to the repository and commit that its files came from.
    """

    repository: RepositoryId
    release: Release
    manifest: RepositoryManifest
    modules: tuple[PulledModule, ...]
    files: Mapping[str, Path]
    trunk_commits: Mapping[str, tuple[RepositoryId, str]]
    bytes_fetched: int

    def locate(self, info: FileInfo) -> Path:
        """The local file that a manifest names (for `modhub.artifact.read_modules`)."""
        return self.files[info.path]


def pull(catalog: Catalog, ref: Ref, *, reporter: Reporter = SILENT) -> Pulled:
    """Bring the module that `ref` names, or all of its repository, and their trunks into the cache.

    Only what is not in the cache is downloaded: a second module of a repository costs kilobytes. A trunk that
    stands in another repository is downloaded from there. Raises `ClassNotFoundError` and
    `ReleaseNotFoundError`.
    """
    repository = repository_of(ref)
    release = catalog.select(ref)
    manifest = catalog.manifest(repository, release.commit)
    entries = (
        manifest.modules if ref.label is None else (manifest.module(ref.label, f"{repository} {release}"),)
    )
    return pull_modules(catalog, repository, release, manifest, entries, reporter)


def pull_modules(
    catalog: Catalog,
    repository: RepositoryId,
    release: Release,
    manifest: RepositoryManifest,
    entries: Sequence[ModuleEntry],
    reporter: Reporter = SILENT,
) -> Pulled:
    """`pull` of modules whose entries in the manifest are known already."""
    files: dict[str, Path] = {
        MANIFEST_NAME: catalog.files.fetch(repository, release.commit, MANIFEST_NAME, reporter=reporter)
    }
    fetched = 0

    def bring(source: RepositoryId, commit: str, info: FileInfo) -> Path:
        nonlocal fetched
        if info.path not in files:
            if catalog.files.cache.find(FileEntry(info.size, info.sha256)) is None:
                fetched += info.size
            files[info.path] = catalog.fetch(source, commit, info, reporter)
        return files[info.path]

    modules: list[PulledModule] = []
    trunk_commits: dict[str, tuple[RepositoryId, str]] = {}
    for entry in entries:
        trunk = manifest.trunk_of(entry)
        if trunk.sha256 not in trunk_commits:
            trunk_commits[trunk.sha256] = catalog.trunk_source(repository, release.commit, trunk)
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
