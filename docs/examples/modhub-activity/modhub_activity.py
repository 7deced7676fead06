"""The simplest method that looks at images, to start one from.

It runs as a file, with --method modhub_activity.py:Activity, and by its name once the package is installed.
What computes is imported when the method works, so that `modhub methods` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method_options import CheckedOptions, option

if TYPE_CHECKING:
    from modhub.artifact.modules import Decomposition
    from modhub.data import ImageSet
    from modhub.decomposition import DecomposeOptions, Parent
    from modhub.reporter import Reporter

__all__ = ["Activity"]


@dataclass(frozen=True, kw_only=True)
class Activity(CheckedOptions):
    """Keeps of every group of channels those with the largest mean square on images of the class."""

    share: float = option(0.9, "Share of each group's channels that is kept.", minimum=0, maximum=1)
    name: ClassVar[str] = "activity"
    paper: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "one pass over the images"

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        from modhub.decomposition import Workbench

        bench = Workbench(parent, images, options, reporter)
        drafts = []
        for row in reporter.track(bench.rows, "choose channels", len(bench.rows)):
            statistics = bench.statistics(row)
            power = np.zeros(bench.space.slots)
            for value, moments in statistics.moments.items():
                slots = bench.space.of(value)
                there = slots >= 0
                np.add.at(power, slots[there], (moments.mean**2 + moments.variance)[there])
            mask = bench.space.full_mask()
            for group in bench.space.groups:
                if group.cuttable:
                    gone = round((1 - self.share) * group.size)
                    mask[group.start + np.argsort(power[group.slots])[:gone]] = False
            drafts.append(bench.draft(row, mask, statistics, relevance=power))
        return bench.finished(self, drafts, self.parameters())
