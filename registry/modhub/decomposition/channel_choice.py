"""The default method: per class, the channels its margin depends on, to a loss budget validated on other
images.

One pass over a few hundred images per class collects moments and sensitivities (L. Theis et al., *Faster gaze
prediction with dense networks and Fisher pruning*, 2018, https://arxiv.org/abs/1801.05787, §2.1). They
order the channels (`modhub.pruning.order`; B. Hassibi, D. Stork, *Second order derivatives for network
pruning: Optimal Brain Surgeon*, NIPS 1993); the longest prefix of the order is removed whose loss, with
the removed channels replaced by affine maps of the kept ones (`modhub.pruning.compensation`), stays in the
budget, and that hardly moves the class's margins. Nothing is trained, and a module carries its statistics,
so that a composer can choose channels again for any set of classes. It grew out of observing what a class
activates (R. Pan, H. Rajan, 2022, https://arxiv.org/abs/2110.07720, §3).

Where a large trunk meets many classes, channels are ordered by their initial saliency, and the loss is
validated for some classes only (`examine`); the others reuse the threshold found: the saliency, in squared
log-odds, of the last channel that those could lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhub.decomposition.workbench import Assessment, Workbench
from modhub.manifest import Calibration, Measurement, Sizes
from modhub.manifest.fields import Fields
from modhub.nets import Mask
from modhub.pruning.order import PruningOrder, QuickOrder, mask_after, order_work, pruning_order, slot_costs
from modhub.pruning.statistics import ClassStatistics, observed_values

ORDER_WORK = 100_000_000_000
"""Numbers that ordering the channels of all classes may change before initial saliencies have to do."""
_VALIDATED = 16
"""Classes whose loss is validated where initial saliencies have to do."""
_CAUTIOUS = 0.25
"""Quantile of the thresholds found that the other classes reuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChoice:
    """The channels of one class. `saliency` is that of the last channel removed, in squared log-odds; None
    where it was not validated on images."""

    mask: Mask
    assessment: Assessment
    saliency: float | None

    def notes(self) -> dict[str, Any]:
        """All but the mask, for a checkpoint."""
        measurement = self.assessment.measurement
        return {
            "calibration": self.assessment.calibration.to_dict(),
            "measurement": None if measurement is None else measurement.to_dict(),
            "sizes": self.assessment.sizes.to_dict(),
            "saliency": self.saliency,
        }

    @classmethod
    def of(cls, mask: Tensor, notes: Mapping[str, Any]) -> ChannelChoice:
        """From a checkpoint."""
        measured = notes["measurement"]
        assessment = Assessment(
            calibration=Calibration.from_dict(Fields(notes["calibration"], "calibration")),
            measurement=None if measured is None else Measurement.from_dict(Fields(measured, "measurement")),
            sizes=Sizes.from_dict(Fields(notes["sizes"], "sizes")),
        )
        return cls(mask=mask.bool().numpy(), assessment=assessment, saliency=notes["saliency"])


class ChannelChoices:
    """Chooses the channels of every class on a workbench."""

    def __init__(self, bench: Workbench) -> None:
        self.bench, self.observations = bench, bench.observations
        trunk, space = bench.parent.trunk, bench.space
        self.costs = slot_costs(trunk, space)
        work = len(bench.rows) * order_work(space, observed_values(trunk.graph, space))
        self.quick: QuickOrder | None = None
        if not self.observations.per_class and work > ORDER_WORK:
            self.quick = QuickOrder(self.observations.matrices, space, self.costs)

    def choices(self) -> dict[int, ChannelChoice]:
        """By row: first those that are validated, then the others, which reuse their threshold."""
        rows = self.bench.rows
        limit = self.bench.options.examine or (_VALIDATED if self.quick else len(rows))
        spread = np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int)
        first = [rows[place] for place in dict.fromkeys(spread.tolist())]
        with self.bench.reporter.step("choose channels", len(rows)):
            choices = self._shared_out(first, None)
            saliencies = [choice.saliency for choice in choices.values() if choice.saliency is not None]
            threshold = float(np.quantile(saliencies, _CAUTIOUS)) if saliencies else 0.0
            choices.update(self._shared_out([row for row in rows if row not in choices], threshold))
        return choices

    def _shared_out(self, rows: list[int], threshold: float | None) -> dict[int, ChannelChoice]:
        """The choices for `rows`, each made by one of the processes, known to all."""
        workers = self.bench.workers
        mine: dict[int, ChannelChoice] = {}
        for number, row in enumerate(rows):
            if workers.mine(number):
                mine[row] = self._saved(row, threshold)
                self.bench.reporter.advance(min(workers.size, len(rows) - number))
        return {row: choice for part in workers.gather(mine) for row, choice in part.items()}

    def _saved(self, row: int, threshold: float | None) -> ChannelChoice:
        checkpoint, name = self.bench.checkpoint, f"choice-{row}"
        saved = checkpoint.load(name)
        if saved is not None:
            return ChannelChoice.of(saved[0]["mask"], saved[1])
        choice = self._choice(row, threshold)
        checkpoint.save(name, {"mask": torch.from_numpy(choice.mask)}, choice.notes())
        return choice

    def _choice(self, row: int, threshold: float | None) -> ChannelChoice:
        bench, validation = self.bench, self.bench.validation
        # The slope turns a squared error of the margin into one of log-odds, which compares between classes.
        scale = validation.calibrator.slope(row) ** 2
        if threshold is not None:
            order = self._order(row, bench.statistics(row, covariances=self.quick is None))
            count = int(np.searchsorted(order.saliency * scale, threshold, side="right"))
            mask = mask_after(order, count, bench.space)
            return ChannelChoice(mask=mask, assessment=bench.assess(row, mask, measured=False), saliency=None)
        statistics = bench.statistics(row)
        order = self._order(row, statistics)
        count = validation.longest_prefix(row, statistics, order, validation.calibration(row))
        mask = mask_after(order, count, bench.space)
        return ChannelChoice(
            mask=mask,
            assessment=bench.assess(row, mask, statistics),
            saliency=float(order.saliency[count - 1] * scale) if count else 0.0,
        )

    def _order(self, row: int, statistics: ClassStatistics) -> PruningOrder:
        if self.quick is None:
            return pruning_order(statistics, self.bench.space, self.costs)
        return self.quick.order(self.observations.deviations(row), statistics.sensitivity)
