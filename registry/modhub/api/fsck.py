"""Check a hub's store."""

from __future__ import annotations

from pathlib import Path

from modhub.api.stores import open_store
from modhub.reporter import SILENT, Reporter
from modhub.store.fsck import Report
from modhub.store.fsck import fsck as check


def fsck(
    root: Path | None = None, *, deep: bool = True, repair: bool = False, reporter: Reporter = SILENT
) -> Report:
    """Check every blob, manifest and reference; `deep` reads every byte. See `modhub.store.fsck.fsck`."""
    return check(open_store(root), deep=deep, repair=repair, reporter=reporter)
