"""A mask that is learned for every class, all of them for being right together.

B. Qi et al., *Reusing Convolutional Neural Network Models through Modularization and Composition*
(GradSplitter), TOSEM 2023, https://arxiv.org/abs/2311.04438. Binary masks of kernels are learned by a
straight-through estimator; the loss is the cross-entropy over the outputs of all modules plus 0.1 times the
kept share. Channels that a residual Add ties share a mask, here as everywhere. What differs: a module's head
is its class against the rest of the parent's head, which is not trained; outputs are margins, not sigmoids,
which saturate; and of the N modules one is trained at a time, on images of its class and as many others,
beside the last outputs of the rest.
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
class GradSplitter(WorkbenchMethod):
    """Learns a mask of channels for every class, by the answer of all modules together."""

    price: float = option(0.1, "What the kept share of a module's channels counts in the loss.", minimum=0)
    epochs: int = option(10, "Passes of every module over its images.", minimum=1)
    images: int = option(50, "Images per class to learn from.", minimum=1)
    batch: int = option(25, "Images per step.", minimum=1)
    rate: float = option(0.02, "Rate of Adam; scores start between 0 and 0.5.", minimum=0)
    name: ClassVar[str] = "gradsplitter"
    paper: ClassVar[str | None] = "arXiv:2311.04438"
    citation: ClassVar[str | None] = (
        "B. Qi et al., Reusing Convolutional Neural Network Models through Modularization and Composition, "
        "TOSEM 2023"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients", "training")
    cost: ClassVar[str] = "epochs over images, for every class"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.class_masks import learn_class_masks

        learners = learn_class_masks(
            bench,
            images=self.images,
            epochs=self.epochs,
            batch=self.batch,
            rate=self.rate,
            price=self.price,
        )
        return [
            bench.draft(row, learner.mask, bench.statistics(row), relevance=learner.worth)
            for row, learner in learners.items()
        ]
