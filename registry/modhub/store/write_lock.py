"""One writer at a time in a repository, and an index that follows what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from modhub.errors import StorageError
from modhub.store.blobs import Blobs
from modhub.store.index import Index
from modhub.store.records import RepositoryKey
from modhub.store.references import References


@dataclass(frozen=True, slots=True)
class WriteLock:
    """`with lock(key):` keeps other writers out of `key` and updates the index afterwards.

    What is written or touched inside is spared by a `gc`.
    """

    _blobs: Blobs
    _references: References
    _index: Index

    @contextmanager
    def __call__(self, *keys: RepositoryKey) -> Iterator[None]:
        with self._blobs.writing(), self._references.locked(*keys):
            for key in keys:
                self._index.mark(key)
            try:
                yield
            finally:
                # The change is made even where the index cannot follow; its mark remains and it catches up.
                with suppress(StorageError):
                    self._index.update(*keys)
