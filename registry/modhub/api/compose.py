"""From refs to a runnable classifier: resolve, fetch, compile; in memory or as a build directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from modhub.api.builds import BuildOptions, BuildReport, Origin, open_tuning, write_build
from modhub.api.catalogs import open_catalog
from modhub.api.lock import lock, lock_to
from modhub.api.locked_modules import is_artifact, locked_parts, parts_of_lock
from modhub.api.project_files import current_lock, project_text, read_lock, read_project
from modhub.catalog.catalog import Catalog
from modhub.composition import Budget, ComposedClassifier
from modhub.composition import compose as compile_parts
from modhub.data import ImageSet
from modhub.devices import pick_device, torch_defaults
from modhub.project.toml import Project, add_want, new_project
from modhub.reporter import SILENT, Reporter


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
    tuning, labelled = open_tuning(tune, calibrate)
    parts = locked_parts(modules, hub=hub, offline=offline, reporter=reporter)
    return compile_parts(
        parts,
        budget=budget,
        reject=reject,
        seed=seed,
        device=place,
        reporter=reporter,
        tune=tuning,
        calibrate=labelled,
    )


@torch_defaults()
def compose_to(
    path: Path | str,
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    locked: bool = False,
    budget: Budget | None = None,
    tune: ImageSet | str | None = None,
    calibrate: ImageSet | str | None = None,
    reject: bool = False,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> BuildReport:
    """`compose`, written as a build directory that appears whole or not at all.

    Beside the classifier a build holds its project, lock, options and manifests, from which `replace` makes
    it again; that of a folder of modules, which need not be on a hub, holds the classifier only. The lock of
    a project's folder is brought up to date. With `locked` it must be there and fit, and nothing is resolved:
    what the cache lacks is fetched by commit and digest.

    Raises `StorageError` when something is in `path` and there is no `force`, `CompositionError` for a lock
    that is missing or does not fit, and what `compose` raises.
    """
    device_ = pick_device(device)
    catalog = open_catalog(hub, offline=offline)
    options = BuildOptions.of(budget, reject=reject, seed=seed)
    origin: Origin | None = None
    if not isinstance(modules, Path):
        project = Project.of(modules)
        text = new_project("composition")
        for want in project.wants:
            text = add_want(text, want)
        origin = Origin(text, lock(modules, hub=catalog, reporter=reporter))
    elif not is_artifact(modules):
        origin = _project_origin(modules, catalog, reporter, locked=locked)
    return write_build(
        Path(path),
        origin,
        lambda: locked_parts(modules) if origin is None else parts_of_lock(origin.lock, catalog, reporter),
        options,
        catalog=catalog,
        tune=tune,
        calibrate=calibrate,
        device=device_,
        force=force,
        reporter=reporter,
    )


def _project_origin(project: Path, catalog: Catalog, reporter: Reporter, *, locked: bool) -> Origin:
    text = project_text(project)
    if locked:
        return Origin(text, current_lock(project))
    known = read_lock(project)
    if known is not None and known.fulfils(read_project(project)):
        return Origin(text, known)
    report = lock_to(project, hub=catalog, reporter=reporter)
    return Origin(text, report.lock, report.changes if known is not None else ())
