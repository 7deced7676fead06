"""A store's repositories as pages and the resolver read them. The rules: `modhub.catalog.releases`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from modhub.catalog.catalog import nearest_classes
from modhub.catalog.releases import (
    REPORT,
    YANKED_LIMIT,
    Release,
    newest_release,
    presented_commit,
    release_at,
    releases_of,
)
from modhub.errors import ManifestError, ModhubError, NotFoundError
from modhub.manifest import MANIFEST_NAME, ModuleEntry, ModuleManifest, RepositoryManifest
from modhub.manifest.card import CARD_NAME, class_tags
from modhub.refs import RepositoryId
from modhub.server.auth.principal import Principal, authorize
from modhub.server.errors import HTTPError
from modhub.store.front_matter import parse_front_matter, split_card
from modhub.store.index import Query, trunk_tag
from modhub.store.lru import LRU
from modhub.store.model import MAIN
from modhub.store.records import HEADS, TAGS, RepositoryKey, RepositoryRecord
from modhub.store.store import Store
from modhub.store.tree import Tree
from modhub.text import parse_json

MANIFEST_LIMIT = 8 << 20
"""Ten thousand modules, which a processor reads in a second."""
HEADER_LIMIT = 1 << 20
CHANNELS_LIMIT = 1 << 18
"""Of a mask that is drawn; the largest networks have some 100,000 channels."""
# A megabyte of tables would keep the server busy for seconds.
CARD_LIMIT = 256 << 10
# Comparing a name with so many takes a fraction of a second; the commonest come first.
CLASSES_LIMIT = 20_000
PROVIDERS = 1000
READING_SECONDS = 2.0
"""Of reading releases and manifests for one page; later requests find them in memory."""
OLDER_PROVIDERS = 200
Mask = NDArray[np.bool_]
# By the bytes that they were read from; in memory they take up twice as much.
_MANIFESTS: LRU[RepositoryManifest] = LRU(64 << 20)


@dataclass(frozen=True)
class RepositoryView:
    """One repository of `store`, for one page or answer: what was read once is not read again."""

    store: Store
    record: RepositoryRecord

    @cached_property
    def refs(self) -> dict[str, str]:
        return self.store.reader.refs(self.record.key)

    @property
    def main(self) -> str | None:
        """The commit of main."""
        return self.refs.get(HEADS + MAIN)

    @cached_property
    def releases(self) -> tuple[Release, ...]:
        """Every release, the newest version first. Raises `ManifestError` and `IntegrityError`."""
        tags = {ref[len(TAGS) :]: commit for ref, commit in self.refs.items() if ref.startswith(TAGS)}

        def read(path: str) -> bytes | None:
            if self.main is None or path not in self.store.reader.tree(self.record.key, self.main):
                return None
            return self._read(self.main, path, YANKED_LIMIT)

        return releases_of(tags, read, f"'{self.record.id}'")

    @property
    def newest(self) -> Release | None:
        """The newest active release, if there is one."""
        return newest_release(self.releases)

    @property
    def presented(self) -> str | None:
        """The commit whose manifest and card a page shows where no revision is asked for."""
        return presented_commit(self.releases, self.main, lambda commit: self.tree(commit).get(MANIFEST_NAME))

    def release_at(self, revision: str) -> Release:
        """What a revision names. Raises `NotFoundError`."""
        return release_at(self.releases, revision, self.store.reader.resolve(self.record.key, revision))

    def tree(self, commit: str) -> Tree:
        """All files of a commit."""
        return self.store.reader.tree(self.record.key, commit)

    def manifest(self, commit: str) -> RepositoryManifest:
        """`modhub.json` at a commit. Raises `ManifestError` when the repository holds no modules."""
        file = self.tree(commit).get(MANIFEST_NAME)
        if file is None:
            raise ManifestError(
                f"'{self.record.id}' at {commit[:12]} has no {MANIFEST_NAME}.", hint="It holds no modules."
            )
        # Looking for a class reads the manifest of every repository that has it.
        name = f"{self.store.root}:{file.sha256}"
        manifest = _MANIFESTS.get(name)
        if manifest is None:
            content = self._read(commit, MANIFEST_NAME, MANIFEST_LIMIT)
            place = f"{MANIFEST_NAME} of '{self.record.id}' at {commit[:12]}"
            manifest = RepositoryManifest.from_bytes(content, place, hint=REPORT)
            _MANIFESTS.put(name, manifest, file.size + 1000)
        return manifest

    def module(self, commit: str, entry: ModuleEntry) -> ModuleManifest:
        """A module's own manifest. Raises `NotFoundError` or `ManifestError`."""
        content = self._read(commit, entry.manifest.path, MANIFEST_LIMIT)
        return ModuleManifest.from_bytes(content, entry.manifest.path)

    def mask(self, commit: str, entry: ModuleEntry) -> Mask | None:
        """Which channels the module keeps; None when its tensors are missing or malformed."""
        file = self.tree(commit).get(entry.tensors.path)
        if file is None or not self.store.reader.holds(file):
            return None
        packed = _mask(self.store, file.sha256)
        return None if packed is None else np.unpackbits(packed[0], count=packed[1]).astype(np.bool_)

    def card(self, commit: str) -> tuple[str, bool]:
        """The card's text without its front matter, and whether that is all of it.

        Front matter that cannot be read stands before it as preformatted text.
        """
        file = self.tree(commit).get(CARD_NAME)
        if file is None or not self.store.reader.holds(file):
            return "", True
        complete = file.size <= CARD_LIMIT
        with self.store.reader.open(file.sha256) as stream:
            content = stream.read(CARD_LIMIT)
        if not complete:
            # At the end of a line.
            content = content[: content.rfind(b"\n") + 1] or content
        text = content.decode("utf-8", "replace")
        try:
            head, body = split_card(text)
        except ManifestError:
            # A head without an end is text, unless its end is what was left out.
            return text if complete else "", complete
        if head is not None:
            try:
                parse_front_matter(text)
            except ManifestError:
                body = "\n".join([*(f"    {line}" for line in head.split("\n")), "", body])
        return body, complete

    def _read(self, commit: str, path: str, limit: int) -> bytes:
        file = self.store.reader.file(self.record.key, commit, path)
        if file.size > limit:
            raise ManifestError(
                f"'{path}' in '{self.record.id}' has {file.size:,} bytes; {limit:,} are read at most.",
                hint=REPORT,
            )
        with self.store.reader.open(file.sha256) as stream:
            return stream.read()


