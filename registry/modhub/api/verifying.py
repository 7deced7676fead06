"""Whether every byte of an artifact, a release or a build is what its manifests promise. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modhub.api.projects import open_catalog
from modhub.api.sharing import pull_refs
from modhub.catalog import Catalog
from modhub.errors import IntegrityError, NotFoundError
from modhub.files import confined, parse_json, sha256_of_file
from modhub.manifest import (
    MANIFEST_NAME,
    Fields,
    FileInfo,
    ModuleEntry,
    ModuleManifest,
    RepositoryManifest,
    TrunkInfo,
)
from modhub.refs import Ref
from modhub.reporter import SILENT, Reporter

__all__ = ["verify"]

_BUILD_NAME = "build.json"


def verify(
    target: str, *, hub: str | Catalog | None = None, offline: bool = False, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Check every file of an artifact's directory, of a build, or of what a ref names.

    Raises `IntegrityError` or `ManifestError` naming the first that is wrong.
    """
    directory = Path(target)
    if not directory.is_dir():
        pulled = pull_refs(open_catalog(hub, offline=offline), [Ref.parse(target)], reporter)
        for part in pulled:
            _check_entries(part.manifest, [(module.entry, module.manifest) for module in part.modules])
        return {
            "target": target,
            "files": sum(len(part.files) for part in pulled),
            "modules": sum(len(part.modules) for part in pulled),
        }
    if (directory / MANIFEST_NAME).is_file():
        return {"target": target, **_verify_artifact(directory, reporter)}
    if (directory / _BUILD_NAME).is_file():
        return {"target": target, **_verify_build(directory, reporter)}
    raise NotFoundError(
        f"'{directory}' holds neither {MANIFEST_NAME} nor {_BUILD_NAME}.",
        hint="Name a ref, or a directory that 'modhub decompose', 'pull --out' or 'compose' wrote.",
    )


def _verify_artifact(directory: Path, reporter: Reporter) -> dict[str, int]:
    path = directory / MANIFEST_NAME
    manifest = RepositoryManifest.from_bytes(path.read_bytes(), f"'{path}'")
    files = list(_files_of(manifest))
    for file in reporter.track(files, "verify"):
        _check(confined(directory, file.path), file, "Pull or decompose it again.")
    _check_entries(
        manifest, [(entry, confined(directory, entry.manifest.path)) for entry in manifest.modules]
    )
    return {"files": 1 + len(files), "modules": len(manifest.modules)}


def _verify_build(directory: Path, reporter: Reporter) -> dict[str, int]:
    path = directory / _BUILD_NAME
    build = Fields(parse_json(path.read_bytes(), str(path)), str(path))
    promised = [build.child("heads")]
    for part in build.children("passes"):
        promised += [part.child("graph"), part.child("weights")]
    for file in reporter.track([FileInfo.from_dict(each) for each in promised], "verify"):
        _check(confined(directory, file.path), file, "Compose it again.")
    return {"files": 1 + len(promised), "modules": len(build.strings("labels"))}


def _check_entries(manifest: RepositoryManifest, entries: list[tuple[ModuleEntry, Path]]) -> None:
    for entry, path in entries:
        manifest.check(entry, ModuleManifest.from_bytes(path.read_bytes(), entry.manifest.path))


def _files_of(manifest: RepositoryManifest) -> Iterator[FileInfo]:
    trunks: dict[str, TrunkInfo] = {}
    for entry in manifest.modules:
        trunk = manifest.trunk_of(entry)
        trunks[trunk.sha256] = trunk
        yield entry.manifest
        yield entry.tensors
    for trunk in trunks.values():
        if trunk.repository is None:
            yield from trunk.files


def _check(path: Path, file: FileInfo, hint: str) -> None:
    if not path.is_file():
        raise IntegrityError(f"'{path}' is missing.", hint=hint)
    size = path.stat().st_size
    if size != file.size:
        raise IntegrityError(
            f"'{path}' has {size:,} bytes; its manifest promises {file.size:,}.",
            hint=f"It may be truncated. {hint}",
        )
    if sha256_of_file(path) != file.sha256:
        raise IntegrityError(
            f"'{path}' is not what its manifest promises: its sha256 differs.",
            hint=f"It was altered or damaged. {hint}",
        )
