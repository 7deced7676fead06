"""Remove what nothing on a hub refers to."""

from __future__ import annotations

from pathlib import Path

from modhub.api.stores import open_store
from modhub.reporter import SILENT, Reporter
from modhub.store.gc import Collected
from modhub.store.gc import gc as collect


def gc(
    root: Path | None = None, *, grace_hours: float = 24.0, dry_run: bool = False, reporter: Reporter = SILENT
) -> Collected:
    """Remove what no branch or tag leads to and is older than `grace_hours`; see `modhub.store.gc.gc`."""
    return collect(open_store(root), grace=grace_hours * 3600, dry_run=dry_run, reporter=reporter)
