"""Synthetic images of modules, made when they are first needed and kept for other sets and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.synthesis import SynthesisTarget, synthesize_images
from modhub.devices import CPU
from modhub.manifest import InputSpec
from modhub.nets import Network, cost, value_bytes
from modhub.reporter import SILENT, Reporter


class ImageSynthesizer:
    """Keeps what it made. Images of a target do not depend on the other targets asked for beside it."""

    def __init__(
        self, seed: int = 0, device: torch.device = CPU, settings: FitSettings = DEFAULT_SETTINGS
    ) -> None:
        self.seed, self.device, self.settings = seed, device, settings
        self._images: dict[tuple[str, int], Tensor] = {}

    def images(
        self,
        trunk: Network,
        spec: InputSpec,
        targets: Mapping[str, SynthesisTarget],
        reporter: Reporter = SILENT,
    ) -> Tensor:
        """Normalised images (count, channels, height, width) on the CPU, as many for each target,
        interleaved.

        `trunk` has its batch-norms fused; `targets` go by sha256 ids that name the trunk, too.
        """
        count = self._count(trunk, targets)
        new = {id_: target for id_, target in targets.items() if (id_, count) not in self._images}
        title, total = "synthesize images", self.settings.synthesis_steps * len(new)
        with reporter.step(title, total) if new else nullcontext():
            for id_, target in new.items():
                self._images[id_, count] = synthesize_images(
                    trunk,
                    spec,
                    target,
                    count,
                    self.seed * 1_000_003 + target.seed,
                    reporter,
                    device=self.device,
                    settings=self.settings,
                )
        return torch.stack([self._images[id_, count] for id_ in targets], 1).flatten(0, 1)

    def _count(self, trunk: Network, targets: Mapping[str, SynthesisTarget]) -> int:
        """Images of each target, as many as work and memory allow."""
        settings = self.settings
        # A step is a pass forward and one back, which costs twice as much.
        work = 3 * settings.synthesis_steps * cost(trunk).flops * len(targets)
        affordable = int(
            min(settings.synthesis_work / max(work, 1), settings.synthesis_memory / value_bytes(trunk.graph))
        )
        wanted = settings.synthetic_images
        if len(targets) > 1 or next(iter(targets.values())).rows is not None:
            wanted = min(-(-wanted // len(targets)), settings.synthetic_per_target)
        return max(settings.synthetic_fewest, min(wanted, affordable))
