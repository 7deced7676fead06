"""The project folder: `modhub.toml`, which people write, and `modhub.lock`, which modhub writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modhub.errors import CompositionError, StorageError
from modhub.project.lock import LOCK_NAME, Lock
from modhub.project.toml import PROJECT_NAME, Project, Want
from modhub.refs import Ref
from modhub.store.disk import disk_errors, lock_file
from modhub.text import read_text

_NAMED = re.compile(r"\s*([^<>=!~/@]+?)\s*=(?!=)\s*(.*)\Z", re.DOTALL)


def read_project(directory: Path) -> Project:
    """The project of `directory`, or of a `modhub.toml` by its path."""
    return Project.from_toml(project_text(directory), str(project_path(directory)))


def read_lock(directory: Path) -> Lock | None:
    """The lock beside `modhub.toml`, None when there is none."""
    path = project_path(directory).with_name(LOCK_NAME)
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
    return "the constraints, the hubs or the order of the modules changed"


def project_path(directory: Path) -> Path:
    return directory if directory.suffix == ".toml" else directory / PROJECT_NAME


@contextmanager
def editing(directory: Path) -> Iterator[str]:
    """The text of `modhub.toml`, which nobody else adds to or removes from while the block lasts.

    Raises `StorageError`.
    """
    path = project_path(directory)
    while True:
        project_text(directory)
        with disk_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with disk_errors(path):
                lock_file(handle)
                # A write puts another file in its place: who waited for the lock may hold it on the old one.
                current = os.path.samestat(os.fstat(handle), path.stat())
            if current:
                yield project_text(directory)
                return
        finally:
            os.close(handle)


def project_text(directory: Path) -> str:
    """`modhub.toml` of `directory`, or by its path, as it stands. Raises `StorageError`."""
    path = project_path(directory)
    try:
        return read_text(path)
    except FileNotFoundError:
        raise StorageError(
            f"There is no {path.name} in '{path.parent}'.", hint="Begin one with: modhub init"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"'{path}' cannot be read: {error}.", hint="Check that it is UTF-8 text that you may read."
        ) from None


def parse_item(item: str) -> Want | Ref:
    """`label=REF`, `label=*` or a ref as typed after `modhub add`; a `Ref` when it names no class."""
    if match := _NAMED.match(item):
        return Want.parse(Ref.parse(match[1]).label or match[1], match[2])
    ref = Ref.parse(item)
    return ref if ref.label is None else Want.of(ref)
