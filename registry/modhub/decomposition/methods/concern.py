"""The method that started the field: concern and tangling identification, and concern modularisation.

R. Pan, H. Rajan, *Decomposing Convolutional Neural Networks into Reusable and Replaceable Modules*, ICSE
2022, https://arxiv.org/abs/2110.07720. How its §3 is read:

1. Concern identification: a position (channel, row, column) of a judged value is dead when it is ≤ 0 on every
   observed image of the class (`modhub.decomposition.dead_positions`).
2. Tangling identification: a dead position that fires on an observed image of another class lives again. The
   other classes give as many images as the class itself, evenly (1:1), or `negatives` each.
3. Concern modularisation: the head becomes two rows, the class's and the mean of all others;
   back-tracking removes positions that serve only the other row: not at all (`none`), back to the last
   convolution (`BLN`), or back to the image (`BI`); see `modhub.decomposition.backtracking`.

Position masks, which save nothing, travel with the module beside the mask of its channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from modhub.decomposition.method_options import CheckedOptions, option
from modhub.errors import ParentError

if TYPE_CHECKING:
    from modhub.artifact.modules import Decomposition
    from modhub.data import ImageSet
    from modhub.decomposition.options import DecomposeOptions
    from modhub.decomposition.parent import Parent
    from modhub.reporter import Reporter


VARIANTS = ("none", "BLN", "BI")
"""Back-tracking: not at all, to the last convolution, to the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern(CheckedOptions):
    """Keeps the positions that fire on images of the class, or on some of the other classes."""

    variant: str = option(
        "BLN",
        "How far back-tracking goes: not at all, to the last convolution, to the image.",
        choices=VARIANTS,
    )
    published: bool = option(False, "Judge the raw outputs of convolutions and Adds, as the paper does.")
    negatives: int | None = option(
        None,
        "Images of each other class. Default: as many in all as of the class itself.",
        kind=int,
        minimum=0,
    )
    threshold: float = option(0.5, "Least size of a weight that links two nodes (δ).", minimum=0)
    name: ClassVar[str] = "concern"
    paper: ClassVar[str | None] = "arXiv:2110.07720"
    citation: ClassVar[str | None] = (
        "R. Pan, H. Rajan, Decomposing Convolutional Neural Networks into Reusable and Replaceable Modules, "
        "ICSE 2022"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "one pass over the images; the network needs ReLUs"

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        from modhub.calibration.one_against_rest import one_against_rest_head
        from modhub.data.preprocessing import Preprocess
        from modhub.decomposition.backtracking import serving_positions
        from modhub.decomposition.dead_positions import (
            concern_positions,
            judged_values,
            kept_channels,
            observe_fired,
        )
        from modhub.decomposition.workbench import Workbench

        values = judged_values(parent.trunk.graph, published=self.published)
        if not values:
            raise ParentError(
                f"'{parent.name}' has no ReLU, so no position of it is ever dead.",
                hint="Use the method 'relevance'.",
            )
        bench = Workbench(parent, images, options, reporter)
        fired = bench.reading(
            lambda images: observe_fired(
                parent,
                images,
                values,
                bench.rows,
                self.negatives,
                Preprocess(parent.input),
                options.batch,
                reporter,
                options.torch_device,
            )
        )
        drafts = []
        for row in reporter.track(bench.rows, "separate concerns", len(bench.rows)):
            masks = concern_positions(parent.trunk, fired.alive(row), published=self.published)
            if self.variant != "none":
                weight, _ = one_against_rest_head(parent.head.weight, parent.head.bias, row)
                serving = serving_positions(
                    parent.trunk, weight, masks, threshold=self.threshold, to_input=self.variant == "BI"
                )
                masks = {value: mask & serving.get(value, mask) for value, mask in masks.items()}
            drafts.append(bench.draft(row, kept_channels(bench.space, masks), positions=masks))
        return bench.finished(self, drafts, self.parameters())
