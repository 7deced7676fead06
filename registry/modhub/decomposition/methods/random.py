"""The control: channels that go at random. A method that does no better has found nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class Random(WorkbenchMethod):
    """Keeps channels at random, the same ones for every class: the control for all other methods."""

    share: float = option(0.9, "Share of the channels that are kept.", minimum=0, maximum=1)
    name: ClassVar[str] = "random"
    paper: ClassVar[str | None] = None
    citation: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "nothing but the statistics of the classes"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.pruning.baselines import best_slots, random_order

        # Every class alike: else a composition of several keeps nearly all.
        order = random_order(bench.space, bench.options.seed)
        worth = np.ones(bench.space.slots)
        worth[order.slots] = np.linspace(0, 1, len(order.slots), endpoint=False)
        mask = best_slots(worth, bench.space, self.share)
        return [bench.draft(row, mask, bench.statistics(row), relevance=worth) for row in bench.rows]
