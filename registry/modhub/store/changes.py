"""The changes that a commit to a store may consist of, beyond those of every hub."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.store.blobs import Blob
from modhub.store.model import Add, Copy, Delete

__all__ = ["Add", "Copy", "Delete", "Link", "Put", "StoreChange"]


@dataclass(frozen=True, slots=True)
class Link:
    """Put bytes at `path` that this repository was sent before (`Uploads.writer`) or has already.

    `lfs` says whether git would hold a pointer; None: whether the bytes are binary or many. Raises
    `IntegrityError` when the store has no such blob for this repository, or `size` is another.
    """

    path: str
    sha256: str
    size: int | None = None
    lfs: bool | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Put bytes at `path` that the caller has just received through `Uploads.writer`."""

    path: str
    blob: Blob


StoreChange = Add | Put | Link | Copy | Delete
