"""From refs to a runnable classifier: resolve, fetch, compile, save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modhub.api.projects import (
    current_lock,
    lock_project,
    open_catalog,
    parse_item,
    project_text,
    read_lock,
    read_project,
    resolve_project,
)
from modhub.artifact import read_modules, read_sets
from modhub.catalog.catalog import Catalog
from modhub.composition import KINDS, Budget, ComposedClassifier, Part, parts_of
from modhub.composition import compose as compile_parts
from modhub.data import ImageSet, open_data, open_unlabelled
from modhub.devices import pick_device, torch_defaults
from modhub.errors import BudgetError, CompositionError, IntegrityError, ManifestError, hinting
from modhub.files import new_directory, parse_json, pretty_json
from modhub.manifest import MANIFEST_NAME, Fields, FileInfo, ModuleEntry, ModuleManifest, RepositoryManifest
from modhub.project.lock import LOCK_NAME, Lock, LockedModule
from modhub.project.toml import PROJECT_NAME, Project, Want, add_want, remove_want
from modhub.reporter import SILENT, Reporter

__all__ = [
    "OPTIONS_NAME",
    "BuildOptions",
    "build_manifests",
    "compose",
    "compose_project",
    "locked_parts",
    "parts_of_lock",
    "replace",
]

OPTIONS_NAME = "options.json"
OPTIONS_SCHEMA_VERSION = 1
_AGAIN = "Compose it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """`options.json` of a build: what it was composed with, so that `replace` can do the same again.

    `flops`, `params`, `time`, `max_loss` and `multiple` are those of a `Budget`; None: there is no limit.
    """

    flops: float | None = None
    params: float | None = None
    time: float | None = None
    max_loss: float | None = None
    multiple: int = 1
    reject: bool = False
    seed: int = 0

    @classmethod
    @hinting(_AGAIN)
    def read(cls, path: Path) -> BuildOptions:
        """Read and check the file. Raises `ManifestError` or `SchemaVersionError` naming it."""
        fields = Fields(parse_json(path.read_bytes(), str(path)), str(path))
        fields.check_version(OPTIONS_SCHEMA_VERSION)
        limits = {
            name: None if fields.value.get(name) is None else fields.number(name)
            for name in (*KINDS, "max_loss")
        }
        options = cls(
            **limits,
            multiple=fields.integer("multiple", minimum=1) if "multiple" in fields.value else 1,
            reject=fields.boolean("reject"),
            seed=fields.integer("seed", minimum=-(2**53)),
        )
        try:
            _ = options.budget
        except BudgetError as error:
            raise ManifestError(f"{path}: {error.message}") from None
        return options

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": OPTIONS_SCHEMA_VERSION,
            **{name: getattr(self, name) for name in self.__slots__},
        }

    @property
    def budget(self) -> Budget | None:
        """None when nothing is limited."""
        budget = Budget(
            flops=self.flops,
            params=self.params,
            time=self.time,
            max_loss=self.max_loss,
            multiple=self.multiple,
        )
        return None if budget == Budget(multiple=self.multiple) else budget


@torch_defaults()
def compose(
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    hub: str | Catalog | None = None,
    offline: bool = False,
    budget: Budget | None = None,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    reject: bool = False,
    seed: int = 0,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> ComposedClassifier:
    """A classifier of modules named by a ref, by refs, by `{label: ref}`, or by a folder.

    A folder is a `Path`: one with a `modhub.toml`, or an artifact's as `decompose` and `pull` write them, all
    of whose modules are composed and for which no hub is asked. `device` is auto, cpu or cuda: where what
    must be fitted is fitted; the classifier is on the CPU.

    Raises `RefError`, `ResolutionError`, `CompositionError` (`BudgetError` for a budget that cannot be met),
    `DeviceError`, `DataError` for images that cannot be used, `HubError` (`NotFoundError` for what is not
    there), `StorageError` for a folder that cannot be read, `ManifestError` and `IntegrityError` for files
    that are not what they should be.
    """
    place = pick_device(device)
    tuning, judges = _images(tune, calibrate)
    parts = locked_parts(modules, hub=hub, offline=offline, reporter=reporter)
    return compile_parts(
        parts,
        budget=budget,
        reject=reject,
        seed=seed,
        device=place,
        reporter=reporter,
        tune=tuning,
        calibrate=judges,
    )


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
    if isinstance(modules, Path) and _is_artifact(modules):
        return [part for each in read_sets(modules) for part in parts_of(each)]
    catalog = open_catalog(hub, offline=offline)
    if isinstance(modules, Path):
        lock = read_lock(modules)
        project = read_project(modules)
        if lock is None or not lock.fulfils(project):
            lock = resolve_project(project, catalog, keep=lock, reporter=reporter)
    else:
        lock = resolve_project(Project.of(modules), catalog, reporter=reporter)
    return parts_of_lock(lock, catalog, reporter)


def _is_artifact(directory: Path) -> bool:
    return (directory / MANIFEST_NAME).is_file() and not (directory / PROJECT_NAME).exists()


@torch_defaults()
def compose_project(
    project: Path,
    target: Path,
    *,
    locked: bool = False,
    budgets: Mapping[str, float] | None = None,
    max_loss: float | None = None,
    multiple: int = 1,
    tune: str | None = None,
    calibrate: str | None = None,
    reject: bool = False,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Build the composition of a `modhub.toml` (or the folder it is in) into `target`; the report, for JSON.

    With `locked` the lock must be there and fit, and nothing is resolved: what the cache lacks is fetched by
    commit and digest, and no hub is asked for the rest. Otherwise the lock is brought up to date.
    """
    place = pick_device(device)
    lock: Lock | None
    if locked:
        lock = current_lock(project)
    else:
        lock = read_lock(project)
        if lock is None or not lock.fulfils(read_project(project)):
            lock = lock_project(project, hub=hub, offline=offline, reporter=reporter).lock
    options = BuildOptions(**(budgets or {}), max_loss=max_loss, multiple=multiple, reject=reject, seed=seed)
    return _build(
        lock,
        project_text(project),
        target,
        options,
        open_catalog(hub, offline=offline),
        tune=tune,
        calibrate=calibrate,
        device=place,
        force=force,
        reporter=reporter,
    )


