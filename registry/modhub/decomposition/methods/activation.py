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

from modhub.decomposition.method_options import CheckedOptions, option

if TYPE_CHECKING:
    from modhub.artifact.modules import Decomposition
    from modhub.data import ImageSet
    from modhub.decomposition.options import DecomposeOptions
    from modhub.decomposition.parent import Parent
    from modhub.reporter import Reporter

__all__ = ["Activation"]

_TIE = 1e-2
"""What a channel's firing at every position counts, in shares of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(CheckedOptions):
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

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        from modhub.decomposition.firing import firing_rates
        from modhub.decomposition.workbench import Workbench

        bench = Workbench(parent, images, options, reporter)
        rates = firing_rates(bench)
        drafts = []
        for row in reporter.track(bench.rows, "choose channels", len(bench.rows)):
            active = rates[row].images
            worth = (active + _TIE * rates[row].positions) / (1 + _TIE)
            drafts.append(bench.draft(row, active >= self.share, bench.statistics(row), relevance=worth))
        return bench.finished(self, drafts, self.parameters())
