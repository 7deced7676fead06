"""How large the cache of downloaded files is, and making it smaller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modhub.hub.cache import Cache, CacheUsage
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CacheReport(Result):
    """The files that are kept, and those `removed`; None: nothing was to be removed.

    With `dry_run` the latter were only counted.
    """

    path: Path
    files: int
    bytes: int
    removed: CacheUsage | None
    dry_run: bool


def cache(root: Path | None = None, *, prune_days: float | None = None, dry_run: bool = False) -> CacheReport:
    """How large the cache is (`root`: `MODHUB_CACHE`, else the user's own).

    First what was not used for `prune_days` is removed; None removes nothing. Raises `StorageError`.
    """
    files = Cache(root)
    removed = None if prune_days is None else files.prune(prune_days * 86_400, dry_run=dry_run)
    usage = files.usage()
    return CacheReport(
        path=files.root, files=usage.files, bytes=usage.bytes, removed=removed, dry_run=dry_run
    )
