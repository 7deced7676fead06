"""The parts of a network that a class's logit is most sensitive to.

C. Hamblin, T. Konkle, G. Alvarez, *Pruning for Feature-Preserving Circuits in CNNs*, 2022,
https://arxiv.org/abs/2206.01627. A parameter w counts |w·∂z/∂w| for the logit z of the class, its gradient
the mean over the class's images (the measure of SNIP, N. Lee et al. 2019), and a channel the sum over the
weights that make it; or a channel a counts the mean over the images of |Σ a·∂z/∂a|, summed over positions.
Channels are ranked over all layers together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit(WorkbenchMethod):
    """Keeps the channels to which the logit of the class is most sensitive."""

    share: float = option(0.9, "Share of the channels that is kept.", minimum=0, maximum=1)
    score: str = option(
        "weights",
        "What is multiplied by its gradient: the weights that make a channel, or its activations.",
        choices=("weights", "activations"),
    )
    name: ClassVar[str] = "circuit"
    paper: ClassVar[str | None] = "arXiv:2206.01627"
    citation: ClassVar[str | None] = (
        "C. Hamblin, T. Konkle, G. Alvarez, Pruning for Feature-Preserving Circuits in CNNs, 2022"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    cost: ClassVar[str] = "one backward pass over the images"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.gradients import activation_scores, weight_scores
        from modhub.pruning.baselines import best_slots

        scores = (weight_scores if self.score == "weights" else activation_scores)(bench)
        drafts = []
        for row in bench.reporter.track(bench.rows, "choose channels", len(bench.rows)):
            mask = best_slots(scores[row], bench.space, self.share)
            drafts.append(bench.draft(row, mask, bench.statistics(row), relevance=scores[row]))
        return drafts
