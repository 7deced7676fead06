"""The modules that a lock names: fetched, verified, and read as parts of a composition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from modhub.api.catalogs import open_catalog
from modhub.api.lock import lock
from modhub.artifact import read_modules, read_sets
from modhub.catalog.catalog import Catalog
from modhub.composition import Part, parts_of
from modhub.errors import IntegrityError
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleEntry, ModuleManifest, RepositoryManifest
from modhub.project.lock import LOCK_NAME, Lock, LockedModule
from modhub.project.toml import PROJECT_NAME
from modhub.reporter import SILENT, Reporter


def locked_parts(
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> list[Part]:
    """The modules that refs or a project with its lock name, fetched, or those of an artifact's directory.

    No lock is written. Errors as for `compose`.
    """
    if isinstance(modules, Path) and is_artifact(modules):
        return [part for module_set in read_sets(modules) for part in parts_of(module_set)]
    catalog = open_catalog(hub, offline=offline)
    return parts_of_lock(lock(modules, hub=catalog, reporter=reporter), catalog, reporter)


def is_artifact(directory: Path) -> bool:
    """Whether `directory` holds modules, and no project that says which of them to compose."""
    return (directory / MANIFEST_NAME).is_file() and not (directory / PROJECT_NAME).exists()


def parts_of_lock(locked: Lock, catalog: Catalog, reporter: Reporter = SILENT) -> list[Part]:
    """The locked modules with their trunks, in the order of the lock: fetched, verified, read.

    Nothing but the lock says what to fetch; what the cache has is not asked for again.
    """
    catalog = catalog.bound(locked.hubs)
    files: dict[str, Path] = {}
    with reporter.step("fetch modules", len(locked.modules) + len(locked.trunks)):
        for trunk in locked.trunks:
            for file in trunk.files:
                if file.sha256 not in files:
                    files[file.sha256] = catalog.fetch(trunk.repository, trunk.commit, file)
            reporter.advance()
        for module in locked.modules:
            for file in module.files:
                files[file.sha256] = catalog.fetch(module.repository, module.commit, file)
            reporter.advance()

    def locate(info: FileInfo) -> Path:
        if info.sha256 not in files:
            raise IntegrityError(
                f"'{info.path}' is not among the files of {LOCK_NAME}.", hint="Write it again: modhub lock"
            )
        return files[info.sha256]

    groups: dict[tuple[str, str], list[LockedModule]] = {}
    for module in locked.modules:
        groups.setdefault((str(module.repository), module.trunk), []).append(module)
    parts: dict[str, Part] = {}
    for group in groups.values():
        for module, part in zip(group, _read_group(group, locate), strict=True):
            parts[module.want.label] = part
    return [parts[module.want.label] for module in locked.modules]


def _read_group(group: list[LockedModule], locate: Callable[[FileInfo], Path]) -> list[Part]:
    """Modules of one repository on one trunk, as `read_modules` reads them: digests and shapes verified."""
    entries: dict[str, ModuleEntry] = {}
    manifests = []
    for module in group:
        if len(module.files) != 2:
            raise IntegrityError(
                f"{LOCK_NAME} should list two files of '{module.want.label}', its manifest and its tensors; "
                f"it lists {len(module.files)}.",
                hint="Write the lock again with: modhub lock",
            )
        about, tensors = module.files
        manifest = ModuleManifest.from_bytes(locate(about).read_bytes(), about.path)
        content = (manifest.label, manifest.trunk.sha256, manifest.tensors)
        if content != (module.module, module.trunk, tensors):
            raise IntegrityError(
                f"{about.path} of '{module.repository}' does not say what {LOCK_NAME} says.",
                hint="Write the lock again with: modhub lock",
            )
        manifests.append(manifest)
        entries[manifest.slug] = ModuleEntry.of(manifest, about)
    first = manifests[0]
    whole = RepositoryManifest(
        parent=first.parent,
        trunk=first.trunk,
        input=first.input,
        method=first.method,
        license=first.license,
        modules=tuple(entries.values()),
    )
    (read,) = read_modules(whole, locate, place=f"'{group[0].repository}'")
    by_slug = {module.manifest.slug: module for module in read.modules}
    return [
        Part(by_slug[manifest.slug], read.trunk, read.statistics, label=module.want.label)
        for module, manifest in zip(group, manifests, strict=True)
    ]
