"""A class module and the set of modules of one parent, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from safetensors.torch import save

from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.energy import EnergyUse
from modhub.manifest import (
    Calibration,
    Measurement,
    MethodInfo,
    ModuleManifest,
    RepositoryManifest,
    Sizes,
)
from modhub.nets import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleDraft:
    """What a decomposition method says about one class, before any file or digest exists."""

    label: str
    tensors: Mapping[str, torch.Tensor]
    calibration: Calibration
    measurement: Measurement | None
    sizes: Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """All drafts of one parent. `statistics` are pooled over the classes and belong to the trunk.

    `images` were looked at, in `seconds` of wall-clock time. `misread` says why the parent is likely
    described wrongly, None where it is not.
    """

    method: MethodInfo
    modules: tuple[ModuleDraft, ...]
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    misread: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ClassModule:
    """One class of one parent: its manifest and the tensors of its `module.safetensors`.

    `tensors` are by key, as in the file; `parsed` has them by meaning.
    """

    manifest: ModuleManifest
    tensors: Mapping[str, torch.Tensor]

    @property
    def label(self) -> str:
        """The class it answers for."""
        return self.manifest.label

    @property
    def parsed(self) -> ModuleTensors:
        """The tensors by meaning. Raises `IntegrityError` when mask or head are missing."""
        place = f"The module '{self.label}' of '{self.manifest.parent.name}'"
        return ModuleTensors.from_dict(self.tensors, place)

    def __repr__(self) -> str:
        return f"<ClassModule {self.label!r} of {self.manifest.parent.name!r}>"


@dataclass(frozen=True, slots=True, repr=False)
class ModuleSet:
    """The modules of one parent with the trunk they share, as they stand in one repository."""

    manifest: RepositoryManifest
    trunk: Network
    statistics: Mapping[str, torch.Tensor]
    modules: tuple[ClassModule, ...]

    @property
    def shared(self) -> TrunkTensors:
        """The trunk's `statistics` by meaning."""
        return TrunkTensors.from_dict(self.statistics)

    def module(self, name: str) -> ClassModule:
        """The module that answers to `name`. Raises `NotFoundError` with the nearest names."""
        entry = self.manifest.module(name)
        return next(module for module in self.modules if module.manifest.slug == entry.slug)

    def made_with(self, energy: EnergyUse) -> ModuleSet:
        """The same modules, whose manifest says what making them took."""
        return replace(self, manifest=replace(self.manifest, energy=energy))

    def __repr__(self) -> str:
        labels = ", ".join(module.label for module in self.modules[:10])
        more = f", … ({len(self.modules)})" if len(self.modules) > 10 else ""
        return f"<ModuleSet of {self.manifest.parent.name!r}: {labels}{more}>"


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The safetensors file of `tensors`: equal tensors give equal bytes, whatever their order."""
    return bytes(save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}))
