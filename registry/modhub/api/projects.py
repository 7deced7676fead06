"""The project folder: `modhub.toml`, which people write, and `modhub.lock`, which modhub writes."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modhub.catalog.catalog import Catalog
from modhub.catalog.releases import yanked_warning
from modhub.errors import CompositionError, ManifestError, StorageError
from modhub.files import write_bytes, write_text
from modhub.hub import open_hub
from modhub.project.lock import LOCK_NAME, Lock, LockedModule, lock_of
from modhub.project.resolver import resolve
from modhub.project.toml import PROJECT_NAME, Project, Want, add_want, new_project, remove_want
from modhub.refs import Ref, is_text
from modhub.reporter import SILENT, Reporter
from modhub.store.disk import disk_errors

__all__ = [
    "LockReport",
    "add_modules",
    "create_project",
    "current_lock",
    "lock_project",
    "open_catalog",
    "parse_item",
    "project_text",
    "read_lock",
    "read_project",
    "remove_modules",
    "resolve_project",
]

_NAMED = re.compile(r"\s*([^<>=!~/@]+?)\s*=(?!=)\s*(.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LockReport:
    """A lock and what it changed: `(label, before, after)`, each `repository version` or empty."""

    lock: Lock
    path: Path
    changes: tuple[tuple[str, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "changes": [
                {"label": label, "before": before or None, "after": after or None}
                for label, before, after in self.changes
            ],
            **self.lock.to_dict(),
        }


def create_project(directory: Path, name: str | None = None) -> Path:
    """Write a fresh `modhub.toml` into `directory`. Raises `StorageError` when there is one.

    `name` is by default the directory's. Raises `CompositionError` for one that is no line of text.
    """
    path = directory / PROJECT_NAME
    if path.exists():
        raise StorageError(f"'{path}' exists already.", hint="Add modules to it with: modhub add LABEL=REF")
    name = name or directory.resolve().name
    if not is_text(name):
        raise CompositionError(f"{name!a} is no name that a file can hold.", hint="Give another with --name.")
    write_text(path, new_project(name))
    return path


def parse_item(item: str) -> Want | Ref:
    """`label=REF`, `label=*` or a ref as typed after `modhub add`; a `Ref` when it names no class."""
    if match := _NAMED.match(item):
        return Want.parse(match[1], match[2])
    ref = Ref.parse(item)
    return ref if ref.label is None else Want.of(ref)


def add_modules(
    directory: Path, items: Iterable[str], *, hub: str | Catalog | None = None, offline: bool = False
) -> list[Want]:
    """Add `label=REF`, a ref, or every module of a repository; the wants added, in order.

    One that stands there just so already is left as it is, and is not among them. The hub is asked only for
    a repository without a class. Raises `RefError`, `CompositionError` and `StorageError`; then nothing is
    written.
    """
    wants: list[Want] = []
    for item in items:
        want = parse_item(item)
        if isinstance(want, Want):
            wants.append(want)
        else:
            wants.extend(_wants_of(want, open_catalog(hub, offline=offline)))
    added: list[Want] = []
    with _held(directory) as text:
        there = Project.from_toml(text, str(_project_path(directory))).wants
        for want in wants:
            if want not in (*there, *added):
                text = add_want(text, want)
                added.append(want)
        if added:
            write_text(_project_path(directory), text)
    return added


def remove_modules(directory: Path, labels: Iterable[str]) -> None:
    """Remove modules by label; all or, when one is not there, none.

    Raises `CompositionError` and `StorageError`.
    """
    with _held(directory) as text:
        for label in labels:
            text = remove_want(text, label)
        write_text(_project_path(directory), text)


def read_project(directory: Path) -> Project:
    """The project of `directory`, or of a `modhub.toml` by its path."""
    return Project.from_toml(project_text(directory), str(_project_path(directory)))


def read_lock(directory: Path) -> Lock | None:
    """The lock beside `modhub.toml`, None when there is none."""
    path = _project_path(directory).with_name(LOCK_NAME)
    return Lock.from_bytes(path.read_bytes(), str(path)) if path.exists() else None


def current_lock(directory: Path) -> Lock:
    """The lock of `modhub.toml` as it stands. Raises `CompositionError` when there is none such."""
    project, lock = read_project(directory), read_lock(directory)
    if lock is None:
        raise CompositionError(f"There is no {LOCK_NAME} here.", hint="Write it with: modhub lock")
    if not lock.fulfils(project):
        raise CompositionError(
            f"{LOCK_NAME} does not belong to {PROJECT_NAME} as it stands: {_difference(project, lock)}.",
            hint="Bring it up to date with: modhub lock",
        )
    return lock


def resolve_project(
    project: Project, catalog: Catalog, *, keep: Lock | None = None, reporter: Reporter = SILENT
) -> Lock:
    """Pick releases for `project`, keeping what `keep` had where it may be kept.

    `reporter.warn` says which of them are yanked.
    """
    if not project.wants:
        raise CompositionError(
            f"The composition '{project.name}' has no modules.", hint="Add one with: modhub add LABEL=REF"
        )
    resolution = resolve(
        project, catalog, prefer=None if keep is None else keep.preferences, nearest=catalog.nearest
    )
    for text in dict.fromkeys(
        yanked_warning(module.repository, module.release)
        for module in resolution.modules
        if module.release.yanked is not None
    ):
        reporter.warn(text)
    return lock_of(
        project, resolution, lambda repository, revision: catalog.release_at(repository, revision).commit
    )


def lock_project(
    directory: Path,
    *,
    hub: str | Catalog | None = None,
    offline: bool = False,
    upgrade: bool = False,
    reporter: Reporter = SILENT,
) -> LockReport:
    """Resolve `modhub.toml` and write `modhub.lock`; with `upgrade` nothing of the old lock is kept."""
    project, old = read_project(directory), None
    path = _project_path(directory).with_name(LOCK_NAME)
    try:
        old = read_lock(directory)
    except ManifestError as error:
        # A damaged lock is written anew; it only said what to keep.
        reporter.warn(f"{error.message} It is written anew.")
    with reporter.step("resolve"):
        catalog = open_catalog(hub, offline=offline)
        lock = resolve_project(project, catalog, keep=None if upgrade else old, reporter=reporter)
    write_bytes(path, lock.to_bytes())
    return LockReport(lock, path, tuple(_changes(old, lock)))


def open_catalog(hub: str | Catalog | None = None, *, offline: bool = False) -> Catalog:
    """The hub `hub` names (None: MODHUB_HUB, else the user's own directory), seen through the local cache.

    A catalog stays what it is.
    """
    if isinstance(hub, Catalog):
        return hub
    return Catalog(open_hub(hub), offline=offline)


def _wants_of(ref: Ref, catalog: Catalog) -> list[Want]:
    """One want for every module of a repository."""
    if ref.repository is None:
        return []
    manifest = catalog.manifest(ref.repository, catalog.select(ref).commit)
    return [
        Want(entry.label, Ref(ref.repository, entry.label, ref.specifier, ref.revision))
        for entry in manifest.modules
    ]


def _changes(old: Lock | None, new: Lock) -> list[tuple[str, str, str]]:
    before = {module.want.label: _release(module) for module in old.modules} if old else {}
    after = {module.want.label: _release(module) for module in new.modules}
    labels = [*after, *(label for label in before if label not in after)]
    return [
        (label, before.get(label, ""), after.get(label, ""))
        for label in labels
        if before.get(label) != after.get(label)
    ]


def _release(module: LockedModule) -> str:
    version = module.commit[:12] if module.version is None else str(module.version)
    return f"{module.repository} {version}"


def _difference(project: Project, lock: Lock) -> str:
    """The first thing in which they differ."""
    wanted = {want.label: str(want) for want in project.wants}
    locked = {module.want.label: str(module.want) for module in lock.modules}
    for label, text in wanted.items():
        if label not in locked:
            return f"it lacks '{label}'"
        if locked[label] != text:
            return f"it has '{locked[label]}' where '{text}' is wanted"
    for label in locked:
        if label not in wanted:
            return f"it has '{label}', which is no longer wanted"
    return "the constraints or the order of the modules changed"


def _project_path(directory: Path) -> Path:
    return directory if directory.suffix == ".toml" else directory / PROJECT_NAME


@contextmanager
def _held(directory: Path) -> Iterator[str]:
    """The text of `modhub.toml`, which nobody else adds to or removes from while the block lasts.

    Raises `StorageError`.
    """
    path = _project_path(directory)
    while True:
        project_text(directory)
        with disk_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with disk_errors(path):
                fcntl.flock(handle, fcntl.LOCK_EX)
                # A write puts another file in its place: who waited for the lock may hold it on the old one.
                current = os.path.samestat(os.fstat(handle), path.stat())
            if current:
                yield project_text(directory)
                return
        finally:
            os.close(handle)


def project_text(directory: Path) -> str:
    """`modhub.toml` of `directory`, or by its path, as it stands. Raises `StorageError`."""
    path = _project_path(directory)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StorageError(
            f"There is no {path.name} in '{path.parent}'.", hint="Begin one with: modhub init"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"'{path}' cannot be read: {error}.", hint="Check that it is UTF-8 text that you may read."
        ) from None
