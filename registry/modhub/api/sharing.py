"""Publishing and finding: push, pull, search, info, versions, yank. Imports no torch."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modhub.api.projects import open_catalog
from modhub.catalog import publish
from modhub.catalog.catalog import Catalog
from modhub.catalog.pull import Pulled, pull_modules
from modhub.catalog.releases import Release, yanked_warning
from modhub.catalog.search import ModuleHit
from modhub.catalog.search import search as search_modules
from modhub.errors import RefError
from modhub.files import check_vacant, confined, new_directory
from modhub.manifest import MANIFEST_NAME, RepositoryManifest, at_least
from modhub.project.resolver import resolve
from modhub.project.toml import Project
from modhub.refs import Ref, RepositoryId, parse_version, pinned_versions, slug_of
from modhub.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleSet

__all__ = ["info", "pull", "pull_refs", "push", "search", "versions", "yank"]


def push(
    modules: Path | str | ModuleSet,
    repository: str,
    *,
    version: str,
    private: bool = False,
    force: bool = False,
    hub: str | Catalog | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Publish an artifact's directory or a `ModuleSet`: one commit, one tag. See `catalog.publish.push`.

    Without `force`, raises `ConflictError` for a network that has no class in common with the release before.
    """
    place, number = RepositoryId.parse(repository), parse_version(version)
    catalog = open_catalog(hub)
    with _written(modules) as directory:
        done = publish.push(
            catalog, directory, place, number, private=private, force=force, reporter=reporter
        )
        # From here, not from the hub: what is published is no failure, whatever the hub says next.
        manifest = RepositoryManifest.from_bytes((directory / MANIFEST_NAME).read_bytes())
    return {
        "repository": str(place),
        "version": str(done.release.version),
        "commit": done.release.commit,
        "hub": catalog.hub.address,
        "modules": len(manifest.modules),
        "files": done.files,
        "bytes": done.sent,
        "existed": done.existed,
    }


