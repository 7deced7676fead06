"""A composed classifier as a directory: graphs and weights as data, every digest verified on loading.

build.json                  labels, passes, and the digest of every file (schemas/build.schema.json)
trunks/<i>/graph.json       the slim network of pass i
trunks/<i>/weights.safetensors
heads.safetensors           rows, calibration and order; densities where heads share a trunk
README.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modhub.artifact import parse_tensors
from modhub.artifact.modules import tensor_bytes
from modhub.calibration.feature_distance import DISTANCE_FIELDS
from modhub.composition.classifier import ComposedClassifier, TrunkPass, TrunkReport
from modhub.composition.heads import (
    CALIBRATION_FIELDS,
    DENSITY_FIELDS,
    TEXTURE_FIELDS,
    HeadTensors,
    JoinedHead,
)
from modhub.data.texture import texture_size
from modhub.devices import torch_defaults
from modhub.energy import EnergyUse
from modhub.errors import IntegrityError, ManifestError, hinting
from modhub.files import confined, new_directory, write_files
from modhub.manifest import Fields, FileInfo, InputSpec
from modhub.nets import TAIL_STEPS, Graph, Network
from modhub.text import parse_json, pretty_json

BUILD_NAME = "build.json"
BUILD_SCHEMA_VERSION = 2
"""The newest; a build says the first whose readers understand it."""
_HEADS = "heads.safetensors"
_AGAIN = "Compose it again."


def save_build(
    classifier: ComposedClassifier, directory: Path, *, force: bool = False, energy: EnergyUse | None = None
) -> Path:
    """Write `directory`, completely or not at all; equal classifiers give equal bytes. `energy` is what
    composing it took. Raises `StorageError`."""
    files: dict[str, bytes] = {}
    heads: dict[str, Tensor] = {"order": classifier.order.cpu()}
    passes = []
    for number, trunk_pass in enumerate(classifier.trunk_passes):
        network = trunk_pass.trunk.network
        graph, weights = f"trunks/{number}/graph.json", f"trunks/{number}/weights.safetensors"
        files[graph] = pretty_json(network.graph.to_dict())
        files[weights] = tensor_bytes(network.tensors)
        described = []
        for place, head in enumerate(trunk_pass.heads):
            tensors = head.fitted_tensors.to_dict()
            heads.update({f"{number}.{place}.{name}": tensor for name, tensor in tensors.items()})
            described.append({"classes": head.classes, "tail": list(head.tail)})
        passes.append(
            {
                **trunk_pass.report.to_dict(),
                "input": trunk_pass.spec.to_dict(),
                "graph": FileInfo.of(graph, files[graph]).to_dict(),
                "weights": FileInfo.of(weights, files[weights]).to_dict(),
                "heads": described,
            }
        )
    files[_HEADS] = tensor_bytes(heads)
    files["README.md"] = _readme(classifier).encode()
    build: dict[str, Any] = {
        "schema_version": max(trunk_pass.spec.schema_version for trunk_pass in classifier.trunk_passes),
        "labels": list(classifier.labels),
        "reject": classifier.reject,
        "heads": FileInfo.of(_HEADS, files[_HEADS]).to_dict(),
        "passes": passes,
    }
    if energy is not None:
        build["energy"] = energy.to_dict()
    files[BUILD_NAME] = pretty_json(build)
    with new_directory(directory, force=force) as scratch:
        write_files(scratch, files)
    return directory


@hinting(_AGAIN)
@torch_defaults()
def load_build(directory: Path) -> ComposedClassifier:
    """Read what `save_build` wrote. Raises `ManifestError` or `IntegrityError` naming the file."""
    path = directory / BUILD_NAME
    if not path.is_file():
        raise ManifestError(
            f"'{directory}' holds no {BUILD_NAME}.", hint="Name a directory written by 'modhub compose'."
        )
    fields = Fields(parse_json(path.read_bytes(), str(path)), str(path))
    fields.check_version(BUILD_SCHEMA_VERSION)
    labels = fields.labels("labels")
    tensors = _tensors(directory, FileInfo.from_dict(fields.child("heads")))
    passes, classes = [], 0
    for number, described in enumerate(fields.children("passes", minimum=1)):
        loaded = _pass(directory, described, number, tensors)
        classes += sum(head.classes for head in loaded.heads)
        passes.append(loaded)
    order = tensors.get("order")
    if (
        classes != len(labels)
        or order is None
        or order.dtype != torch.int64
        or sorted(order.tolist()) != list(range(classes))
    ):
        raise IntegrityError(
            f"The labels in '{path}' do not match the {classes} classes of its heads.",
            hint=_AGAIN,
        )
    return ComposedClassifier(labels, passes, order, reject=fields.boolean("reject"))


def _pass(directory: Path, fields: Fields, number: int, tensors: dict[str, Tensor]) -> TrunkPass:
    graph_info = FileInfo.from_dict(fields.child("graph"))
    place = str(directory / graph_info.path)
    graph = Graph.from_dict(parse_json(_verified(directory, graph_info), place), place)
    network = Network(graph, _tensors(directory, FileInfo.from_dict(fields.child("weights"))))
    spec = InputSpec.from_dict(fields.child("input"))
    if tuple(graph.input_shape) != (spec.channels, spec.height, spec.width):
        raise IntegrityError(
            f"The input of '{place}' is not the one that {fields.place} describes.", hint=_AGAIN
        )
    heads, image = [], (spec.channels, spec.height, spec.width)
    for position, head in enumerate(fields.children("heads", minimum=1)):
        prefix = f"{number}.{position}."
        of_head = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        tail = head.strings("tail")
        _check_head(of_head, head.integer("classes", minimum=1), graph.features, image, tail, head.place)
        heads.append(JoinedHead(HeadTensors.from_dict(of_head), tail))
    report = TrunkReport(
        parent=fields.string("parent"),
        kept_channels_fraction=fields.number("kept_channels_fraction", minimum=0, maximum=1),
        kept_params_fraction=fields.number("kept_params_fraction", minimum=0),
        flops=fields.integer("flops"),
        parent_flops=fields.integer("parent_flops"),
    )
    return TrunkPass(network, spec, heads, report)


def _check_head(
    tensors: dict[str, Tensor],
    classes: int,
    features: int,
    image: tuple[int, int, int],
    tail: tuple[str, ...],
    place: str,
) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "rows": (classes, features),
        "rest": (classes, features),
        "row_bias": (classes,),
        "rest_bias": (classes,),
        "calibration": (len(CALIBRATION_FIELDS), classes),
        "adjustment": (2,),
    }
    expected |= {name: (classes,) for name in ("gate", "false_accept") if name in tensors}
    if "siblings" in tensors:
        siblings = tuple(tensors["siblings"].shape[:1])
        expected |= {"siblings": (*siblings, features), "sibling_bias": siblings}
    if any(name in tensors for name in DENSITY_FIELDS):
        per_class = "whitening" in tensors and tensors["whitening"].shape[:1] == (classes,)
        expected |= {
            "means": (classes, features),
            "whitening": (classes if per_class else 1, features, features),
            "volume": (classes,),
        }
    if any(name in tensors for name in DISTANCE_FIELDS):
        by_feature = "scales" in tensors and tensors["scales"].dim() == 2
        expected |= {
            "centres": (classes, features),
            "scales": (classes, features) if by_feature else (classes, features, features),
        }
    if any(name in tensors for name in TEXTURE_FIELDS):
        size = texture_size(*image)
        expected |= {"texture_centres": (classes, size), "texture_scales": (classes, size, size)}
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or tensors[name].dtype != torch.float32:
            raise IntegrityError(
                f"The tensor '{name}' of {place} is missing or not {list(shape)}.", hint=_AGAIN
            )
    if set(tensors) - set(expected) or set(tail) - set(TAIL_STEPS):
        raise IntegrityError(
            f"{place} holds tensors or steps that this modhub does not know.",
            hint="Upgrade it with: pip install --upgrade modhub",
        )


def _tensors(directory: Path, info: FileInfo) -> dict[str, Tensor]:
    return parse_tensors(_verified(directory, info), str(directory / info.path))


def _verified(directory: Path, info: FileInfo) -> bytes:
    path = confined(directory, info.path)
    return info.read(path, f"'{path}'", hint=_AGAIN)


def _readme(classifier: ComposedClassifier) -> str:
    lines = ["# A composed classifier", "", f"It knows: {', '.join(classifier.labels)}.", ""]
    for trunk_pass in classifier.trunk_passes:
        report = trunk_pass.report
        share = report.flops / max(report.parent_flops, 1)
        lines.append(
            f"- one pass through {share:.0%} of {report.parent}'s trunk, {report.flops:,} multiply-adds"
        )
    lines += [
        "",
        "```python",
        "import modhub",
        "",
        'classifier = modhub.load(".")',
        "```",
        "",
        "Written by modhub.",
    ]
    return "\n".join(lines) + "\n"
