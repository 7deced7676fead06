"""From what a method found to manifests with digests: a module set, ready to be written or composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modhub import __version__
from modhub.decompose.base import Parent
from modhub.errors import CompositionError
from modhub.files import pretty_json
from modhub.manifest import (
    FileInfo,
    ModuleEntry,
    ModuleManifest,
    ParentInfo,
    Provenance,
    RepositoryManifest,
    TrunkInfo,
)
from modhub.modules import ClassModule, Decomposition, ModuleDraft, ModuleSet, tensor_bytes
from modhub.nets import Network, channel_space, cost
from modhub.refs import slugs_of

__all__ = ["assemble", "trunk_info"]


def assemble(
    parent: Parent,
    decomposition: Decomposition,
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    ontology: Mapping[str, str] | None = None,
    seed: int = 0,
    date: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ModuleSet:
    """Every manifest, path and digest of `decomposition`: the same inputs give the same bytes.

    `aliases` and `ontology` are by label. `date` is ISO 8601; `environment` says with which versions it was
    made (None: torch's). Raises `CompositionError` for a draft that no composer could use.
    """
    slots = channel_space(parent.trunk).slots
    for draft in decomposition.modules:
        _check_draft(draft, slots, parent.trunk.graph.features, decomposition.method.name)
    trunk = trunk_info(parent.trunk, decomposition.statistics, "trunk", parent.trunk.sha256)
    about = ParentInfo(
        name=parent.name,
        architecture=parent.architecture,
        sha256=parent.sha256,
        labels=parent.labels,
        license=parent.license,
        dataset=parent.dataset,
    )
    provenance = Provenance(
        tool="modhub",
        tool_version=__version__,
        seed=seed,
        date=date,
        environment={"torch": torch.__version__} if environment is None else dict(environment),
    )
    slugs = slugs_of(draft.label for draft in decomposition.modules)
    modules, entries = [], []
    for draft, slug in zip(decomposition.modules, slugs, strict=True):
        tensors = FileInfo.of(f"modules/{slug}/module.safetensors", tensor_bytes(draft.tensors))
        manifest = ModuleManifest(
            label=draft.label,
            slug=slug,
            aliases=tuple((aliases or {}).get(draft.label, ())),
            ontology_id=(ontology or {}).get(draft.label),
            form="delta",
            parent=about,
            trunk=trunk,
            method=decomposition.method,
            input=parent.input,
            calibration=draft.calibration,
            measurement=draft.measurement,
            sizes=draft.sizes,
            tensors=tensors,
            provenance=provenance,
            license=parent.license,
        )
        modules.append(ClassModule(manifest, draft.tensors))
        entries.append(
            ModuleEntry.of(manifest, FileInfo.of(f"modules/{slug}/module.json", manifest.to_bytes()))
        )
    whole = RepositoryManifest(
        parent=about,
        trunk=trunk,
        input=parent.input,
        method=decomposition.method,
        license=parent.license,
        modules=tuple(entries),
    )
    return ModuleSet(whole, parent.trunk, decomposition.statistics, tuple(modules))


def _check_draft(draft: ModuleDraft, slots: int, features: int, method: str) -> None:
    """A method may be anyone's: what would only fail when it is composed fails here."""
    wanted = {"mask": (slots,), "head.weight": (2, features), "head.bias": (2,)}
    for key, shape in wanted.items():
        found = tuple(draft.tensors[key].shape) if key in draft.tensors else None
        if found != shape:
            raise CompositionError(
                f"The method '{method}' made '{draft.label}' with {found or 'no tensor'} as '{key}'; its "
                f"parent asks for {shape}.",
                hint=_HINT,
            )
    for key, tensor in draft.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CompositionError(
                f"The method '{method}' made '{draft.label}' with numbers in '{key}' that are not finite.",
                hint=_HINT,
            )


_HINT = "What a module needs is in docs/writing-a-method.md."


def trunk_info(trunk: Network, statistics: Mapping[str, Tensor], directory: str, name: str) -> TrunkInfo:
    """What manifests say of a trunk whose files stand in `directory`, its tensors under `name`."""
    price = cost(trunk)
    place = f"{directory}/{name}"
    return TrunkInfo(
        sha256=trunk.sha256,
        graph=FileInfo.of(f"{directory}/graph.json", pretty_json(trunk.graph.to_dict())),
        weights=FileInfo.of(f"{place}.safetensors", tensor_bytes(trunk.tensors)),
        statistics=FileInfo.of(f"{place}.statistics.safetensors", tensor_bytes(statistics))
        if statistics
        else None,
        features=trunk.graph.features,
        parameters=price.parameters,
        flops=price.flops,
    )
