"""Remove modules from a project's `modhub.toml`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modhub.api.project_files import editing, project_path
from modhub.files import rewrite
from modhub.project.toml import remove_want


def remove(directory: Path, labels: Iterable[str]) -> None:
    """Remove modules by label; all or, when one is not there, none.

    Raises `CompositionError` and `StorageError`.
    """
    with editing(directory) as text:
        for label in labels:
            text = remove_want(text, label)
        rewrite(project_path(directory), text)
