"""Pick a release for every module of a composition: in memory, or as a project's `modhub.lock`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modhub.api.catalogs import open_catalog, trust_of
from modhub.api.project_files import project_path, read_lock, read_project
from modhub.api.trunks import check_locked_graphs
from modhub.catalog.catalog import Catalog
from modhub.catalog.releases import yanked_warning
from modhub.errors import CompositionError, ManifestError
from modhub.files import rewrite
from modhub.project.lock import LOCK_NAME, Lock, LockedModule, lock_of
from modhub.project.resolver import Preferences, Resolution, ResolvedModule, resolve
from modhub.project.toml import Project
from modhub.refs import pinned_versions, version_of_tag
from modhub.reporter import SILENT, Reporter
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LockChange(Result):
    """The release that serves `label`, as `repository version`; None where there is none.

    The commit or the module follows where the two differ in nothing else.
    """

    label: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.label}: {self.before or 'new'} → {self.after or 'removed'}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LockReport(Result):
    """The lock that was written to `path`, and what it changed."""

    path: Path
    changes: tuple[LockChange, ...]
    lock: Lock

    def to_dict(self) -> dict[str, Any]:
        """The path, the changes, and the lock file itself."""
        return {
            "path": str(self.path),
            "changes": [change.to_dict() for change in self.changes],
            **self.lock.to_dict(),
        }


def lock(
    modules: Mapping[str, str] | Iterable[str] | str | Path,
    *,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> Lock:
    """The releases for a ref, refs, `{label: ref}`, or the project in a folder (a `Path`); writes nothing.

    A project's lock is taken as it is while it fits its `modhub.toml`; else what it has is kept where it may
    be. Raises `RefError`, `ResolutionError`, `CompositionError`, `ManifestError`, `StorageError`, `HubError`.
    """
    catalog = open_catalog(hub, offline=offline)
    if not isinstance(modules, Path):
        return resolve_project(Project.of(modules), catalog, reporter=reporter)
    old = read_lock(modules)
    project = read_project(modules)
    if old is not None and old.fulfils(project):
        return old
    return resolve_project(project, catalog, keep=old, reporter=reporter)


def lock_to(
    directory: Path,
    *,
    hub: str | Catalog | None = None,
    offline: bool = False,
    upgrade: bool = False,
    reporter: Reporter = SILENT,
) -> LockReport:
    """Resolve `modhub.toml` and write `modhub.lock`.

    With `upgrade` no release of the old lock is kept, but the repositories that it has for bare labels are.
    """
    project, old = read_project(directory), None
    path = project_path(directory).with_name(LOCK_NAME)
    try:
        old = read_lock(directory)
    except ManifestError as error:
        # A damaged lock is written anew; it only said what to keep.
        reporter.warn(f"{error.message} It is written anew.")
    with reporter.step("resolve"):
        catalog = open_catalog(hub, offline=offline)
        locked = resolve_project(project, catalog, keep=old, upgrade=upgrade, reporter=reporter)
    rewrite(path, locked.to_bytes().decode())
    return LockReport(path=path, changes=moves(old, locked), lock=locked)


def resolve_project(
    project: Project,
    catalog: Catalog,
    *,
    keep: Lock | None = None,
    upgrade: bool = False,
    reporter: Reporter = SILENT,
) -> Lock:
    """Pick releases for `project`, keeping what `keep` had where it may be kept; with `upgrade` only the
    repositories for bare labels.

    `reporter.warn` says which of them are yanked.
    """
    if not project.wants:
        raise CompositionError(
            f"The composition '{project.name}' has no modules.", hint="Add one with: modhub add LABEL=REF"
        )
    catalog = catalog.bound(project.hubs)
    prefer = None
    if keep is not None:
        keep = keep.at(project.hubs)
        prefer = Preferences(providers=keep.preferences.providers) if upgrade else keep.preferences
    resolution = resolve(
        project,
        catalog,
        prefer=prefer,
        nearest=catalog.nearest,
        trust=trust_of(catalog, reporter),
        offline=catalog.files.offline,
        cached=catalog.cached,
    )
    for text in dict.fromkeys(_warnings(resolution)):
        reporter.warn(text)
    locked = lock_of(
        project,
        resolution,
        lambda repository, revision: catalog.release_at(repository, revision).commit,
        None if upgrade else keep,
    )
    check_locked_graphs(catalog, locked, resolution.modules)
    return locked


def _warnings(resolution: Resolution) -> Iterator[str]:
    """What to know of releases that are used all the same."""
    stays = f"It stays because {LOCK_NAME} has it."
    pinned = {module.repository for module in resolution.modules if _pins(module)}
    for module in resolution.modules:
        repository, release = module.repository, module.release
        if release.yanked is not None:
            yield yanked_warning(repository, release) + ("" if repository in pinned else f" {stays}")
        elif module in resolution.unlisted:
            yield f"{repository} {release} is no longer commit {release.commit[:12]} on the hub. {stays}"


def _pins(module: ResolvedModule) -> bool:
    """Whether its want allows no other release."""
    ref, release = module.want.ref, module.release
    if ref.revision is not None:
        return ref.revision == release.commit or version_of_tag(ref.revision) == release.version
    return release.version in pinned_versions(ref.specifier)


def moves(old: Lock | None, new: Lock) -> tuple[LockChange, ...]:
    """Every label that `new` takes from elsewhere than `old`, or that only one of them has."""
    before = {module.want.label: _place(module) for module in old.modules} if old else {}
    after = {module.want.label: _place(module) for module in new.modules}
    changes = []
    for label in [*after, *(label for label in before if label not in after)]:
        was, now = before.get(label, ()), after.get(label, ())
        # Repository and version, and more where those are the same but for the case.
        shown = next((n for n in (1, 2, 3) if _folded(was[:n]) != _folded(now[:n])), None)
        if shown is not None:
            texts = [" ".join(place[:shown]) or None for place in (was, now)]
            changes.append(LockChange(label=label, before=texts[0], after=texts[1]))
    return tuple(changes)


def _place(module: LockedModule) -> tuple[str, ...]:
    version = module.commit[:12] if module.version is None else str(module.version)
    return f"{module.repository} {version}", f"({module.commit[:12]})", module.module


def _folded(place: tuple[str, ...]) -> tuple[str, ...]:
    """A place whose repository is written in lower case: its case names no other."""
    return (*(text.lower() for text in place[:1]), *place[1:])
