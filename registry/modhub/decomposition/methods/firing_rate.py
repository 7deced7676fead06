"""Class-aware pruning by firing rates, without training.

M. Hemmat, J. San Miguel, A. Davoodi, *CAP'NN: Class-Aware Personalized Neural Network Inference*, DAC 2020,
https://doi.org/10.1109/DAC18072.2020.9218741. A channel's firing rate for a class is the mean share of
positions at which it is above 0. From the last layers to the first, each group of channels has a threshold
that starts high and is lowered until the loss of the class, with the slots below it gone, stays in the limit
(--max-loss) on held-out images. CAP'NN lowers it step by step; here the steps are searched in halves. What is
gone is made up for by the statistics of the class, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench
    from modhub.nets import ChannelSpace, Mask


_NEGATIVES = 100
"""Images of other classes that a threshold is judged on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringRate(WorkbenchMethod):
    """Removes the channels that fire least for the class, layer by layer, to --max-loss."""

    start: float = option(0.5, "Threshold of the firing rate to begin with.", minimum=0, maximum=1)
    steps: int = option(7, "Steps in which it is lowered to nothing.", minimum=1, maximum=1000)
    name: ClassVar[str] = "firing_rate"
    paper: ClassVar[str | None] = "https://doi.org/10.1109/DAC18072.2020.9218741"
    citation: ClassVar[str | None] = (
        "M. Hemmat, J. San Miguel, A. Davoodi, CAP'NN: Class-Aware Personalized Neural Network Inference, "
        "DAC 2020"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "some passes of held-out images per class and layer; the network needs ReLUs"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.firing import firing_rates

        rates = firing_rates(bench)
        thresholds = np.linspace(0, self.start, self.steps + 1)
        drafts = []
        for row in bench.reporter.track(bench.rows, "lower thresholds", len(bench.rows)):
            statistics = bench.statistics(row)
            calibration = bench.validation.calibration(row)
            keeps = bench.validation.judge(row, statistics, calibration, negatives=_NEGATIVES)
            mask = lowered_thresholds(rates[row].positions, bench.space, thresholds, keeps)
            drafts.append(bench.draft(row, mask, statistics, relevance=rates[row].positions))
        return drafts


def lowered_thresholds(
    rates: NDArray[np.float64],
    space: ChannelSpace,
    thresholds: NDArray[np.float64],
    keeps: Callable[[Mask], bool],
) -> Mask:
    """(slots,) what is left when each group, the last first, loses its slots of `rates` (slots,) below the
    highest of the rising `thresholds` with which `keeps` still holds, given the groups before it."""
    mask = space.full_mask()
    for group in reversed(space.groups):
        if not group.cuttable:
            continue
        choices: list[Mask] = [mask]
        for threshold in thresholds:
            part = mask.copy()
            part[group.slots] = rates[group.slots] >= threshold
            part = space.close(part)
            if (part != choices[-1]).any():
                choices.append(part)
        fewest, most = 0, len(choices) - 1
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if keeps(choices[middle]):
                fewest = middle
            else:
                most = middle - 1
        mask = choices[fewest]
    return mask
