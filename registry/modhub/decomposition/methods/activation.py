"""Channels that are active in nearly all images of a class: how MwT and MODA take modules out of a network.

Both train the network for it; this is their rule alone, for any parent (B. Qi et al., *Modularizing while
Training*, ICSE 2024, https://arxiv.org/abs/2306.09376; T. Ngo et al., *DNN Modularization via
Activation-Driven Training*, ICSE 2026, https://arxiv.org/abs/2411.01074). A channel is active in an image
when anything of it fires behind its rectifier. Among channels active in equally many images those count for
more that fire at more positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench


_TIE = 1e-2
"""What a channel's firing at every position counts, in shares of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(WorkbenchMethod):
    """Keeps the channels that are active in most images of the class."""

    share: float = option(
        0.9, "Least share of the class's images in which a channel is active.", minimum=0, maximum=1
    )
    name: ClassVar[str] = "activation"
    paper: ClassVar[str | None] = "arXiv:2411.01074"
    citation: ClassVar[str | None] = (
        "T. Ngo et al., DNN Modularization via Activation-Driven Training (MODA), ICSE 2026"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "one pass over the images; the network needs ReLUs"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.firing import firing_rates

        rates = firing_rates(bench)
        drafts = []
        for row in bench.reporter.track(bench.rows, "choose channels", len(bench.rows)):
            active = rates[row].images
            worth = (active + _TIE * rates[row].positions) / (1 + _TIE)
            drafts.append(bench.draft(row, active >= self.share, bench.statistics(row), relevance=worth))
        return drafts
