"""What differs between two builds, projects or releases, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from modhub.api.catalogs import open_catalog
from modhub.catalog.catalog import Catalog
from modhub.errors import NotFoundError
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.project.lock import LOCK_NAME, Lock
from modhub.refs import Ref
from modhub.results import Result

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Diff(Result):
    """Labels of the second side only, of the first only, and by label the facts that `changed`: (old, new).

    A fact is None where a side does not say it. `release` is a version, or a commit without one; `content`
    the sha256 of the module's files.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]]


def diff(first: str, second: str, *, hub: str | Catalog | None = None, offline: bool = False) -> Diff:
    """What differs between two builds, projects or releases, class by class.

    Each side is a directory with a modhub.lock (a build or a project) or a modhub.json, a lock file, or a ref
    to a repository's release.
    """
    before = _described(first, hub, offline)
    after = _described(second, hub, offline)
    changed = {}
    for label, facts in before.items():
        others = after.get(label)
        if others is not None and facts != others:
            names = [name for name in {**facts, **others} if facts.get(name) != others.get(name)]
            changed[label] = {name: (facts.get(name), others.get(name)) for name in names}
    return Diff(
        added=tuple(label for label in after if label not in before),
        removed=tuple(label for label in before if label not in after),
        changed=changed,
    )


def _described(target: str, hub: str | Catalog | None, offline: bool) -> dict[str, Facts]:
    path = Path(target)
    if path.is_file():
        return _of_lock(path)
    if (path / LOCK_NAME).is_file():
        return _of_lock(path / LOCK_NAME)
    if (path / MANIFEST_NAME).is_file():
        place = path / MANIFEST_NAME
        return _of_manifest(RepositoryManifest.from_bytes(place.read_bytes(), f"'{place}'"), "")
    if path.is_dir():
        raise NotFoundError(
            f"'{path}' holds neither {LOCK_NAME} nor {MANIFEST_NAME}.",
            hint="Name a build, a project, a directory of modules, or a ref.",
        )
    catalog, ref = open_catalog(hub, offline=offline), Ref.parse(target)
    release = catalog.select(ref)
    if ref.repository is None:
        raise NotFoundError(f"'{ref}' names no repository.", hint="Write namespace/name==1.0.0.")
    manifest = catalog.manifest(ref.repository, release.commit)
    described = _of_manifest(manifest, str(release))
    if ref.label is None:
        return described
    label = manifest.module(ref.label, f"'{ref.repository}'").label
    return {label: described[label]}


def _of_lock(path: Path) -> dict[str, Facts]:
    lock = Lock.from_bytes(path.read_bytes(), f"'{path}'")
    return {
        module.want.label: {
            "module": f"{module.repository}/{module.module}",
            "release": module.commit if module.version is None else str(module.version),
            "trunk": module.trunk,
            "content": [file.sha256 for file in module.files],
        }
        for module in lock.modules
    }


def _of_manifest(manifest: RepositoryManifest, release: str) -> dict[str, Facts]:
    return {
        entry.label: {
            **({"release": release} if release else {}),
            "trunk": manifest.trunk_of(entry).sha256,
            "kept_channels_fraction": entry.kept_channels_fraction,
            **dict(sorted(entry.metrics.items())),
            "license": manifest.license,
            "content": [entry.tensors.sha256],
        }
        for entry in manifest.modules
    }
