"""The default method: per class, the channels its margin depends on, to a loss budget validated on other
images; see `modhub.decomposition.channel_choice`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from modhub.artifact.modules import Decomposition
    from modhub.data import ImageSet
    from modhub.decomposition.options import DecomposeOptions
    from modhub.decomposition.parent import Parent
    from modhub.reporter import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """Keeps the channels that the class's margin depends on, to --max-loss on held-out images."""

    name: ClassVar[str] = "relevance"
    paper: ClassVar[str | None] = None
    citation: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    cost: ClassVar[str] = "one backward pass over the images, and a few passes of held-out ones per class"

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        from modhub.decomposition.channel_choice import ChannelChoices
        from modhub.decomposition.workbench import Workbench

        bench = Workbench(parent, images, options, reporter)
        choices = ChannelChoices(bench).choices()
        drafts = [
            bench.draft(
                row,
                choices[row].mask,
                bench.statistics(row, covariances=False),
                assessment=choices[row].assessment,
            )
            for row in bench.rows
        ]
        parameters: dict[str, str | int | float | bool | None] = {
            "max_loss": options.max_loss,
            "fit_images": options.images_per_class,
            "calibration_images": options.calibration_images,
        }
        if options.examine is not None:
            parameters["examined"] = options.examine
        return bench.finished(self, drafts, parameters)
