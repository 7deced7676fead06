"""One module on a trunk of its own: for sharing one class without the rest of its parent."""

from __future__ import annotations

from dataclasses import replace

import torch

from modhub.artifact.modules import ClassModule, ModuleSet, tensor_bytes
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.decomposition.assembly import trunk_info
from modhub.manifest import FileInfo, ModuleEntry, RepositoryManifest
from modhub.nets import channel_space, mask_positions
from modhub.pruning.compensation import cut
from modhub.pruning.statistics import read_statistics


def standalone(modules: ModuleSet, name: str) -> ModuleSet:
    """The module that answers to `name` with its channels cut out of the trunk, and nothing else of it.

    Composed alone it scores as the delta module composed alone. It cannot be cut further or share a pass with
    its former siblings. Raises `NotFoundError` for an unknown name.
    """
    module = modules.module(name)
    parts, known = module.parsed, modules.shared
    space = channel_space(modules.trunk)
    statistics = read_statistics(parts.statistics, known.correlations, modules.trunk.graph, space)
    # The parent's whole head goes along: the log-odds of the class are odds against its siblings.
    weight, bias = parts.head_weight, parts.head_bias
    whole_head = known.parent_weight is not None and known.parent_bias is not None
    if known.parent_weight is not None and known.parent_bias is not None:
        weight, bias = torch.cat([weight, known.parent_weight]), torch.cat([bias, known.parent_bias])
    masks = {value: alive.bool() for value, alive in parts.position_masks.items()}
    dense = mask_positions(modules.trunk, masks) if masks else modules.trunk
    mask = parts.mask.bool().numpy()
    trunk, weight, bias = cut(dense, mask, channel_space(dense), statistics, weight, bias)
    shared = TrunkTensors(parent_weight=weight[2:], parent_bias=bias[2:]).to_dict() if whole_head else {}
    tensors = ModuleTensors(
        mask=torch.ones(channel_space(trunk).slots, dtype=torch.uint8),
        head_weight=weight[:2],
        head_bias=bias[:2],
        head_tail=parts.head_tail,
    ).to_dict()
    manifest = module.manifest
    place = f"modules/{manifest.slug}"
    manifest = replace(
        manifest,
        form="standalone",
        trunk=trunk_info(trunk, shared, place, "trunk"),
        tensors=FileInfo.of(f"{place}/module.safetensors", tensor_bytes(tensors)),
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
    return ModuleSet(repository, trunk, shared, (ClassModule(manifest, tensors),))
