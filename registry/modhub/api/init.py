"""Begin a project: write its `modhub.toml`."""

from __future__ import annotations

from pathlib import Path

from modhub.errors import CompositionError, StorageError
from modhub.files import write_text
from modhub.project.toml import PROJECT_NAME, new_project
from modhub.refs import is_text


def init(directory: Path, name: str | None = None) -> Path:
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
