"""Trunks are networks within the limits, wherever modules enter: checked without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from modhub.catalog.catalog import Catalog
from modhub.errors import hinting
from modhub.files import confined
from modhub.manifest import AGAIN, MANIFEST_NAME, FileInfo, ModuleEntry, RepositoryManifest, TrunkInfo
from modhub.nets.trunk_files import check_trunk, parse_graph
from modhub.project.lock import Lock
from modhub.project.resolver import ResolvedModule


def check_trunks(
    manifest: RepositoryManifest,
    entries: Iterable[ModuleEntry],
    locate: Callable[[FileInfo], Path],
    *,
    claims: bool = False,
) -> None:
    """Check the trunks of modules by their files: see `modhub.nets.trunk_files.check_trunk`."""
    trunks: dict[str, TrunkInfo] = {}
    for entry in entries:
        trunk = manifest.trunk_of(entry)
        trunks[trunk.sha256] = trunk
    for trunk in trunks.values():
        check_trunk(trunk, manifest.input, locate, claims=claims)


def check_artifact_trunks(directory: Path) -> None:
    """Check the trunks in an artifact's directory, with what they are said to cost."""
    manifest = RepositoryManifest.from_bytes((directory / MANIFEST_NAME).read_bytes(), MANIFEST_NAME)
    here = [entry for entry in manifest.modules if manifest.trunk_of(entry).repository is None]
    check_trunks(manifest, here, lambda info: confined(directory, info.path), claims=True)


def check_locked_graphs(catalog: Catalog, lock: Lock, modules: Iterable[ResolvedModule]) -> None:
    """Check the graphs of the trunks that `modules` of a lock stand on; offline those that the cache has."""
    places = {trunk.sha256: trunk for trunk in lock.trunks}
    for module in {module.trunk.sha256: module for module in modules}.values():
        place, trunk = places[module.trunk.sha256], module.trunk
        if catalog.files.offline and not catalog.holds(trunk.graph):
            continue
        with hinting(AGAIN):
            spec = catalog.manifest(module.repository, module.release.commit).input
            graph = catalog.fetch(place.repository, place.commit, trunk.graph)
            parse_graph(graph.read_bytes(), trunk, spec)
