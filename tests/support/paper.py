"""Artifacts whose modules' tensors are any bytes at all: enough for every room that never looks into them."""

from __future__ import annotations

from collections.abc import Mapping
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
    Sample,
    Sizes,
    TrunkInfo,
)
from modhub.nets import Graph, Node, cost
from modhub.text import pretty_json


def digest(text: str) -> str:
    return sha256_of_bytes(text.encode())


def put(directory: Path, path: str, content: bytes) -> FileInfo:
    place = directory / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return FileInfo.of(path, content)


def paper_graph(name: str, channels: int = 8, image: tuple[int, int, int] = (1, 8, 8)) -> Graph:
    """A small network whose only node bears the name of a trunk."""
    attributes = {
        "in_channels": image[0],
        "out_channels": channels,
        "kernel": [3, 3],
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "groups": 1,
    }
    node = Node(name, "conv2d", ("image",), attributes, {"weight": "weight"})
    return Graph("image", image, (node,), name)


def paper_weights(graph: Graph, size: int = 0) -> bytes:
    """Weights of such a network in a file of `size` bytes (a multiple of 8) or more."""
    (node,) = graph.nodes
    tensors = {"weight": np.zeros(graph.tensor_specs(node)["weight"].shape, np.float32)}
    filling = max(0, size - len(safetensors.numpy.save(tensors, {"": ""})))
    return safetensors.numpy.save(tensors, {"": "x" * filling})


def write_paper_artifact(
    directory: Path,
    modules: Mapping[str, float | None],
    *,
    trunk: str = "trunk",
    licence: str | None = "mit",
    dataset: str | None = "digits",
    sample: Sample | None = None,
) -> Path:
    """An artifact of `modules` (label → recall) with true digests; without `sample` as older ones were."""
    parent = ParentInfo(
        name=f"parent of {trunk}",
        architecture="tiny",
        sha256=digest(trunk),
        labels=tuple(modules),
        license=licence,
        dataset=dataset,
    )
    spec = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
    method = MethodInfo(name="relevance", parameters={"max_loss": 0.005}, paper=None)
    graph = paper_graph(trunk)
    weights = paper_weights(graph, 5000 * len(trunk))
    info = TrunkInfo(
        sha256=digest(f"trunk {trunk}"),
        graph=put(directory, "trunk/graph.json", pretty_json(graph.to_dict())),
        weights=put(directory, f"trunk/{digest(f'trunk {trunk}')}.safetensors", weights),
        statistics=None,
        features=graph.features,
        parameters=cost(graph).parameters,
        flops=cost(graph).flops,
    )
    images = sample or Sample(dataset="digits", split="calibration", positives=9, negatives=9)
    entries = []
    for label, recall in modules.items():
        slug = slug_of(label)
        tensors = put(directory, f"modules/{slug}/module.safetensors", f"{trunk} {label}".encode() * 10)
        metrics = {} if recall is None else {"recall": recall, "precision": 0.75}
        manifest = ModuleManifest(
            label=label,
            slug=slug,
            aliases=(),
            ontology_id=None,
            form="delta",
            parent=parent,
            trunk=info,
            method=method,
            input=spec,
            calibration=Calibration(kind="platt", parameters={"scale": 1.0, "shift": 0.0}),
            measurement=Measurement(
                dataset=images.dataset,
                split=images.split,
                positives=images.positives,
                negatives=images.negatives,
                values=metrics,
            ),
            sizes=Sizes(
                kept_channels=4, channels=8, kept_parameters=100, parameters=250, flops=400, parent_flops=1000
            ),
            tensors=tensors,
            provenance=Provenance(tool="modhub", tool_version="0.1.0", seed=0, date=None, environment={}),
            license=licence,
        )
        entries.append(
            ModuleEntry(
                label=label,
                slug=slug,
                aliases=(),
                form="delta",
                manifest=put(directory, f"modules/{slug}/module.json", manifest.to_bytes()),
                tensors=tensors,
                trunk=None,
                kept_channels_fraction=0.5,
                metrics=metrics,
                sample=sample,
            )
        )
    whole = RepositoryManifest(
        parent=parent, trunk=info, input=spec, method=method, license=licence, modules=tuple(entries)
    )
    put(directory, "modhub.json", whole.to_bytes())
    return directory
