"""Synthetic images of modules, imagined when they are first asked for and kept for other sets and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from modhub.composition.fitting.synthesis import STEPS, Wish, imagined_images
from modhub.devices import CPU
from modhub.manifest import InputSpec
from modhub.nets import Network, cost, value_bytes
from modhub.reporter import SILENT, Reporter

__all__ = ["Imagination"]

_ALL = 300
"""Images that a trunk is fitted on, at least, where they can be afforded."""
_MOST = 150
"""Images of one wish, at most."""
_FEWEST = 8
_WORK = 6e12
"""Multiply-adds that making all of them may take."""
_MEMORY = 1 << 30
"""Bytes that the values of all images of one wish may take."""


class Imagination:
    """Keeps what it made. Images of a class do not depend on the classes that are asked for beside it."""

    def __init__(self, seed: int = 0, device: torch.device = CPU) -> None:
        self.seed, self.device = seed, device
        self._held: dict[tuple[str, int], Tensor] = {}

    def images(
        self, trunk: Network, spec: InputSpec, wishes: Mapping[str, Wish], reporter: Reporter = SILENT
    ) -> Tensor:
        """Normalised images (count, channels, height, width) on the CPU, as many for each wish, in turns.

        `trunk` has its batch-norms fused; `wishes` go by sha256 ids that name the trunk, too.
        """
        alone = len(wishes) == 1 and next(iter(wishes.values())).rows is None
        wanted = _ALL if alone else min(-(-_ALL // len(wishes)), _MOST)
        count = max(_FEWEST, min(wanted, _affordable(trunk, len(wishes))))
        new = {id_: wish for id_, wish in wishes.items() if (id_, count) not in self._held}
        with reporter.step("imagine images", STEPS * len(new)) if new else nullcontext():
            for id_, wish in new.items():
                seed = self.seed * 1_000_003 + int(id_[:8], 16)
                self._held[id_, count] = imagined_images(
                    trunk, spec, wish, count, seed, reporter, device=self.device
                )
        return torch.stack([self._held[id_, count] for id_ in wishes], 1).flatten(0, 1)


def _affordable(trunk: Network, wishes: int) -> int:
    """How many images of each wish work and memory allow."""
    # A step is a pass forward and one back, which costs twice as much.
    work = 3 * STEPS * cost(trunk).flops * wishes
    return int(min(_WORK / max(work, 1), _MEMORY / value_bytes(trunk.graph)))
