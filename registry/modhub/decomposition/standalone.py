"""One module on a trunk of its own: for sharing one class without the rest of its parent."""

from __future__ import annotations

from dataclasses import replace

import torch

from modhub.artifact.modules import ClassModule, ModuleSet, tensor_bytes
from modhub.artifact.positions import position_masks
from modhub.decomposition.assembly import trunk_info
from modhub.manifest import FileInfo, ModuleEntry, RepositoryManifest
from modhub.nets import channel_space, mask_positions
from modhub.pruning.compensation import cut
from modhub.pruning.statistics import read_statistics

__all__ = ["standalone"]


def standalone(modules: ModuleSet, name: str) -> ModuleSet:
    """The module that answers to `name` with its channels cut out of the trunk, and nothing else of it.

    Composed alone it scores as the delta module composed alone. It cannot be cut further or share a pass with
    its former siblings. Raises `NotFoundError` for an unknown name.
    """
    module = modules.module(name)
    tensors = module.tensors
    space = channel_space(modules.trunk)
    statistics = read_statistics(tensors, modules.statistics, modules.trunk.graph, space)
    # The parent's whole head goes along: the log-odds of the class are odds against its siblings.
    heads = [(tensors["head.weight"], tensors["head.bias"])]
    if "parent.weight" in modules.statistics:
        heads.append((modules.statistics["parent.weight"], modules.statistics["parent.bias"]))
    weight, bias = torch.cat([each[0] for each in heads]), torch.cat([each[1] for each in heads])
    masks = position_masks(tensors)
    dense = mask_positions(modules.trunk, masks) if masks else modules.trunk
    mask = tensors["mask"].bool().numpy()
    trunk, weight, bias = cut(dense, mask, channel_space(dense), statistics, weight, bias)
    shared = {"parent.weight": weight[2:], "parent.bias": bias[2:]} if len(heads) == 2 else {}
    own = {
        "mask": torch.ones(channel_space(trunk).slots, dtype=torch.uint8),
        "head.weight": weight[:2],
        "head.bias": bias[:2],
        **{name: tensors[name] for name in ("head.tail",) if name in tensors},
    }
    manifest = module.manifest
    place = f"modules/{manifest.slug}"
    manifest = replace(
        manifest,
        form="standalone",
        trunk=trunk_info(trunk, shared, place, "trunk"),
        tensors=FileInfo.of(f"{place}/module.safetensors", tensor_bytes(own)),
    )
    entry = ModuleEntry.of(manifest, FileInfo.of(f"{place}/module.json", manifest.to_bytes()))
    repository = RepositoryManifest(
        parent=manifest.parent,
        trunk=None,
        input=manifest.input,
        method=manifest.method,
        license=manifest.license,
        modules=(entry,),
    )
    return ModuleSet(repository, trunk, shared, (ClassModule(manifest, own),))
