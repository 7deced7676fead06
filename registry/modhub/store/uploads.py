"""Bytes sent ahead of the commit that will use them.

A digest proves no ownership: only the repository that was sent a blob, or has it already, may link it. What
anyone may download is no secret: a blob of such a repository, a trunk most often, need not be sent again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from modhub.errors import IntegrityError, NotFoundError
from modhub.refs import is_sha256
from modhub.store.blobs import Blob, Blobs, BlobWriter
from modhub.store.reader import Reader
from modhub.store.records import RepositoryKey
from modhub.store.references import References
from modhub.store.tree import TreeFile

LFS_FROM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Uploads:
    """Blobs that repositories may name in a `Link`."""

    _blobs: Blobs
    _references: References
    _reader: Reader

    def writer(self, *, size: int | None = None) -> BlobWriter:
        """Receive bytes for a later `Link`; `size` is what the sender announced.

            with store.uploads.writer(size=n) as writer:
                writer.write(chunk)
                blob = writer.finish(sha256=announced)
            store.uploads.add(key, blob)

        Bytes that are neither added nor committed are removed by a `gc`.
        """
        return self._blobs.writer(size=size)

    def add(self, key: RepositoryKey, blob: Blob) -> None:
        """Let `Link` use a received blob in `key`, and only there.

        Raises `IntegrityError` when a `gc` removed it since its writer was left.
        """
        with self._blobs.writing():
            if not self._blobs.touch(blob.sha256):
                raise IntegrityError("The upload is not in the store any more.", hint="Send it again.")
            self._references.note_upload(key, blob)

    def find(self, key: RepositoryKey, sha256: str) -> TreeFile | None:
        """A blob that `key` may `Link`: uploaded to it, or in a file of one of its references."""
        return self.find_all(key, [sha256]).get(sha256)

    def find_all(self, key: RepositoryKey, digests: Iterable[str]) -> dict[str, TreeFile]:
        """Those of `digests` that `key` may `Link`. Every reference is read at most once."""
        files: dict[str, TreeFile] = {}
        wanted = {digest for digest in digests if is_sha256(digest)}
        for sha256 in wanted:
            blob = self._references.upload(key, sha256)
            if blob is not None and self._blobs.size(sha256) == blob.size:
                files[sha256] = tree_file(blob)
        return files | self._committed(key, wanted - set(files))

    def _committed(self, key: RepositoryKey, wanted: set[str]) -> dict[str, TreeFile]:
        """Those of `wanted` that stand in a file of one of the references."""
        files: dict[str, TreeFile] = {}
        for commit in dict.fromkeys(self._reader.refs(key).values()) if wanted else ():
            if len(files) == len(wanted):
                break
            # A reference whose commit is lost stays, and is no reason to refuse an upload.
            with suppress(IntegrityError, NotFoundError):
                for file in self._reader.tree_of(self._reader.commit(key, commit)).values():
                    if file.sha256 in wanted and file.sha256 not in files and self._reader.holds(file):
                        files[file.sha256] = file
        return files

    def share(
        self, key: RepositoryKey, digests: Iterable[str], holders: Iterable[RepositoryKey]
    ) -> dict[str, TreeFile]:
        """Let `key` link those of `digests` that stand in a file of one of `holders`, whose files anyone may
        read. They are read one after the other, until all is there."""
        shared: dict[str, TreeFile] = {}
        wanted = {digest for digest in digests if is_sha256(digest) and self._blobs.size(digest) is not None}
        for holder in holders if wanted else ():
            # What was sent and not committed is not for others.
            for sha256, file in self._committed(holder, wanted - set(shared)).items():
                # A gc may have been faster: then it is sent.
                with suppress(IntegrityError):
                    self.add(key, Blob(sha256, file.size, file.oid, text=not file.lfs))
                    shared[sha256] = file
            if len(shared) == len(wanted):
                break
        return shared


def tree_file(blob: Blob) -> TreeFile:
    """A blob as a file of a tree; git would hold a pointer to what is binary or large."""
    return TreeFile(blob.sha256, blob.size, blob.oid, lfs=not blob.text or blob.size > LFS_FROM_BYTES)
