"""A hub in a directory with made-up releases, with a manifest, a card and a graph each.

`put` commits each release to main as modhub 0.1.0 did, so that main shows whatever was pushed last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modhub.catalog.catalog import Catalog
from modhub.catalog.releases import YANKED_NAME, Release
from modhub.errors import NotFoundError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.labels import slug_of
from modhub.manifest import (
    FileInfo,
    InputSpec,
    MethodInfo,
    ModuleEntry,
    ParentInfo,
    RepositoryManifest,
    Sample,
    TrunkInfo,
)
from modhub.manifest.card import card
from modhub.refs import RepositoryId, parse_version, tag_of
from modhub.store.model import MAIN, Add
from modhub.text import pretty_json
from tests.support.paper import digest, paper_graph


def graph_of(trunk: str) -> bytes:
    return pretty_json(paper_graph(trunk).to_dict())


def trunk_info(name: str, *, repository: str | None = None, revision: str | None = None) -> TrunkInfo:
    sha256 = digest(f"trunk {name}")
    return TrunkInfo(
        sha256=sha256,
        graph=FileInfo.of("trunk/graph.json", graph_of(name)),
        weights=FileInfo(path=f"trunk/{sha256}.safetensors", sha256=digest(f"weights {name}"), size=1000),
        statistics=None,
        features=8,
        parameters=250,
        flops=1000,
        repository=repository,
        revision=revision,
    )


def manifest(
    trunk: TrunkInfo,
    modules: Mapping[str, float | None],
    *,
    licence: str | None = "mit",
    sample: Sample | None = None,
) -> RepositoryManifest:
    """A repository's manifest: label → recorded recall (None: not recorded), of the images `sample`."""
    labels = tuple(modules)
    return RepositoryManifest(
        parent=ParentInfo(
            name="parent",
            architecture="tiny",
            sha256=digest("parent"),
            labels=labels,
            license=licence,
            dataset="digits",
        ),
        trunk=trunk,
        input=InputSpec(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,)),
        method=MethodInfo(name="relevance", parameters={}, paper=None),
        license=licence,
        modules=tuple(
            ModuleEntry(
                label=label,
                slug=slug_of(label),
                aliases=(),
                form="delta",
                manifest=FileInfo(
                    path=f"modules/{slug_of(label)}/module.json", sha256=digest(f"json {label}"), size=10
                ),
                tensors=FileInfo(
                    path=f"modules/{slug_of(label)}/module.safetensors", sha256=digest(label), size=20
                ),
                trunk=None,
                kept_channels_fraction=0.5,
                metrics={} if recall is None else {"recall": recall},
                sample=sample,
            )
            for label, recall in modules.items()
        ),
    )


class ReleaseHub:
    """`put` releases into the hub in `root`, then ask `catalog`."""

    def __init__(self, root: Path) -> None:
        self.hub = DirectoryHub(root / "hub")
        self.catalog = Catalog(self.hub, Cache(root / "cache"))
        self.manifests: dict[RepositoryId, dict[Release, RepositoryManifest]] = {}

    def put(
        self,
        repository: str,
        version: str | None,
        modules: Mapping[str, float | None],
        *,
        trunk: str | TrunkInfo = "",
        licence: str | None = "mit",
        yanked: str | None = None,
        sample: Sample | None = None,
    ) -> Release:
        """A release with these modules, or without a `version` just a commit."""
        where = RepositoryId.parse(repository)
        info = trunk if isinstance(trunk, TrunkInfo) else trunk_info(trunk or repository)
        content = manifest(info, modules, licence=licence, sample=sample)
        files = {
            "README.md": card(content).encode(),
            "modhub.json": content.to_bytes(),
            "trunk/graph.json": graph_of(trunk if isinstance(trunk, str) and trunk else repository),
        }
        self.hub.create_repository(where, exist_ok=True)
        commit = self.hub.commit(where, [Add(path, files[path]) for path in files], "A release")
        release = Release(None if version is None else parse_version(version), commit, yanked)
        if release.version is not None:
            self.hub.create_tag(where, tag_of(release.version), commit)
        if release.yanked is not None:
            self.yank(where, f"{release.version}", release.yanked)
        self.manifests.setdefault(where, {})[release] = content
        return release

    def yank(self, repository: RepositoryId, version: str, reason: str) -> None:
        """Write the yank by hand, the version spelled as given."""
        head = self.hub.commit_of(repository, MAIN)
        try:
            reasons = json.loads(self.hub.read(repository, head, YANKED_NAME))
        except NotFoundError:
            reasons = {}
        self.hub.commit(repository, [Add(YANKED_NAME, pretty_json({**reasons, version: reason}))], "A yank")

    def lose(self, repository: str, path: str) -> None:
        """Let the hub lose a file's contents, wherever they stand."""
        store = self.hub.store
        where = RepositoryId.parse(repository)
        (release, *_) = self.catalog.releases(where)
        blob = store.blobs.path(self.hub.tree(where, release.commit)[path].sha256 or "")
        assert blob is not None
        blob.unlink()


def with_statistics(trunk: TrunkInfo, parent: str) -> TrunkInfo:
    """The trunk with statistics of a parent's head."""
    return replace(
        trunk,
        statistics=FileInfo(path="trunk/s.safetensors", sha256=digest(f"statistics {parent}"), size=10),
    )
