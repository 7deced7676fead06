"""Looking after a directory hub, a server's store, or the cache. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from modhub.errors import StorageError
from modhub.hub import default_hub
from modhub.hub.cache import Cache
from modhub.reporter import SILENT, Reporter
from modhub.store.fsck import fsck
from modhub.store.gc import gc
from modhub.store.store import Store

__all__ = ["check", "collect", "look_at_cache"]


def collect(
    root: Path | None = None, *, grace_hours: float = 24.0, dry_run: bool = False, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Remove what nothing names and is older than `grace_hours`; see `modhub.store.gc.gc`."""
    return asdict(gc(_store(root), grace=grace_hours * 3600, dry_run=dry_run, reporter=reporter))


def check(
    root: Path | None = None, *, deep: bool = True, repair: bool = False, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Check a store; `findings` each with `place`, `problem` and `repaired`. `deep` reads every byte."""
    report = fsck(_store(root), deep=deep, repair=repair, reporter=reporter)
    return {**asdict(report), "clean": report.clean}


def look_at_cache(
    root: Path | None = None, *, prune_days: float | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """How large the cache is (`root`: `MODHUB_CACHE`, else the user's own), once what nobody used for
    `prune_days` is `removed`; None removes nothing. With `dry_run` it is only counted."""
    cache = Cache(root)
    removed = None if prune_days is None else asdict(cache.prune(prune_days * 86_400, dry_run=dry_run))
    return {"path": str(cache.root), **asdict(cache.usage()), "removed": removed, "dry_run": dry_run}


def _store(root: Path | None) -> Store:
    place = str(root) if root is not None else default_hub()
    if "://" in place or place == "hf" or not Path(place).is_dir():
        raise StorageError(f"'{place}' is no hub's folder.", hint="Name one with --root.")
    return Store(place)
