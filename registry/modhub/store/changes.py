"""What a commit to a store may consist of, beyond what every hub understands."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.store.blobs import Blob
from modhub.store.model import Add, Copy, Delete

__all__ = ["Add", "Copy", "Delete", "Link", "Put", "StoreChange"]


@dataclass(frozen=True, slots=True)
class Link:
    """Put bytes at `path` that were sent to this repository before (`Uploads.writer`) or stand in it already.

    `lfs` says whether git would hold a pointer; None: whether the bytes are binary or many. Raises
    `IntegrityError` when the store has no such blob for this repository, or `size` is another.
    """

    path: str
    sha256: str
    size: int | None = None
    lfs: bool | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Put at `path` bytes that the caller has just taken in through `Uploads.writer`."""

    path: str
    blob: Blob


StoreChange = Add | Put | Link | Copy | Delete