def pull(
    refs: str | Iterable[str],
    *,
    out: Path | str | None = None,
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Bring modules into the cache, verified; with `out`, also as one directory that composes and verifies.

    Raises `RefError`, also when `out` is given for modules of several repositories, `HubError`,
    `ResolutionError` for a bare label, `ManifestError` and `IntegrityError` for files that are not what they
    should be, and `StorageError` when something is there and there is no `force`.
    """
    if out is not None:
        out = Path(out)
        check_vacant(out, force=force)
    wanted = [Ref.parse(ref) for ref in ([refs] if isinstance(refs, str) else refs)]
    pulled = pull_refs(open_catalog(hub, offline=offline), wanted, reporter)
    if out is not None:
        if len(pulled) > 1:
            raise RefError(
                f"One directory cannot hold modules of {len(pulled)} repositories.",
                hint="Pull them one by one, or without --out into the cache.",
            )
        _copy(pulled[0], out, force=force)
    modules = [
        {
            "label": module.entry.label,
            "repository": str(part.repository),
            "version": None if part.release.version is None else str(part.release.version),
            "commit": part.release.commit,
            "trunk": module.trunk.sha256,
            "path": str(module.tensors if out is None else out / module.entry.tensors.path),
            "bytes": module.entry.bytes,
        }
        for part in pulled
        for module in part.modules
    ]
    fetched = sum(part.bytes_fetched for part in pulled)
    total = sum(path.stat().st_size for part in pulled for path in set(part.files.values()))
    return {"modules": modules, "downloaded_bytes": fetched, "cached_bytes": max(0, total - fetched)}


def pull_refs(catalog: Catalog, refs: Sequence[Ref], reporter: Reporter = SILENT) -> list[Pulled]:
    """One `Pulled` per repository and release; bare labels are resolved first, as in a composition."""
    # Named twice is wanted once, as it is with whole refs.
    bare = {str(ref).casefold(): str(ref) for ref in refs if ref.repository is None}
    wants = Project.of(bare.values())
    chosen = resolve(wants, catalog, nearest=catalog.nearest).modules if bare else ()
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
        pulled.append(pull_modules(catalog, repository, release, manifest, entries, reporter))
    return pulled


def search(
    labels: str | Sequence[str] = (),
    *,
    license: str = "",  # noqa: A002 - the word users know
    dataset: str = "",
    architecture: str = "",
    text: str = "",
    limit: int = 50,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Modules that answer to any of `labels`; without any, the modules of all repositories.

    `nearest` has for each label that no class on the hub is called the names that look like it.
    `reporter.warn` says how many repositories cannot be read.
    """
    labels = [labels] if isinstance(labels, str) else labels
    catalog = open_catalog(hub, offline=offline)
    hits = search_modules(
        catalog,
        labels,
        license=license,
        dataset=dataset,
        architecture=architecture,
        text=text,
        limit=limit,
        reporter=reporter,
    )
    found = {name.casefold() for hit in hits for name in (hit.label, slug_of(hit.label), *hit.aliases)}
    near = {label: catalog.nearest(label) for label in labels if label.casefold() not in found}
    return {
        "modules": [_hit(hit) for hit in hits],
        "nearest": {label: names for label, names in near.items() if names},
    }


def info(ref: str, *, hub: str | Catalog | None = None, offline: bool = False) -> dict[str, Any]:
    """What a release, and if one was named a module, says of itself."""
    told = open_catalog(hub, offline=offline).details(Ref.parse(ref))
    manifest, trunk = told.manifest, told.manifest.trunk
    entries = [entry for entry in manifest.modules if told.module is None or entry.slug == told.module.slug]
    samples = [entry.sample for entry in entries]
    if told.module is not None and told.module.measurement is not None:
        samples = [told.module.measurement.sample]
    return {
        "repository": str(told.repository),
        "version": None if told.release.version is None else str(told.release.version),
        "commit": told.release.commit,
        "yanked": told.release.yanked,
        "releases": [str(release) for release in told.releases],
        "license": manifest.license,
        "parent": manifest.parent.to_dict(),
        "method": manifest.method.to_dict(),
        "input": manifest.input.to_dict(),
        "trunk": None
        if trunk is None
        else {
            "sha256": trunk.sha256,
            "parameters": trunk.parameters,
            "flops": trunk.flops,
            "bytes": sum(file.size for file in trunk.files),
        },
        "modules": [
            {
                "label": entry.label,
                "aliases": list(entry.aliases),
                "form": entry.form,
                "kept_channels_fraction": entry.kept_channels_fraction,
                "metrics": dict(entry.metrics),
                "sample": None if sample is None else sample.to_dict(),
                "at_least": at_least(entry.metrics, sample),
                "bytes": entry.bytes,
            }
            for entry, sample in zip(entries, samples, strict=True)
        ],
        "module": None if told.module is None else told.module.to_dict(),
    }


def versions(
    repository: str, *, hub: str | Catalog | None = None, offline: bool = False
) -> list[dict[str, Any]]:
    """The releases, newest first; `yanked` is the reason or None."""
    catalog = open_catalog(hub, offline=offline)
    return [
        {"version": str(release.version), "commit": release.commit, "yanked": release.yanked}
        for release in catalog.releases(RepositoryId.parse(repository))
    ]


def yank(
    ref: str, *, reason: str = "", undo: bool = False, hub: str | Catalog | None = None
) -> dict[str, Any]:
    """Yank the release that `repository==version` names, or with `undo` make it active again.

    `before` is the reason it was yanked with already, else None; without a new `reason` that one stays.
    """
    parsed = Ref.parse(ref)
    pins = set(pinned_versions(parsed.specifier))
    if parsed.revision is not None and parsed.revision.startswith("v"):
        pins.add(parse_version(parsed.revision))
    if parsed.repository is None or parsed.label is not None or len(pins) != 1:
        raise RefError(f"'{ref}' does not name one release.", hint="Write namespace/name==1.0.0.")
    catalog, (version,) = open_catalog(hub), pins
    known = {release.version: release.yanked for release in catalog.releases(parsed.repository)}
    before = known.get(version)
    if undo:
        release = publish.unyank(catalog, parsed.repository, version)
    else:
        release = publish.yank(catalog, parsed.repository, version, reason or before or "")
    return {
        "repository": str(parsed.repository),
        "version": str(release.version),
        "yanked": release.yanked,
        "before": before,
    }


@contextmanager
def _written(modules: Path | str | ModuleSet) -> Iterator[Path]:
    """The directory of an artifact; that of a set in memory goes away with the block."""
    if isinstance(modules, Path | str):
        yield Path(modules)
        return
    # Whoever has a set in memory has torch, too.
    from modhub.artifact import write_artifact

    with TemporaryDirectory() as scratch:
        yield write_artifact(Path(scratch) / "modules", modules)


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


def _hit(hit: ModuleHit) -> dict[str, Any]:
    return {
        "ref": hit.ref,
        "repository": str(hit.repository),
        "version": None if hit.release.version is None else str(hit.release.version),
        "label": hit.label,
        "aliases": list(hit.aliases),
        "recall": hit.metrics.get("recall"),
        "metrics": dict(hit.metrics),
        "sample": None if hit.sample is None else hit.sample.to_dict(),
        "at_least": hit.at_least,
        "license": hit.license,
        "dataset": hit.dataset,
        "architecture": hit.architecture,
        "kept_channels_fraction": hit.kept_channels_fraction,
        "bytes": hit.bytes,
        "downloads": hit.downloads,
    }