@torch_defaults()
def replace(
    build: Path | str,
    items: Iterable[str] | str,
    target: Path | str,
    *,
    tune: str | None = None,
    calibrate: str | None = None,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Build `build` again with `label=REF` for some of its labels; everything else stays as it was locked.

    Raises `CompositionError` for a label it does not have, `ManifestError` for a build that does not say what
    it was made of, `StorageError` when the target cannot be written, and what `compose` raises.
    """
    build, target, place = Path(build), Path(target), pick_device(device)
    for name in (PROJECT_NAME, LOCK_NAME, OPTIONS_NAME):
        if not (build / name).is_file():
            raise ManifestError(
                f"'{build}' holds no {name}, so it does not say what it was made of.",
                hint="Name a directory written by 'modhub compose'; what Python's save() writes has none.",
            )
    text = (build / PROJECT_NAME).read_text(encoding="utf-8")
    for item in [items] if isinstance(items, str) else items:
        want = parse_item(item)
        if not isinstance(want, Want):
            raise CompositionError(f"'{item}' names no class.", hint="Write LABEL=namespace/name/label.")
        text = _with(text, want, build)
    catalog = open_catalog(hub, offline=offline)
    old = Lock.from_bytes((build / LOCK_NAME).read_bytes(), str(build / LOCK_NAME), hint=_AGAIN)
    options = BuildOptions.read(build / OPTIONS_NAME)
    lock = resolve_project(Project.from_toml(text), catalog, keep=old, reporter=reporter)
    return _build(
        lock,
        text,
        target,
        options,
        catalog,
        tune=tune,
        calibrate=calibrate,
        device=place,
        force=force,
        reporter=reporter,
    )


def _with(text: str, want: Want, build: Path) -> str:
    """`modhub.toml` with another ref for a label, in the label's place."""
    project = Project.from_toml(text)
    labels = [other.label for other in project.wants]
    if want.label not in labels:
        raise CompositionError(
            f"'{build}' has no class '{want.label}'.", hint=f"It has: {', '.join(labels[:20])}."
        )
    for other in project.wants:
        text = remove_want(text, other.label)
    for other in project.wants:
        text = add_want(text, want if other.label == want.label else other)
    return text


def _build(
    lock: Lock,
    text: str,
    target: Path,
    options: BuildOptions,
    catalog: Catalog,
    *,
    tune: str | None,
    calibrate: str | None,
    device: torch.device,
    force: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    tuning, judges = _images(tune, calibrate)
    with new_directory(target, force=force) as scratch:
        parts = parts_of_lock(lock, catalog, reporter)
        classifier = compile_parts(
            parts,
            budget=options.budget,
            reject=options.reject,
            seed=options.seed,
            device=device,
            reporter=reporter,
            tune=tuning,
            calibrate=judges,
        )
        classifier.save(scratch)
        for number, module in enumerate(lock.modules):
            place = scratch / "modules" / f"{number}.json"
            place.parent.mkdir(exist_ok=True)
            # Its very bytes, from the cache: they have the digest that stands in the lock.
            about = catalog.fetch(module.repository, module.commit, module.files[0])
            place.write_bytes(about.read_bytes())
        (scratch / PROJECT_NAME).write_text(text, encoding="utf-8")
        (scratch / LOCK_NAME).write_bytes(lock.to_bytes())
        (scratch / OPTIONS_NAME).write_bytes(pretty_json(options.to_dict()))
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return {**classifier.report(), "bytes": size, "path": str(target)}


def _images(
    tune: ImageSet | str | None, calibrate: ImageSet | str | None
) -> tuple[ImageSet | None, ImageSet | None]:
    """Both opened, before anything is fetched or fitted: a path may be mistyped."""
    return (
        None if tune is None else open_unlabelled(tune, "train"),
        None if calibrate is None else open_data(calibrate, "train"),
    )


def parts_of_lock(lock: Lock, catalog: Catalog, reporter: Reporter = SILENT) -> list[Part]:
    """The locked modules with their trunks, in the order of the lock: fetched, verified, read.

    Nothing but the lock says what to fetch; what the cache has is not asked for again.
    """
    files: dict[str, Path] = {}
    with reporter.step("fetch modules", len(lock.modules) + len(lock.trunks)):
        for trunk in lock.trunks:
            for file in trunk.files:
                if file.sha256 not in files:
                    files[file.sha256] = catalog.fetch(trunk.repository, trunk.commit, file)
            reporter.advance()
        for module in lock.modules:
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
    for module in lock.modules:
        groups.setdefault((str(module.repository), module.trunk), []).append(module)
    parts: dict[str, Part] = {}
    for group in groups.values():
        for module, part in zip(group, _read_group(group, locate), strict=True):
            parts[module.want.label] = part
    return [parts[module.want.label] for module in lock.modules]


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
        said = (manifest.label, manifest.trunk.sha256, manifest.tensors)
        if said != (module.module, module.trunk, tensors):
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


def build_manifests(build: Path) -> list[ModuleManifest]:
    """The manifests of the modules a build was made of, in the order of its labels; empty when unknown."""
    paths = sorted((build / "modules").glob("*.json"), key=lambda path: int(path.stem))
    return [ModuleManifest.from_bytes(path.read_bytes(), str(path), hint=_AGAIN) for path in paths]
