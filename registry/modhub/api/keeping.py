"""Looking after a directory hub or a server's store. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from modhub.errors import StorageError
from modhub.hub import default_hub
from modhub.hub.checking import fsck
from modhub.hub.collecting import gc
from modhub.hub.store import Store
from modhub.reporter import SILENT, Reporter

__all__ = ["check", "collect"]


def collect(
    root: Path | None = None, *, grace_hours: float = 24.0, dry_run: bool = False, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Remove what nothing names and is older than `grace_hours`; see `modhub.hub.collecting.gc`."""
    return asdict(gc(_store(root), grace=grace_hours * 3600, dry_run=dry_run, reporter=reporter))


def check(
    root: Path | None = None, *, deep: bool = True, repair: bool = False, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Check a store; `findings` each with `place`, `problem` and `repaired`. `deep` reads every byte."""
    report = fsck(_store(root), deep=deep, repair=repair, reporter=reporter)
    return {**asdict(report), "clean": report.clean}


def _store(root: Path | None) -> Store:
    place = str(root) if root is not None else default_hub()
    if "://" in place or place == "hf" or not Path(place).is_dir():
        raise StorageError(f"'{place}' is no hub's folder.", hint="Name one with --root.")
    return Store(place)
