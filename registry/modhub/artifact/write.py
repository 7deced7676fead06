"""A module set as files: deterministic bytes, whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from modhub.artifact.modules import ModuleSet, tensor_bytes
from modhub.artifact.tensor_file import parse_tensors
from modhub.files import new_directory, write_files
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleManifest, RepositoryManifest
from modhub.manifest.card import CARD_NAME, card
from modhub.text import pretty_json


def artifact_files(modules: ModuleSet, *others: ModuleSet) -> dict[str, bytes]:
    """Every file of the repository by path: equal sets give equal bytes.

    `others` are sets of the same parent on trunks of their own, as standalone modules are. A trunk that
    stands in another repository (`TrunkInfo.repository`) is left out. Raises `IntegrityError` when content
    differs from the size or digest in its manifest, and like `ManifestError` for what would not be read.
    """
    files: dict[str, bytes] = {}

    def add(info: FileInfo, content: bytes) -> None:
        info.check(content, f"'{info.path}'", hint="Make its manifests with modhub.decomposition.assembly.")
        files[info.path] = content

    sets = (modules, *others)
    for module_set in sets:
        manifest = module_set.manifest
        for trunk in {
            manifest.trunk_of(entry).sha256: manifest.trunk_of(entry) for entry in manifest.modules
        }.values():
            if trunk.repository is None:
                add(trunk.graph, pretty_json(module_set.trunk.graph.to_dict()))
                add(trunk.weights, tensor_bytes(module_set.trunk.tensors))
                if trunk.statistics is not None:
                    add(trunk.statistics, tensor_bytes(module_set.statistics))
                    parse_tensors(files[trunk.statistics.path], trunk.statistics.path)
        for entry, module in zip(manifest.modules, module_set.modules, strict=True):
            add(entry.manifest, module.manifest.to_bytes())
            add(entry.tensors, tensor_bytes(module.tensors))
            ModuleManifest.from_bytes(files[entry.manifest.path], entry.manifest.path)
            parse_tensors(files[entry.tensors.path], entry.tensors.path)
    whole = dataclasses.replace(
        modules.manifest, modules=tuple(entry for module_set in sets for entry in module_set.manifest.modules)
    )
    files[MANIFEST_NAME] = whole.to_bytes()
    RepositoryManifest.from_bytes(files[MANIFEST_NAME])
    files[CARD_NAME] = card(
        whole, [module.manifest for module_set in sets for module in module_set.modules]
    ).encode()
    return dict(sorted(files.items()))


def write_artifact(
    directory: Path | str, modules: ModuleSet, *others: ModuleSet, force: bool = False
) -> Path:
    """Write every file of `artifact_files` into a new `directory`, which appears whole or not at all.

    Raises `StorageError` when something is in it and there is no `force`, or when it cannot be written.
    """
    target = Path(directory)
    files = artifact_files(modules, *others)
    with new_directory(target, force=force) as scratch:
        write_files(scratch, files)
    return target
