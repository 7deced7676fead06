"""A residual network of a few hundred weights, and a module set made of it by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.artifact.modules import ClassModule, ModuleSet, tensor_bytes
from modhub.files import sha256_of_bytes
from modhub.importing.importer import import_module
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
from modhub.nets.channels import channel_space
from modhub.nets.complexity import cost
from modhub.nets.graph import Network
from modhub.nets.head import Head, split_head
from modhub.text import pretty_json

LABELS = ("cat", "dog", "aquarium fish")
CALIBRATION = {
    "temperature": 1.0,
    "slope": 1.0,
    "intercept": 0.0,
    "margin_mean": 1.5,
    "margin_std": 0.5,
    "threshold": 0.0,
    "false_accept": 0.1,
}
INPUT = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)


class PicoNet(nn.Module):
    """conv-bn-relu, one residual block, average, linear; (batch, 3, 8, 8) to (batch, classes)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.conv1, self.conv2 = nn.Conv2d(6, 5, 3, 1, 1), nn.Conv2d(5, 6, 3, 1, 1)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def pico_network(classes: int = 3, seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return import_module(PicoNet(classes).eval(), (3, 8, 8), name="pico")


def pico_set(labels: Sequence[str] = LABELS) -> ModuleSet:
    """Delta modules that each lack one channel, on the trunk of `pico_network`."""
    network = pico_network(len(labels))
    trunk, head = split_head(network)
    parent = ParentInfo(
        name="hf:somebody/pico",
        architecture="pico",
        sha256=network.sha256,
        labels=tuple(labels),
        license="MIT",
        dataset="pets",
    )
    statistics = {"site.mean": torch.arange(3.0)}
    weights, graph = tensor_bytes(trunk.tensors), pretty_json(trunk.graph.to_dict())
    stem = f"trunk/{sha256_of_bytes(weights)}"
    price = cost(trunk)
    trunk_info = TrunkInfo(
        sha256=trunk.sha256,
        graph=FileInfo.of("trunk/graph.json", graph),
        weights=FileInfo.of(f"{stem}.safetensors", weights),
        statistics=FileInfo.of(f"{stem}.statistics.safetensors", tensor_bytes(statistics)),
        features=6,
        parameters=price.parameters,
        flops=price.flops,
    )
    modules = tuple(_module(row, label, trunk, head, parent, trunk_info) for row, label in enumerate(labels))
    first = modules[0].manifest
    manifest = RepositoryManifest(
        parent=parent,
        trunk=trunk_info,
        input=INPUT,
        method=first.method,
        license=first.license,
        modules=tuple(entry_of(module) for module in modules),
    )
    return ModuleSet(manifest, trunk, statistics, modules)


def entry_of(module: ClassModule) -> ModuleEntry:
    manifest = module.manifest
    return ModuleEntry(
        label=manifest.label,
        slug=manifest.slug,
        aliases=manifest.aliases,
        form=manifest.form,
        manifest=FileInfo.of(f"modules/{manifest.slug}/module.json", manifest.to_bytes()),
        tensors=manifest.tensors,
        trunk=None,
        kept_channels_fraction=manifest.sizes.kept_channels_fraction,
        metrics=manifest.measurement.values if manifest.measurement else {},
    )


def _module(
    row: int, label: str, trunk: Network, head: Head, parent: ParentInfo, trunk_info: TrunkInfo
) -> ClassModule:
    space = channel_space(trunk)
    mask = space.full_mask()
    mask[space.of("conv1")[row]] = False
    others = [other for other in range(len(parent.labels)) if other != row]
    tensors = {
        "mask": torch.from_numpy(mask).to(torch.uint8),
        "relevance": torch.linspace(0, 1, space.slots).half(),
        "head.weight": torch.stack([head.weight[row], head.weight[others].mean(0)]),
        "head.bias": torch.stack([head.bias[row], head.bias[others].mean(0)]),
    }
    slug = slug_of(label)
    price = cost(trunk)
    manifest = ModuleManifest(
        label=label,
        slug=slug,
        aliases=(f"{label} (pico)",),
        ontology_id=None,
        form="delta",
        parent=parent,
        trunk=trunk_info,
        method=MethodInfo(name="by-hand", parameters={"cut": 1}, paper=None),
        input=INPUT,
        calibration=Calibration(kind="margin", parameters=CALIBRATION),
        measurement=Measurement(
            dataset="pets",
            split="train",
            positives=10,
            negatives=20,
            values={"recall": 0.9, "precision": 0.8},
        ),
        sizes=Sizes(
            kept_channels=space.slots - 1,
            channels=space.slots,
            kept_parameters=price.parameters - 1,
            parameters=price.parameters,
            flops=price.flops - 1,
            parent_flops=price.flops,
        ),
        tensors=FileInfo.of(f"modules/{slug}/module.safetensors", tensor_bytes(tensors)),
        provenance=Provenance(tool="modhub", tool_version="0.1.0", seed=0, date=None, environment={}),
        license=parent.license,
    )
    return ClassModule(manifest, tensors)