@dataclass(frozen=True, slots=True)
class VisibleRepositories:
    """The resolver's catalogue for `principal`: repositories that they may read; the others do not exist."""

    store: Store
    principal: Principal
    until: float = math.inf
    """When reading ends, by `time.monotonic`: `HTTPError` 503 then."""
    # One object serves one page, which reads the same repositories again and again.
    _views: dict[RepositoryId, RepositoryView] = field(default_factory=dict, repr=False, compare=False)

    def view(self, repository: RepositoryId) -> RepositoryView:
        """The repository, if the principal may read it. Raises `NotFoundError`."""
        if time.monotonic() > self.until:
            # Not an error of one repository, which would be passed over.
            raise HTTPError(
                503,
                "Reading the modules of so many repositories takes too long. Pick modules by repository "
                "(namespace/name/label), or ask again.",
                headers={"Retry-After": "5"},
            )
        if repository in self._views:
            return self._views[repository]
        try:
            record = self.store.repositories.get(RepositoryKey("model", repository))
            authorize(self.principal, record, "read")
        except (HTTPError, NotFoundError):
            raise NotFoundError(
                f"There is no repository '{repository}'.",
                hint="Check the name; if it is private, log in.",
                missing="repository",
            ) from None
        self._views[repository] = RepositoryView(self.store, record)
        return self._views[repository]

    def releases(self, repository: RepositoryId) -> Sequence[Release]:
        return self.view(repository).releases

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        return self.view(repository).release_at(revision)

    def manifest(self, repository: RepositoryId, commit: str) -> RepositoryManifest:
        return self.view(repository).manifest(commit)

    def lost(self, repository: RepositoryId, commit: str) -> Sequence[str]:
        return self.store.reader.lost(self.view(repository).tree(commit))

    def providers(self, label: str, *, older: bool = False) -> Sequence[RepositoryId]:
        limit = OLDER_PROVIDERS if older else PROVIDERS
        wanted = [["modhub"]] if older else [["modhub", tag] for tag in class_tags(label)]
        return self._tagged(wanted, limit)

    def on_trunk(self, digest: str) -> Sequence[RepositoryId]:
        """Repositories with modules on the trunk of that content id."""
        return self._tagged([[trunk_tag(digest)]], PROVIDERS)

    def nearest(self, label: str) -> list[str]:
        """Up to five classes that look like `label`; none when it is one. Raises `RefError`."""
        query = Query(tags=["modhub"], visible=self.principal.visible)
        counted = self.store.index.facets("class:", query, limit=CLASSES_LIMIT)
        return nearest_classes(label, [name for name, _ in counted])

    def _tagged(self, alternatives: Sequence[Sequence[str]], limit: int) -> list[RepositoryId]:
        """Readable repositories with all tags of one of `alternatives`."""
        queries = [Query(tags=tags, visible=self.principal.visible) for tags in alternatives]
        ids = [entry.id for query in queries for entry in self.store.index.search(query, limit=limit)]
        return [id_ for id_ in dict.fromkeys(ids) if self._readable(id_)]

    def _readable(self, repository: RepositoryId) -> bool:
        try:
            self.view(repository)
        except ModhubError:
            # One that is damaged must not hide the others.
            return False
        return True


@lru_cache(maxsize=4096)
def _mask(store: Store, sha256: str) -> tuple[NDArray[np.uint8], int] | None:
    """The mask's bits, packed, and how many there are. Of the file, its header and the mask are read."""
    with store.reader.open(sha256) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > HEADER_LIMIT:
            return None
        try:
            entry = parse_json(stream.read(length), "a header", limit=HEADER_LIMIT)["mask"]
            [slots], [start, stop] = entry["shape"], entry["data_offsets"]
            is_mask = entry["dtype"] == "U8"
        except (ManifestError, KeyError, ValueError, TypeError):
            return None
        sizes = (slots, start, stop)
        if not is_mask or any(type(size) is not int for size in sizes) or not 0 < slots <= CHANNELS_LIMIT:
            return None
        if start < 0 or stop - start != slots or stop > (store.blobs.size(sha256) or 0):
            return None
    with store.reader.open(sha256, 8 + length + start) as stream:
        mask = np.frombuffer(stream.read(slots), np.uint8)
    return (np.packbits(mask != 0), slots) if len(mask) == slots else None
