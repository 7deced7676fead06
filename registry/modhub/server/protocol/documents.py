"""The protocol's JSON for repositories, commits and files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import quote

from modhub.server.errors import HTTPError
from modhub.store.front_matter import read_front_matter, tags_of
from modhub.store.index import IndexEntry
from modhub.store.records import CommitRecord, RepositoryRecord
from modhub.store.store import Store
from modhub.store.tree import Tree, TreeFile, TreeFolder

EXPANDABLE = frozenset(
    [
        "author",
        "baseModels",
        "cardData",
        "childrenModelCount",
        "citation",
        "config",
        "createdAt",
        "description",
        "disabled",
        "downloads",
        "downloadsAllTime",
        "evalResults",
        "gated",
        "gguf",
        "inference",
        "inferenceProviderMapping",
        "lastModified",
        "library_name",
        "likes",
        "mask_token",
        "mainSize",
        "model-index",
        "paperswithcode_id",
        "pipeline_tag",
        "private",
        "resourceGroup",
        "safetensors",
        "sha",
        "siblings",
        "spaces",
        "tags",
        "transformersInfo",
        "trendingScore",
        "usedStorage",
        "widgetData",
        "xetEnabled",
        "trustRemoteCode",
    ]
)


def repository_path(record: RepositoryRecord | IndexEntry) -> str:
    """`ns/name` or `datasets/ns/name`, as addresses for people have it."""
    return str(record.id) if record.kind == "model" else f"datasets/{record.id}"


def listed_json(entry: IndexEntry, expand: Collection[str], *, full: bool, card: bool) -> dict[str, Any]:
    """A repository of a list, from the index alone."""
    facts = _facts(entry, entry.head, entry.updated, entry.downloads, entry.front_matter, entry.tags)
    if expand:
        return _expanded(facts, expand)
    hidden = (
        {"downloadsAllTime"} | (set() if card else {"cardData"}) | (set() if full else {"gated", "disabled"})
    )
    return {name: value for name, value in facts.items() if name not in hidden}


def repository_json(
    store: Store, record: RepositoryRecord, commit: CommitRecord, *, blobs: bool, expand: Collection[str]
) -> dict[str, Any]:
    """A repository at a commit, with its files."""
    if unknown := sorted(set(expand) - EXPANDABLE):
        raise HTTPError(
            400, f'"expand" must be one of {", ".join(sorted(EXPANDABLE))}, not {unknown[0][:50]}'
        )
    tree = store.reader.tree(record.key, commit.id)
    front = _front_matter(store, tree)
    downloads = store.references.downloads(record.key)
    facts = _facts(record, commit.id, commit.date, downloads, front, tags_of(front))
    facts["siblings"] = [_sibling(path, file, blobs) for path, file in tree.items()]
    if blobs and (lost := store.reader.lost(tree)):
        # modhub's addition: files that a push may restore.
        facts["missing"] = lost
    facts["usedStorage"] = sum({file.sha256: file.size for file in tree.values()}.values())
    return _expanded(facts, expand) if expand else facts


def _facts(
    record: RepositoryRecord | IndexEntry,
    commit: str,
    date: str,
    downloads: int,
    front: dict[str, Any],
    tags: Iterable[str],
) -> dict[str, Any]:
    gated = record.gated if isinstance(record, IndexEntry) else record.settings.gated
    private = record.private if isinstance(record, IndexEntry) else record.settings.private
    facts: dict[str, Any] = {
        "_id": commit[:24],
        "id": str(record.id),
        "author": record.id.namespace,
        "sha": commit,
        "lastModified": date,
        "createdAt": record.created,
        "private": private,
        "gated": gated or False,
        "disabled": False,
        "downloads": downloads,
        "downloadsAllTime": downloads,
        "likes": 0,
        "trendingScore": 0,
        "tags": list(tags),
        "cardData": front,
    }
    if record.kind == "model":
        facts["modelId"] = str(record.id)
        facts |= {name: front[name] for name in ("library_name", "pipeline_tag") if name in front}
    return facts


def _expanded(facts: dict[str, Any], expand: Collection[str]) -> dict[str, Any]:
    always = {"_id", "id", "modelId"}
    return {name: value for name, value in facts.items() if name in always or name in expand}


def _sibling(path: str, file: TreeFile, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    sibling: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.git_oid}
    if file.lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return sibling


def file_json(
    path: str, entry: TreeFile | TreeFolder, change: CommitRecord | None, expand: bool
) -> dict[str, Any]:
    """A file or folder of a tree; with `expand` the commit that last changed it."""
    item: dict[str, Any]
    if isinstance(entry, TreeFile):
        item = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": path}
        if entry.lfs:
            item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    else:
        item = {"type": "directory", "oid": entry.oid, "size": 0, "path": path}
    if expand:
        if change is not None:
            item["lastCommit"] = {"id": change.id, "title": change.title, "date": change.date}
        if isinstance(entry, TreeFile):
            scan = {"status": "unscanned"}
            item["securityFileStatus"] = {"status": "unscanned", "avScan": scan, "pickleImportScan": scan}
    return item


def commit_json(record: CommitRecord, *, formatted: bool = False) -> dict[str, Any]:
    """A commit in a history; with `formatted` its texts as HTML, too."""
    texts = {"title": escape(record.title), "message": escape(record.description)}
    return {
        "id": record.id,
        "title": record.title,
        "message": record.description,
        "date": record.date,
        "authors": [{"user": record.author or "anonymous"}],
        **({"formatted": texts} if formatted else {}),
    }


def _front_matter(store: Store, tree: Tree) -> dict[str, Any]:
    card = tree.get("README.md")
    # A repository without its card's contents is shown all the same.
    return {} if card is None or not store.reader.holds(card) else dict(_card_head(store, card.sha256))


@lru_cache(maxsize=1024)
def _card_head(store: Store, sha256: str) -> dict[str, Any]:
    with store.reader.open(sha256) as stream:
        return read_front_matter(stream.read(1 << 20))


def web_address(base_url: str, record: RepositoryRecord, *more: str) -> str:
    """The absolute URL of a page."""
    return "/".join([base_url, repository_path(record), *(quote(part, safe="") for part in more)])
