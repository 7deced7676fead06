"""What the files of a repository mean, for pages: releases, manifests, masks. No torch, no code of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.catalog.catalog import YANKED_NAME, nearest_classes
from modhub.catalog.releases import Release
from modhub.errors import ManifestError, ModhubError, NotFoundError
from modhub.files import parse_json
from modhub.manifest import MANIFEST_NAME, ModuleEntry, ModuleManifest, RepositoryManifest
from modhub.manifest.card import class_tag
from modhub.refs import RepositoryId, version_of_tag
from modhub.server.auth.principal import Principal, authorize
from modhub.server.errors import HTTPError
from modhub.store.index import Query
from modhub.store.lru import LRU
from modhub.store.records import TAGS, RepositoryKey, RepositoryRecord
from modhub.store.store import Store
from modhub.store.tree import Tree, TreeFile

__all__ = ["Shelf", "VisibleCatalogue", "newest"]

MANIFEST_LIMIT = 16 << 20
TENSORS_LIMIT = 64 << 20
# A megabyte of tables would keep the server busy for seconds.
CARD_LIMIT = 256 << 10
# Comparing a name with so many takes a fraction of a second; the commonest come first.
CLASSES_LIMIT = 20_000
Mask = NDArray[np.bool_]
# By the bytes that they were read from; in memory they take up twice as much.
_MANIFESTS: LRU[tuple[RepositoryManifest | None]] = LRU(64 << 20)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Reads repositories of one store."""

    store: Store

    def releases(self, record: RepositoryRecord) -> tuple[Release, ...]:
        """The newest version first, those taken back too."""
        refs = self.store.reader.refs(record.key)
        reasons = self._yanked(record)
        found = [
            Release(version, commit, reasons.get(str(version)))
            for ref, commit in refs.items()
            if ref.startswith(TAGS) and (version := version_of_tag(ref[len(TAGS) :])) is not None
        ]
        return tuple(sorted(found, key=lambda one: one.version or Version("0"), reverse=True))

    def manifest(self, record: RepositoryRecord, commit: str) -> RepositoryManifest | None:
        """`modhub.json` at a commit; None when there is none that can be read."""
        file = self.store.reader.tree(record.key, commit).get(MANIFEST_NAME)
        if file is None or file.size > MANIFEST_LIMIT:
            return None
        return _manifest(self.store, file)

    def module(self, record: RepositoryRecord, commit: str, entry: ModuleEntry) -> ModuleManifest:
        """A module's own manifest. Raises `NotFoundError` or `ManifestError`."""
        content = self.store.reader.read(record.key, commit, entry.manifest.path, limit=MANIFEST_LIMIT)
        return ModuleManifest.from_bytes(content, entry.manifest.path)

    def mask(self, tree: Tree, entry: ModuleEntry) -> Mask | None:
        """Which channel slots the module keeps; None when its tensors are not there or make no sense."""
        file = tree.get(entry.tensors.path)
        if file is None or file.size > TENSORS_LIMIT:
            return None
        packed = _mask(self.store, file.sha256)
        return None if packed is None else np.unpackbits(packed[0], count=packed[1]).astype(np.bool_)

    def card(self, record: RepositoryRecord, commit: str) -> tuple[str, bool]:
        """The card's text without its front matter, and whether that is all of it."""
        file = self.store.reader.tree(record.key, commit).get("README.md")
        if file is None or not self.store.reader.holds(file):
            return "", True
        whole = file.size <= CARD_LIMIT
        with self.store.reader.open(file.sha256) as stream:
            content = stream.read(CARD_LIMIT)
        if not whole:
            # At the end of a line.
            content = content[: content.rfind(b"\n") + 1] or content
        text = content.decode("utf-8", "replace").replace("\r\n", "\n")
        if text.startswith("---\n"):
            _, marker, rest = text[4:].partition("\n---")
            # A head without an end is text, unless its end is what was left out.
            text = rest.partition("\n")[2] if marker else text if whole else ""
        return text, whole

    def _yanked(self, record: RepositoryRecord) -> dict[str, str]:
        try:
            content = self.store.reader.read(record.key, "main", YANKED_NAME, limit=1 << 20)
            reasons = parse_json(content, YANKED_NAME)
        except ModhubError:
            return {}
        return {str(key): str(value) for key, value in reasons.items()} if isinstance(reasons, dict) else {}


