"""The audit log: lines of JSON, append-only, in `audit/<year>-<month>.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modhub.store.disk import disk_errors, make_directory
from modhub.store.records import now
from modhub.text import canonical_json


class AuditLog:
    """Entries with `date`, `actor`, `action`, `subject` and details of the action.

    A change to a reference is entered before it becomes visible, so that none lacks an entry. An entry whose
    commit does not exist was made by a writer that died in between.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, action: str, subject: str, actor: str, **details: Any) -> None:
        """Add an entry and wait until the disk has it. Raises `StorageError`."""
        date = now()
        entry = {"date": date, "actor": actor, "action": action, "subject": subject, **details}
        make_directory(self._folder)
        path = self._folder / f"{date[:7]}.jsonl"
        with disk_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                size = os.fstat(handle).st_size
                # A line that a crash cut short must not swallow the new entry.
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                os.write(handle, b"\n" * torn + canonical_json(entry) + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries, oldest first; lines cut short by a crash are left out."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as lines:
                for line in lines:
                    try:
                        yield json.loads(line)
                    except ValueError:
                        continue
