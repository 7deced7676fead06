"""The simplest method that looks at images, to compare with, and to start an own one from.

modhub decompose PARENT --method benchmarks/activity.py:Activity --method-option share=0.8 …
"""

from __future__ import annotations

import numpy as np

from modhub.artifact.modules import Decomposition
from modhub.data import ImageSet
from modhub.decomposition import DecomposeOptions, Parent, Workbench
from modhub.reporter import Reporter

__all__ = ["Activity"]


class Activity:
    """Keeps of every group of channels the `share` with the largest mean square on images of the class."""

    name = "activity"
    paper: str | None = None

    def __init__(self, share: float = 0.9) -> None:
        self.share = share

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
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
            drafts.append(bench.draft(row, mask, statistics))
        return bench.finished(self, drafts, {"share": self.share})