def newest(releases: Sequence[Release]) -> Release | None:
    """The release that a ref without a specifier means: not taken back, and no pre-release while there is
    another. None where no release stands."""
    standing = {one.version: one for one in releases if one.yanked is None and one.version is not None}
    fitting = list(SpecifierSet().filter(standing))
    return standing[max(fitting)] if fitting else None


@dataclass(frozen=True, slots=True)
class VisibleCatalogue:
    """What the resolver may ask on behalf of `principal`: the models they may read, and no others exist."""

    store: Store
    principal: Principal
    # One object serves one page, which asks for the same repositories again and again.
    _records: dict[RepositoryId, RepositoryRecord] = field(default_factory=dict, repr=False, compare=False)
    _releases: dict[RepositoryId, Sequence[Release]] = field(default_factory=dict, repr=False, compare=False)

    def releases(self, repository: RepositoryId) -> Sequence[Release]:
        record = self.record(repository)
        if repository not in self._releases:
            self._releases[repository] = Shelf(self.store).releases(record)
        return self._releases[repository]

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        commit = self.store.reader.resolve(self.record(repository).key, revision)
        marked = (release for release in self.releases(repository) if release.commit == commit)
        return next(marked, Release(None, commit))

    def manifest(self, repository: RepositoryId, commit: str) -> RepositoryManifest:
        found = Shelf(self.store).manifest(self.record(repository), commit)
        if found is None:
            raise ManifestError(
                f"'{repository}' at {commit[:12]} holds no modules.",
                hint="Take another repository, or another release of it.",
            )
        return found

    def module(self, repository: RepositoryId, commit: str, entry: ModuleEntry) -> ModuleManifest:
        """A module's own manifest."""
        return Shelf(self.store).module(self.record(repository), commit, entry)

    def lost(self, repository: RepositoryId, commit: str) -> Sequence[str]:
        return self.store.reader.lost(self.store.reader.tree(self.record(repository).key, commit))

    def providers(self, label: str) -> Sequence[RepositoryId]:
        query = Query(tags=["modhub", class_tag(label)], visible=self._visible)
        return [entry.id for entry in self.store.index.search(query, limit=1000) if self._readable(entry.id)]

    def nearest(self, label: str) -> list[str]:
        """Up to five classes that look like `label`; none when it is one. Raises `RefError`."""
        query = Query(tags=["modhub"], visible=self._visible)
        found = self.store.index.facets("class:", query, limit=CLASSES_LIMIT)
        return nearest_classes(label, [name for name, _ in found])

    @property
    def _visible(self) -> frozenset[str] | None:
        return None if self.principal.admin else self.principal.namespaces

    def _readable(self, repository: RepositoryId) -> bool:
        try:
            self.record(repository)
        except NotFoundError:
            return False
        return True

    def record(self, repository: RepositoryId) -> RepositoryRecord:
        """The model, if the principal may read it. Raises `NotFoundError`."""
        if repository in self._records:
            return self._records[repository]
        try:
            record = self.store.repositories.get(RepositoryKey("model", repository))
            authorize(self.principal, record, "read")
        except (HTTPError, NotFoundError):
            raise NotFoundError(
                f"There is no repository '{repository}'.",
                hint="Check the name; if it is private, log in.",
                missing="repository",
            ) from None
        self._records[repository] = record
        return record


def _manifest(store: Store, file: TreeFile) -> RepositoryManifest | None:
    # Who looks for a class reads the manifest of every repository that has it.
    name = f"{store.root}:{file.sha256}"
    known = _MANIFESTS.get(name)
    if known is None:
        with store.reader.open(file.sha256) as stream:
            content = stream.read(MANIFEST_LIMIT)
        try:
            known = (RepositoryManifest.from_bytes(content),)
        except ModhubError:
            known = (None,)
        _MANIFESTS.put(name, known, file.size + 1000)
    return known[0]


@lru_cache(maxsize=4096)
def _mask(store: Store, sha256: str) -> tuple[NDArray[np.uint8], int] | None:
    """The mask's bits, packed, and how many there are."""
    with store.reader.open(sha256) as stream:
        content = stream.read(TENSORS_LIMIT)
    try:
        tensors: dict[str, Any] = safetensors.numpy.load(content)
        mask = tensors["mask"]
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError):
        return None
    if mask.dtype != np.uint8 or mask.ndim != 1 or not mask.size:
        return None
    return cast("NDArray[np.uint8]", np.packbits(mask != 0)), int(mask.size)
