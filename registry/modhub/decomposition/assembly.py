"""From what a method found to manifests with digests: a module set, ready to be written or composed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modhub import __version__
from modhub.artifact.modules import ClassModule, Decomposition, ModuleDraft, ModuleSet, tensor_bytes
from modhub.artifact.tensors import ModuleTensors, TensorType, TrunkTensors, required_head, required_tensors
from modhub.calibration.calibrator import BY_MARGIN, BY_ODDS
from modhub.decomposition.parent import Parent
from modhub.errors import IntegrityError, ManifestError, MethodError
from modhub.labels import slugs_of
from modhub.manifest import (
    MANIFEST_NAME,
    Calibration,
    FileInfo,
    ModuleEntry,
    ModuleManifest,
    ParentInfo,
    Provenance,
    RepositoryManifest,
    TrunkInfo,
)
from modhub.nets import ChannelSpace, Network, channel_space, cost
from modhub.pruning.statistics import read_statistics
from modhub.text import pretty_json


def assemble(
    parent: Parent,
    decomposition: Decomposition,
    *,
    seed: int = 0,
    date: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ModuleSet:
    """Every manifest, path and digest of `decomposition`: the same inputs give the same bytes.

    `date` is ISO 8601; `environment` says with which versions it was
    made (None: torch's). Raises `MethodError` for a draft that no composer could use.
    """
    space = channel_space(parent.trunk)
    for draft in decomposition.modules:
        # A method may be anyone's: what would only fail when it is composed fails here.
        _check_tensors(draft, parent, space, decomposition.statistics, decomposition.method.name)
        _check_calibration(draft, parent, decomposition.statistics, decomposition.method.name)
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
            aliases=tuple(parent.aliases.get(draft.label, ())),
            ontology_id=parent.ontology.get(draft.label),
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
        path = f"modules/{slug}/module.json"
        entries.append(ModuleEntry.of(manifest, FileInfo.of(path, _checked_manifest(manifest, path, draft))))
    whole = RepositoryManifest(
        parent=about,
        trunk=trunk,
        input=parent.input,
        method=decomposition.method,
        license=parent.license,
        modules=tuple(entries),
    )
    try:
        RepositoryManifest.from_bytes(whole.to_bytes(), MANIFEST_NAME)
    except ManifestError as error:
        raise MethodError(
            f"The method '{decomposition.method.name}' made modules that cannot be listed: {error.message}",
            hint=_HINT,
        ) from None
    return ModuleSet(whole, parent.trunk, decomposition.statistics, tuple(modules))


def _check_tensors(
    draft: ModuleDraft, parent: Parent, space: ChannelSpace, statistics: Mapping[str, Tensor], method: str
) -> None:
    graph = parent.trunk.graph
    required = required_tensors(draft.tensors, graph, space.slots)
    for key, type_ in required.items():
        tensor: object = draft.tensors.get(key)
        if type_ is None:
            value = key.partition(".")[2]
            raise _unfit(method, draft, f"a tensor '{key}', but its parent has no value '{value}'")
        if not isinstance(tensor, Tensor) or TensorType.of(tensor) != type_:
            raise _unfit(method, draft, f"{_described(tensor)} as '{key}'; its parent asks for {type_}")
    for key, tensor in draft.tensors.items():
        if not isinstance(tensor, Tensor):
            raise _unfit(method, draft, f"{_described(tensor)} as '{key}'; it should be a tensor")
        if not bool(torch.isfinite(tensor).all()):
            raise _unfit(method, draft, f"numbers in '{key}' that are not finite")
        if tensor.dtype == torch.uint8 and key in required and int(tensor.max()) > 1:
            raise _unfit(method, draft, f"values in '{key}' that are neither 0 nor 1")
    try:
        read_statistics(
            ModuleTensors.from_dict(draft.tensors).statistics,
            TrunkTensors.from_dict(statistics).correlations,
            graph,
            space,
        )
    except IntegrityError as error:
        raise _unfit(method, draft, f"statistics that do not fit: {error.message.rstrip('.')}") from None


def _check_calibration(
    draft: ModuleDraft, parent: Parent, statistics: Mapping[str, Tensor], method: str
) -> None:
    calibration: object = draft.calibration
    kind = calibration.kind if isinstance(calibration, Calibration) else _described(calibration)
    if kind not in (BY_MARGIN, BY_ODDS):
        raise _unfit(method, draft, f"'{kind}' as its calibration, which no composer knows")
    for key, type_ in required_head(*parent.head.weight.shape).items():
        if kind == BY_ODDS and (key not in statistics or tuple(statistics[key].shape) != type_.shape):
            raise _unfit(
                method,
                draft,
                f"the calibration '{kind}', but not with {list(type_.shape)} as the statistic '{key}'",
            )


def _checked_manifest(manifest: ModuleManifest, path: str, draft: ModuleDraft) -> bytes:
    """Its bytes, if they can be read again. Raises `MethodError`."""
    try:
        content = manifest.to_bytes()
        ModuleManifest.from_bytes(content, path)
    except ManifestError as error:
        raise _unfit(
            manifest.method.name, draft, f"a manifest that is none: {error.message.rstrip('.')}"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise _unfit(manifest.method.name, draft, f"values that cannot be written: {error}") from error
    return content


def _unfit(method: str, draft: ModuleDraft, what: str) -> MethodError:
    return MethodError(
        f"The method '{method}' made '{draft.label}' with {what}.",
        hint=_HINT,
    )


_HINT = "What a module needs is in docs/writing-a-method.md."


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return str(TensorType.of(value))
    return "nothing" if value is None else f"a {type(value).__name__}"


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
