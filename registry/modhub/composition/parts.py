"""What a composition is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from modhub.artifact.modules import ClassModule, ModuleSet, tensor_bytes
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.errors import CompositionError
from modhub.files import sha256_of_bytes
from modhub.nets import Network


@dataclass(frozen=True, slots=True)
class Part:
    """One module with the trunk it stands on.

    `statistics` are the trunk's shared ones; `label` is the class's name in the composed classifier, the
    module's own when None.
    """

    module: ClassModule
    trunk: Network
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    label: str | None = None

    @property
    def tensors(self) -> ModuleTensors:
        """The module's tensors by meaning. Raises `IntegrityError` when mask or head are missing."""
        return self.module.parsed

    @property
    def shared(self) -> TrunkTensors:
        """The trunk's `statistics` by meaning."""
        return TrunkTensors.from_dict(self.statistics)

    @property
    def name(self) -> str:
        """The class's name in the composed classifier."""
        return self.module.label if self.label is None else self.label

    @property
    def aliases(self) -> tuple[str, ...]:
        """What the class is called elsewhere: its module's label and aliases."""
        manifest = self.module.manifest
        return (manifest.label, *manifest.aliases)

    @property
    def parent(self) -> str:
        """The content id of the parent whose head the module's row comes from."""
        return self.module.manifest.parent.sha256

    @property
    def head(self) -> str:
        """Modules with the same one are ranked by their margins alone: those of one parent's head. A taught
        class has its own, because its row was fitted without those of others that were taught."""
        manifest = self.module.manifest
        return self.parent if manifest.label in manifest.parent.labels else manifest.tensors.sha256


def parts_of(modules: ModuleSet, labels: Sequence[str] | None = None) -> list[Part]:
    """The modules of a set that answer to `labels` (None: all), in that order. Raises `NotFoundError`."""
    wanted = modules.modules if labels is None else [modules.module(label) for label in labels]
    return [Part(module, modules.trunk, modules.statistics) for module in wanted]


def distinct_parts(parts: Sequence[Part]) -> tuple[Part, ...]:
    """`parts` without repetitions. Raises `CompositionError` for none, and for two that share a label."""
    if not parts:
        raise CompositionError("There are no modules to compose.", hint="Name at least one.")
    by_name: dict[str, Part] = {}
    for part in parts:
        earlier = by_name.setdefault(part.name, part)
        if earlier is not part and not _same(earlier, part):
            raise CompositionError(
                f"Two modules answer for '{part.name}': one of '{earlier.module.manifest.parent.name}' and "
                f"one of '{part.module.manifest.parent.name}'.",
                hint="Give one of them another label, or leave it out.",
            )
    return tuple(by_name.values())


def _same(first: Part, other: Part) -> bool:
    return first.module is other.module or (
        first.module.manifest == other.module.manifest
        and sha256_of_bytes(tensor_bytes(first.module.tensors))
        == sha256_of_bytes(tensor_bytes(other.module.tensors))
    )
