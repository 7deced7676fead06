"""The store of a directory hub or a server that a verb was told to look after."""

from __future__ import annotations

from pathlib import Path

from modhub.errors import StorageError
from modhub.hub import default_hub
from modhub.store.store import Store


def open_store(root: Path | None) -> Store:
    """The store in the directory `root` (None: the default hub's). Raises `StorageError`."""
    place = str(root) if root is not None else default_hub()
    if "://" in place or place == "hf" or not Path(place).is_dir():
        raise StorageError(f"'{place}' is not a hub directory.", hint="Name one with --root.")
    return Store(place)
