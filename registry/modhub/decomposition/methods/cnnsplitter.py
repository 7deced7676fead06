"""A genetic search for the channels of every class, by the accuracy of all modules composed.

B. Qi et al., *Patching Weak Convolutional Neural Network Models through Modularization and Composition*
(CNNSplitter), ASE 2022, https://arxiv.org/abs/2209.06116. Kernels are grouped by their importance to the
class, and a gene keeps or drops a group. The fitness of a candidate is 0.9 times the accuracy of all modules
composed plus 0.1 times how much its channels differ from theirs (one minus the Jaccard index), on held-out
images that nothing is fitted on. Here candidates of one class are judged beside the fittest of the others,
and channels that are gone are made up for by the statistics of the class, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench
    from modhub.nets import ChannelSpace


_TIE = 1e-2
"""What importance counts beside the share of the last candidates that keep a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnSplitter(WorkbenchMethod):
    """Searches the channels of every class by the accuracy of all modules composed (genetic algorithm)."""

    generations: int = option(5, "Generations, the first included.", minimum=1)
    population: int = option(6, "Candidates per class; half of them live on.", minimum=2)
    images: int = option(20, "Held-out images per class that candidates are judged on.", minimum=1)
    bins: int = option(5, "Genes for each group of channels.", minimum=1)
    mutation: float = option(0.05, "Chance that a gene of a child changes.", minimum=0, maximum=1)
    name: ClassVar[str] = "cnnsplitter"
    paper: ClassVar[str | None] = "arXiv:2209.06116"
    citation: ClassVar[str | None] = (
        "B. Qi et al., Patching Weak Convolutional Neural Network Models through Modularization and "
        "Composition, ASE 2022"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "passes of held-out images for every candidate: minutes to hours"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.genetic import Population
        from modhub.pruning.order import importance

        worth = {row: importance(bench.statistics(row), bench.space).clip(0) for row in bench.rows}
        genes = {row: genes_of(worth[row], bench.space, self.bins) for row in bench.rows}
        population = Population(bench, genes, images=self.images, size=self.population)
        for _ in bench.reporter.track(range(self.generations - 1), "breed", self.generations - 1):
            population.advance(self.mutation)
        drafts = []
        for row in bench.rows:
            share = population.kept(row)
            relevance = (share + _TIE * worth[row] / max(worth[row].max(), 1e-30)) / (1 + _TIE)
            drafts.append(bench.draft(row, population.best(row), bench.statistics(row), relevance=relevance))
        return drafts


def genes_of(worth: NDArray[np.float64], space: ChannelSpace, bins: int) -> list[NDArray[np.int64]]:
    """The slots of each gene: those of every group of channels that can be cut, in `bins` parts from the
    least worth (slots,) on."""
    return [
        part
        for group in space.groups
        if group.cuttable
        for part in np.array_split(group.start + np.argsort(worth[group.slots], kind="stable"), bins)
        if len(part)
    ]
