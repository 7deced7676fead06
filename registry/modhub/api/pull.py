"""Bring modules into the cache, or into a directory."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modhub.api.catalogs import open_catalog, trust_of
from modhub.api.trunks import check_trunks
from modhub.catalog.catalog import Catalog
from modhub.catalog.pull import Pulled, pull_modules
from modhub.catalog.releases import Release, yanked_warning
from modhub.errors import RefError
from modhub.files import check_vacant, confined, new_directory
from modhub.manifest import MANIFEST_NAME
from modhub.project.resolver import ResolvedModule, resolve
from modhub.project.toml import Project
from modhub.refs import Ref, RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PulledModule(Result):
    """A module on this machine: `path` is its tensor file; `trunk` the sha256 of the trunk it stands on.

    `version` is None for a commit that no release names; `bytes` is without the trunk.
    """

    label: str
    repository: str
    version: str | None
    commit: str
    trunk: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PullReport(Result):
    """The modules, and how many bytes of their files were downloaded and how many were in the cache."""

    modules: tuple[PulledModule, ...]
    downloaded_bytes: int
    cached_bytes: int


def pull(
    refs: str | Iterable[str],
    *,
    out: Path | str | None = None,
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> PullReport:
    """Bring modules into the cache, every byte verified; with `out` it is `pull_to`.

    Raises `RefError`, `HubError`, `ResolutionError` for a bare label, `ManifestError` and `IntegrityError`.
    """
    if out is not None:
        return pull_to(out, refs, force=force, hub=hub, offline=offline, reporter=reporter)
    return _report(pull_refs(open_catalog(hub, offline=offline), _parsed(refs), reporter))


def pull_to(
    path: Path | str,
    refs: str | Iterable[str],
    *,
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> PullReport:
    """`pull`, and copy the modules into the directory `path`, which composes, verifies and pushes by itself.

    Raises `RefError` for modules of several repositories, `StorageError` when something is in the directory
    and there is no `force`, and what `pull` raises.
    """
    out = Path(path)
    check_vacant(out, force=force)
    pulled = pull_refs(open_catalog(hub, offline=offline), _parsed(refs), reporter)
    if len(pulled) > 1:
        raise RefError(
            f"One directory cannot hold modules of {len(pulled)} repositories.",
            hint="Pull them one by one, or without --out into the cache.",
        )
    _copy(pulled[0], out, force=force)
    return _report(pulled, out)


def _parsed(refs: str | Iterable[str]) -> list[Ref]:
    return [Ref.parse(ref) for ref in ([refs] if isinstance(refs, str) else refs)]


def _report(pulled: Sequence[Pulled], out: Path | None = None) -> PullReport:
    modules = tuple(
        PulledModule(
            label=module.entry.label,
            repository=str(part.repository),
            version=None if part.release.version is None else str(part.release.version),
            commit=part.release.commit,
            trunk=module.trunk.sha256,
            path=module.tensors if out is None else out / module.entry.tensors.path,
            bytes=module.entry.bytes,
        )
        for part in pulled
        for module in part.modules
    )
    downloaded = sum(part.bytes_fetched for part in pulled)
    total = sum(path.stat().st_size for part in pulled for path in set(part.files.values()))
    return PullReport(modules=modules, downloaded_bytes=downloaded, cached_bytes=max(0, total - downloaded))


def pull_refs(catalog: Catalog, refs: Sequence[Ref], reporter: Reporter = SILENT) -> list[Pulled]:
    """One `Pulled` per repository and release; bare labels are resolved first, as in a composition."""
    # Named twice is wanted once, as it is with whole refs.
    bare = list(dict.fromkeys(str(ref) for ref in refs if ref.repository is None))
    chosen: tuple[ResolvedModule, ...] = ()
    if bare:
        trust = trust_of(catalog, reporter)
        chosen = resolve(Project.of(bare), catalog, nearest=catalog.nearest, trust=trust).modules
    wanted: dict[tuple[RepositoryId, Release], list[str] | None] = {}
    for module in chosen:
        labels = wanted.setdefault((module.repository, module.release), [])
        if labels is not None:
            labels.append(module.entry.label)
    for ref in refs:
        if ref.repository is None:
            continue
        key = (ref.repository, catalog.select(ref))
        if ref.label is None:
            wanted[key] = None
            continue
        labels = wanted.setdefault(key, [])
        if labels is not None:
            labels.append(ref.label)
    pulled = []
    for (repository, release), names in wanted.items():
        if release.yanked is not None:
            reporter.warn(yanked_warning(repository, release))
        manifest = catalog.manifest(repository, release.commit)
        entries = manifest.modules
        if names is not None:
            named = [manifest.module(name, f"{repository} {release}") for name in names]
            entries = tuple({entry.slug: entry for entry in named}.values())
        part = pull_modules(catalog, repository, release, manifest, entries, reporter)
        check_trunks(manifest, entries, part.locate)
        pulled.append(part)
    return pulled


def _copy(pulled: Pulled, out: Path, *, force: bool) -> None:
    """A directory of what was pulled, with a manifest that lists just that."""
    part = dataclasses.replace(pulled.manifest, modules=tuple(module.entry for module in pulled.modules))
    with new_directory(out, force=force) as scratch:
        for path, local in pulled.files.items():
            if path != MANIFEST_NAME:
                place = confined(scratch, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(local, place)
        (scratch / MANIFEST_NAME).write_bytes(part.to_bytes())
