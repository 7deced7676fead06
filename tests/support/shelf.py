"""A catalogue held in memory, for the rooms that resolve and lock."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modhub.catalog.releases import Release
from modhub.errors import NotFoundError
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
from modhub.refs import RepositoryId, parse_version, slug_of, version_of_tag


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def commit_id(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def trunk_info(name: str, *, repository: str | None = None, revision: str | None = None) -> TrunkInfo:
    sha256 = digest(f"trunk {name}")
    return TrunkInfo(
        sha256=sha256,
        graph=FileInfo(path="trunk/graph.json", sha256=digest(f"graph {name}"), size=100),
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


@dataclass
class Shelf:
    """`put` releases, then ask as the resolver does."""

    stored: dict[RepositoryId, list[tuple[Release, RepositoryManifest]]] = field(default_factory=dict)
    gone: dict[str, Sequence[str]] = field(default_factory=dict)

    def put(
        self,
        repository: str,
        version: str | None,
        modules: Mapping[str, float | None],
        *,
        trunk: str = "",
        licence: str | None = "mit",
        yanked: str | None = None,
        sample: Sample | None = None,
    ) -> Release:
        release = Release(
            None if version is None else parse_version(version),
            commit_id(f"{repository} {version}"),
            yanked,
        )
        held = manifest(trunk_info(trunk or repository), modules, licence=licence, sample=sample)
        self.stored.setdefault(RepositoryId.parse(repository), []).append((release, held))
        return release

    def releases(self, repository: RepositoryId) -> Sequence[Release]:
        return [release for release, _ in self._of(repository) if release.version is not None]

    def release_at(self, repository: RepositoryId, revision: str) -> Release:
        for release, _ in self._of(repository):
            version = version_of_tag(revision)
            if revision == release.commit or (version is not None and release.version == version):
                return release
        raise NotFoundError(f"{repository} has no revision '{revision}'.")

    def manifest(self, repository: RepositoryId, commit: str) -> RepositoryManifest:
        return next(held for release, held in self._of(repository) if release.commit == commit)

    def lost(self, repository: RepositoryId, commit: str) -> Sequence[str]:
        return self.gone.get(commit, ())

    def providers(self, label: str) -> Sequence[RepositoryId]:
        return [
            repository
            for repository, pairs in self.stored.items()
            if any(entry.answers_to(label) for _, held in pairs for entry in held.modules)
        ]

    def nearest(self, label: str) -> Sequence[str]:
        held = (manifest for pairs in self.stored.values() for _, manifest in pairs)
        known = {entry.label for one in held for entry in one.modules}
        return difflib.get_close_matches(label, sorted(known))

    def _of(self, repository: RepositoryId) -> list[tuple[Release, RepositoryManifest]]:
        # As on a hub, case does not matter.
        for stored, pairs in self.stored.items():
            if str(stored).lower() == str(repository).lower():
                return pairs
        raise NotFoundError(f"There is no repository '{repository}'.")
