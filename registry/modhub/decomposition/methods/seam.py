"""A mask that is learned for one target: the wanted classes together.

B. Qi, H. Sun, X. Gao, H. Zhang, *Reusing Deep Neural Network Models through Model Re-engineering* (SeaM),
ICSE 2023, https://arxiv.org/abs/2304.00245. The loss is the cross-entropy over the wanted classes alone plus
`price` times the kept share; the network's weights stay. SeaM masks single weights, which saves nothing in an
ordinary runtime; here channels are masked, and the parent's head stays. An artifact holds one module per
class, so the mask is the same for all wanted classes: name them with --only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam(WorkbenchMethod):
    """Learns one mask of channels for all wanted classes together."""

    price: float = option(
        2.0,
        "What the kept share of the channels counts in the loss; the default is not validated.",
        minimum=0,
    )
    epochs: int = option(10, "Passes over the images.", minimum=1)
    images: int = option(100, "Images per class to learn from.", minimum=1)
    batch: int = option(50, "Images per step.", minimum=1)
    rate: float = option(0.02, "Rate of Adam; scores start between 0 and 0.5.", minimum=0)
    name: ClassVar[str] = "seam"
    paper: ClassVar[str | None] = "arXiv:2304.00245"
    citation: ClassVar[str | None] = (
        "B. Qi, H. Sun, X. Gao, H. Zhang, Reusing Deep Neural Network Models through Model Re-engineering, "
        "ICSE 2023"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients", "training")
    cost: ClassVar[str] = "epochs over images of the wanted classes"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        import torch

        from modhub.decomposition.masked_trunk import MaskedTrunk, MaskLearner, target_loss
        from modhub.decomposition.samples import sample_of

        sample = sample_of(bench, self.images)
        trunk = MaskedTrunk(bench.parent, bench.space, bench.options.torch_device)
        learner = MaskLearner(trunk, rate=self.rate, price=self.price, seed=bench.options.seed)
        draw = np.random.default_rng(bench.options.seed)
        for _ in bench.reporter.track(range(self.epochs), "learn the mask", self.epochs):
            for batch, indices in sample.batches(self.batch, draw):
                targets = torch.from_numpy(sample.targets[indices])
                learner.step(batch, partial(target_loss, targets=targets, rows=bench.rows))
        return [
            bench.draft(row, learner.mask, bench.statistics(row), relevance=learner.worth)
            for row in bench.rows
        ]
