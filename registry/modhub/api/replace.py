"""Make a build again with other modules for some of its classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import overload

from modhub.api.builds import AGAIN, OPTIONS_NAME, BuildOptions, BuildReport, Origin, open_tuning, write_build
from modhub.api.catalogs import open_catalog
from modhub.api.lock import moves, resolve_project
from modhub.api.locked_modules import parts_of_lock
from modhub.api.project_files import parse_item
from modhub.catalog.catalog import Catalog
from modhub.composition import ComposedClassifier
from modhub.composition import compose as compile_parts
from modhub.data import ImageSet
from modhub.devices import pick_device, torch_defaults
from modhub.errors import CompositionError, ManifestError
from modhub.labels import LabelIndex, one_match
from modhub.project.lock import LOCK_NAME, Lock
from modhub.project.toml import PROJECT_NAME, Project, Want, add_want, remove_want
from modhub.reporter import SILENT, Reporter
from modhub.text import read_text


@overload
def replace(
    build: Path | str,
    items: Iterable[str] | str,
    target: None = None,
    *,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> ComposedClassifier: ...


@overload
def replace(
    build: Path | str,
    items: Iterable[str] | str,
    target: Path | str,
    *,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> BuildReport: ...


@torch_defaults()
def replace(
    build: Path | str,
    items: Iterable[str] | str,
    target: Path | str | None = None,
    *,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> ComposedClassifier | BuildReport:
    """The classifier of `build` with `label=REF` for some of its labels; the others stay as locked.

    With a `target` it is `replace_to`. Raises `CompositionError` for a label the build does not have,
    `ManifestError` for a build without project, lock or options, and what `compose` raises.
    """
    if target is not None:
        return replace_to(
            target,
            build,
            items,
            tune=tune,
            calibrate=calibrate,
            device=device,
            force=force,
            hub=hub,
            offline=offline,
            reporter=reporter,
        )
    place, catalog = pick_device(device), open_catalog(hub, offline=offline)
    tuning, labelled = open_tuning(tune, calibrate)
    origin, options = _replaced(Path(build), items, catalog, reporter)
    for change in origin.changes:
        reporter.note(f"{change}")
    return compile_parts(
        parts_of_lock(origin.lock, catalog, reporter),
        budget=options.budget,
        reject=options.reject,
        seed=options.seed,
        device=place,
        reporter=reporter,
        tune=tuning,
        calibrate=labelled,
    )


@torch_defaults()
def replace_to(
    path: Path | str,
    build: Path | str,
    items: Iterable[str] | str,
    *,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> BuildReport:
    """`replace`, written as a new build directory that appears whole or not at all.

    Raises `StorageError` when something is in `path` and there is no `force`, and what `replace` raises.
    """
    place, catalog = pick_device(device), open_catalog(hub, offline=offline)
    origin, options = _replaced(Path(build), items, catalog, reporter)
    return write_build(
        Path(path),
        origin,
        lambda: parts_of_lock(origin.lock, catalog, reporter),
        options,
        catalog=catalog,
        tune=tune,
        calibrate=calibrate,
        device=place,
        force=force,
        reporter=reporter,
    )


def _replaced(
    build: Path, items: Iterable[str] | str, catalog: Catalog, reporter: Reporter
) -> tuple[Origin, BuildOptions]:
    """What the new build is made of, and with which options."""
    for name in (PROJECT_NAME, LOCK_NAME, OPTIONS_NAME):
        if not (build / name).is_file():
            raise ManifestError(
                f"'{build}' holds no {name}, so it does not say what it was made of.",
                hint="Name a directory written by 'modhub compose'; what Python's save() writes has none.",
            )
    text = read_text(build / PROJECT_NAME)
    replaced = set()
    for item in [items] if isinstance(items, str) else items:
        want = parse_item(item)
        if not isinstance(want, Want):
            raise CompositionError(f"'{item}' names no class.", hint="Write LABEL=namespace/name/label.")
        text, label = _with(text, want, build)
        replaced.add(label)
    old = Lock.from_bytes((build / LOCK_NAME).read_bytes(), str(build / LOCK_NAME), hint=AGAIN)
    options = BuildOptions.read(build / OPTIONS_NAME)
    keep = old.without(replaced)
    lock = resolve_project(Project.from_toml(text), catalog, keep=keep, reporter=reporter)
    return Origin(text, lock, moves(old, lock)), options


def _with(text: str, want: Want, build: Path) -> tuple[str, str]:
    """`modhub.toml` with another ref for a label, in the label's place, and the label as it stands there."""
    project = Project.from_toml(text)
    labels = [other.label for other in project.wants]
    match = one_match(want.label, labels, LabelIndex(labels).find(want.label), f"'{build}'")
    if match is None:
        raise CompositionError(
            f"'{build}' has no class '{want.label}'.", hint=f"It has: {', '.join(labels[:20])}."
        )
    replaced = labels[match]
    for other in project.wants:
        text = remove_want(text, other.label)
    for other in project.wants:
        text = add_want(text, Want(replaced, want.ref) if other.label == replaced else other)
    return text, replaced
