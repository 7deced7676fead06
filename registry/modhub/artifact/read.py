"""Files as module sets: every digest verified, every size and shape checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from modhub.artifact.modules import ClassModule, ModuleSet
from modhub.artifact.tensor_file import parse_tensors
from modhub.artifact.tensors import TensorType, required_tensors
from modhub.errors import IntegrityError, ManifestError, hinting
from modhub.files import confined
from modhub.manifest import (
    AGAIN,
    MANIFEST_NAME,
    FileInfo,
    InputSpec,
    ModuleEntry,
    ModuleManifest,
    RepositoryManifest,
    TrunkInfo,
)
from modhub.nets.channels import channel_space
from modhub.nets.graph import Graph, Network
from modhub.nets.trunk_files import parse_graph

Locate: TypeAlias = Callable[[FileInfo], Path]
"""Where the file with this path and digest lies on this machine."""

_MANIFEST_LIMIT = 64 << 20


def read_artifact(directory: Path | str, labels: Sequence[str] | None = None) -> ModuleSet:
    """The modules in `directory` that answer to `labels` (None: all), with the trunk they share.

    Raises `ManifestError` when it holds no readable manifest or the modules stand on several trunks,
    `SchemaVersionError` when a newer modhub wrote it, `NotFoundError` for an unknown label, and
    `IntegrityError`, naming the file, for one that is missing, truncated, altered or says otherwise than
    the manifest.
    """
    sets = read_sets(directory, labels)
    if len(sets) != 1:
        raise ManifestError(
            f"The modules wanted from '{directory}' stand on {len(sets)} trunks.",
            hint="Name the label of one module.",
        )
    return sets[0]


def read_sets(directory: Path | str, labels: Sequence[str] | None = None) -> tuple[ModuleSet, ...]:
    """`read_artifact` for modules on any number of trunks: one set for each (see `read_modules`)."""
    root = Path(directory)
    return read_modules(
        read_manifest(root), lambda info: confined(root, info.path), labels, place=f"'{root}'"
    )


def read_manifest(directory: Path) -> RepositoryManifest:
    """`modhub.json` of an artifact's directory. Raises `ManifestError`."""
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise ManifestError(
            f"'{directory}' holds no {MANIFEST_NAME}.",
            hint="Name a directory written by 'modhub decompose' or 'modhub pull'.",
        )
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise ManifestError(f"'{path}' is too large for a manifest.", hint=AGAIN)
    return RepositoryManifest.from_bytes(path.read_bytes(), str(path))


def read_modules(
    manifest: RepositoryManifest,
    locate: Locate,
    labels: Sequence[str] | None = None,
    *,
    place: str = "this repository",
) -> tuple[ModuleSet, ...]:
    """The modules that answer to `labels` (None: all) of a repository whose files lie anywhere.

    One set for each trunk, whose manifest lists the modules read and no others; `delta` modules share one,
    a `standalone` module has its own. Errors as for `read_artifact`.
    """
    wanted = manifest.modules if labels is None else [manifest.module(name, place) for name in labels]
    groups: dict[str, dict[str, ModuleEntry]] = {}
    for entry in wanted:
        groups.setdefault(manifest.trunk_of(entry).sha256, {})[entry.slug] = entry
    return tuple(_read_group(manifest, tuple(group.values()), locate) for group in groups.values())


@hinting(AGAIN)
def read_trunk(info: TrunkInfo, spec: InputSpec, locate: Locate) -> tuple[Network, dict[str, Tensor]]:
    """A trunk for the input `spec`, and its pooled statistics (empty when it has none)."""
    graph = parse_graph(_content(info.graph, locate), info, spec)
    trunk = Network(graph, parse_tensors(_content(info.weights, locate), info.weights.path))
    if trunk.sha256 != info.sha256:
        raise IntegrityError(
            f"{info.graph.path} and {info.weights.path} are not the trunk that the manifest names.",
            hint=AGAIN,
        )
    if info.statistics is None:
        return trunk, {}
    return trunk, parse_tensors(_content(info.statistics, locate), info.statistics.path)


def _read_group(manifest: RepositoryManifest, entries: tuple[ModuleEntry, ...], locate: Locate) -> ModuleSet:
    info = manifest.trunk_of(entries[0])
    trunk, statistics = read_trunk(info, manifest.input, locate)
    slots = channel_space(trunk).slots
    shared = manifest.trunk if manifest.trunk is not None and manifest.trunk.sha256 == info.sha256 else None
    part = replace(manifest, trunk=shared, modules=entries)
    modules = tuple(_read_module(manifest, entry, trunk, slots, locate) for entry in entries)
    return ModuleSet(part, trunk, statistics, modules)


def _read_module(
    whole: RepositoryManifest, entry: ModuleEntry, trunk: Network, slots: int, locate: Locate
) -> ClassModule:
    manifest = ModuleManifest.from_bytes(_content(entry.manifest, locate), entry.manifest.path)
    whole.check(entry, manifest)
    tensors = parse_tensors(_content(entry.tensors, locate), entry.tensors.path)
    _check_tensors(tensors, trunk.graph, slots, entry.tensors.path)
    return ClassModule(manifest, tensors)


def _check_tensors(tensors: dict[str, Tensor], graph: Graph, slots: int, place: str) -> None:
    for name, required in required_tensors(tensors, graph, slots).items():
        if required is None:
            raise IntegrityError(
                f"The tensor '{name}' in {place} speaks of no value of its trunk.", hint=AGAIN
            )
        if name not in tensors:
            raise IntegrityError(f"{place} lacks the tensor '{name}'.", hint=AGAIN)
        if (actual := TensorType.of(tensors[name])) != required:
            raise IntegrityError(
                f"The tensor '{name}' in {place} is {actual}; its trunk asks for {required}.", hint=AGAIN
            )


def _content(info: FileInfo, locate: Locate) -> bytes:
    return info.read(locate(info), f"'{info.path}'", hint=AGAIN)
