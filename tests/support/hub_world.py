"""Repositories of modules with made-up masks, written without torch: enough for pages and resolver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from modhub.files import sha256_of_bytes
from modhub.labels import slug_of
from modhub.manifest import (
    Calibration,
    FileInfo,
    InputSpec,
    Measurement,
    MethodInfo,
    ModuleEntry,
    ModuleManifest,
    ParentInfo,
    Provenance,
    RepositoryManifest,
    Sizes,
    TrunkInfo,
)
from modhub.manifest.card import card
from modhub.store.model import Add
from modhub.store.records import RepositoryKey, Settings
from modhub.store.store import Store
from modhub.text import pretty_json

SLOTS = 600


def repository_files(
    name: str,
    labels: Sequence[str],
    *,
    architecture: str = "modhub:resnet20",
    dataset: str = "cifar10",
    licence: str = "mit",
    seed: int = 0,
) -> dict[str, bytes]:
    """Path → bytes of a release with one module for each label."""
    random = np.random.default_rng(seed)
    files = {
        "trunk/graph.json": pretty_json({"name": name}),
        "trunk/weights.safetensors": random.bytes(20_000),
    }

    def info(path: str) -> FileInfo:
        return FileInfo.of(path, files[path])

    trunk = TrunkInfo(
        sha256=sha256_of_bytes(files["trunk/weights.safetensors"]),
        graph=info("trunk/graph.json"),
        weights=info("trunk/weights.safetensors"),
        statistics=None,
        features=64,
        parameters=272_474,
        flops=40_800_000,
    )
    parent = ParentInfo(
        name=name,
        architecture=architecture,
        sha256=sha256_of_bytes(name.encode()),
        labels=tuple(labels),
        license=licence,
        dataset=dataset,
    )
    seen = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    method = MethodInfo(name="relevance", parameters={}, paper=None)
    entries, manifests = [], []
    for number, label in enumerate(labels):
        slug = slug_of(label)
        mask = random.random(SLOTS) < np.linspace(0.9, 0.2, SLOTS)
        tensors = f"modules/{slug}/module.safetensors"
        files[tensors] = safetensors.numpy.save({"mask": mask.astype(np.uint8)})
        recall = 0.95 - 0.01 * (number % 90)
        metrics = {"recall": recall, "precision": recall - 0.03}
        manifest = ModuleManifest(
            label=label,
            slug=slug,
            aliases=(),
            ontology_id=None,
            form="delta",
            parent=parent,
            trunk=trunk,
            method=method,
            input=seen,
            calibration=Calibration(
                kind="margin",
                parameters={"slope": 1.4, "intercept": -1.0, "margin_mean": 3.1, "margin_std": 1.2},
            ),
            measurement=Measurement(
                dataset=dataset, split="test", positives=100, negatives=900, values=metrics
            ),
            sizes=Sizes(
                kept_channels=int(mask.sum()),
                channels=SLOTS,
                kept_parameters=int(272_474 * mask.mean()),
                parameters=272_474,
                flops=int(40_800_000 * mask.mean()),
                parent_flops=40_800_000,
            ),
            tensors=info(tensors),
            provenance=Provenance(tool="modhub", tool_version="0.1.0", seed=0, date=None, environment={}),
            license=licence,
        )
        path = f"modules/{slug}/module.json"
        files[path] = manifest.to_bytes()
        manifests.append(manifest)
        entries.append(ModuleEntry.of(manifest, info(path)))
    whole = RepositoryManifest(
        parent=parent, trunk=trunk, input=seen, method=method, license=licence, modules=tuple(entries)
    )
    files["modhub.json"] = whole.to_bytes()
    files["README.md"] = card(whole, manifests, repository=name).encode()
    return files


def push(root: Path, name: str, labels: Sequence[str], *, private: bool = False, seed: int = 0) -> None:
    """Release 1.0.0 of a made-up repository into the store at `root`."""
    store = Store(root)
    key = RepositoryKey.model(name)
    store.repositories.create(key, settings=Settings(private=private), actor="lab")
    files = repository_files(name, labels, seed=seed)
    made = store.commits.create(
        key, [Add(path, content) for path, content in files.items()], title="Release 1.0.0"
    )
    store.tags.create(key, "v1.0.0", revision=made.id)
    store.close()
