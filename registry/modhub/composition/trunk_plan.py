"""The modules of one trunk, and the slim network that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from modhub.artifact.tensors import unite_positions
from modhub.composition.classifier import TrunkPass, TrunkReport
from modhub.composition.head_density import head_densities
from modhub.composition.heads import JoinedHead
from modhub.composition.part_tensors import StackedRows, head_tensors
from modhub.composition.parts import Part
from modhub.composition.rejection import class_gaussians, texture_distance
from modhub.devices import CPU
from modhub.manifest import InputSpec
from modhub.nets import (
    ChannelSpace,
    Mask,
    Network,
    channel_space,
    cost,
    fuse_batch_norm,
    mask_positions,
)
from modhub.pruning.compensation import cut
from modhub.pruning.statistics import ClassStatistics, pooled_statistics, read_statistics


def trunk_plans(
    parts: Sequence[Part], device: torch.device = CPU, *, reject: bool = False
) -> list[TrunkPlan]:
    """`parts` by trunk and, inside, by head; the result does not depend on their order.

    Parents that prepare images in other ways see other images, and share no pass.
    """
    groups: dict[tuple[str, InputSpec], dict[str, list[Part]]] = {}
    for part in sorted(parts, key=lambda part: (part.module.manifest.trunk.sha256, part.head, part.name)):
        trunk = part.module.manifest.trunk.sha256, part.module.manifest.input
        groups.setdefault(trunk, {}).setdefault(part.head, []).append(part)
    return [
        TrunkPlan(tuple(tuple(head) for head in heads.values()), device, reject=reject)
        for heads in groups.values()
    ]


@dataclass(frozen=True, slots=True)
class SlimTrunk:
    """A trunk cut to `mask` (slots,), batch-norms fused, and every row of its heads (see `StackedRows`):
    `weight` (rows, kept features), `bias` (rows,)."""

    network: Network
    mask: Mask
    weight: Tensor
    bias: Tensor
    report: TrunkReport


@dataclass(frozen=True)
class TrunkPlan:
    """The modules that share one trunk, by head; what is fitted is fitted on `device`."""

    heads: tuple[tuple[Part, ...], ...]
    device: torch.device = CPU
    observed: ClassStatistics | None = None
    """Statistics of images to fit on, in place of those that the modules carry."""
    reject: bool = False
    """Whether its passes are to say which images are of none of their classes."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for head in self.heads for part in head)

    @property
    def trunk(self) -> Network:
        return self.parts[0].trunk

    @property
    def spec(self) -> InputSpec:
        return self.parts[0].module.manifest.input

    @property
    def has_position_masks(self) -> bool:
        """Whether a module keeps some positions of a value only; such a trunk is not fitted."""
        return any(part.tensors.position_masks for part in self.parts)

    @cached_property
    def space(self) -> ChannelSpace:
        return channel_space(self.trunk)

    @cached_property
    def statistics(self) -> ClassStatistics | None:
        """Pooled over the modules; None when one of them carries none."""
        if self.observed is not None:
            return self.observed
        statistics = self.class_statistics()
        return None if statistics is None else pooled_statistics(statistics)

    @property
    def unmeasured(self) -> bool:
        """Whether a module keeps all channels and does not say which of them it needs: nobody had images."""
        return any(
            not part.tensors.statistics and part.tensors.relevance is None and bool(part.tensors.mask.all())
            for part in self.parts
        )

    def class_statistics(self) -> list[ClassStatistics] | None:
        """One per module, in their order; None when one of them carries none."""
        statistics = [
            read_statistics(part.tensors.statistics, part.shared.correlations, self.trunk.graph, self.space)
            for part in self.parts
        ]
        present = [of_class for of_class in statistics if of_class is not None]
        return present if len(present) == len(statistics) else None

    @cached_property
    def rows(self) -> StackedRows:
        """The rows of all heads on the features of the unpruned trunk."""
        return StackedRows.of([head_tensors(head) for head in self.heads])

    @cached_property
    def unpruned(self) -> TrunkPass:
        """The trunk with all its channels, by whose answers slim networks are fitted."""
        return self.compile(self.space.full_mask())

    def kept_features(self, mask: Mask) -> Tensor:
        """Which of the unpruned trunk's features, or of their channels, are left in `mask`: indices."""
        return torch.from_numpy(np.flatnonzero(mask[self.space.of(self.trunk.graph.output)]))

    def compile(self, mask: Mask) -> TrunkPass:
        """The trunk cut to `mask` with the joined heads, nothing fitted."""
        return self.join(self.cut(mask))

    def cut(self, mask: Mask) -> SlimTrunk:
        """The trunk cut to `mask`, removed channels folded into what reads them."""
        dense, space = positioned(self.trunk, self.parts), self.space
        if dense is not self.trunk:
            # Channel slots survive position masks; only the values' names change.
            space = channel_space(dense)
        statistics = self.statistics if dense is self.trunk and not mask.all() else None
        sliced, weight, bias = cut(dense, mask, space, statistics, self.rows.weight, self.rows.bias)
        return SlimTrunk(fuse_batch_norm(sliced), mask, weight, bias, self._report(sliced, mask))

    def join(self, slim: SlimTrunk) -> TrunkPass:
        """The pass of a slim trunk of these modules and their heads."""
        heads = [
            JoinedHead(
                replace(tensors, density=density, texture=texture_distance(head) if self.reject else None),
                head[0].tensors.head_tail,
            )
            for tensors, head, density in zip(
                self.rows.split(slim.weight, slim.bias),
                self.heads,
                head_densities(self.heads, slim.mask),
                strict=True,
            )
        ]
        trunk_pass = TrunkPass(slim.network, self.spec, heads, slim.report)
        if self.reject:
            trunk_pass.gaussians = [
                None if joined.texture is not None else class_gaussians(head, slim.mask)
                for joined, head in zip(heads, self.heads, strict=True)
            ]
        return trunk_pass

    def _report(self, sliced: Network, mask: Mask) -> TrunkReport:
        part, unpruned = cost(sliced), cost(self.trunk)
        names = dict.fromkeys(head[0].module.manifest.parent.name for head in self.heads)
        return TrunkReport(
            parent=" + ".join(names),
            kept_channels_fraction=float(mask.mean()) if len(mask) else 1.0,
            kept_params_fraction=part.parameters / max(unpruned.parameters, 1),
            flops=part.flops,
            parent_flops=unpruned.flops,
        )


def positioned(trunk: Network, parts: Sequence[Part]) -> Network:
    """The trunk with position masks united: a position is alive where any module keeps it."""
    masks = unite_positions([part.tensors.position_masks for part in parts])
    return mask_positions(trunk, masks) if masks else trunk
