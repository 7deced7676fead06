"""What a method needs beside its choice of channels: a new one is a few lines, and judged like the others.

    bench = Workbench(parent, images, options, reporter)
    drafts = [bench.draft(row, my_choice(bench.images_of(row))) for row in bench.rows]
    return bench.finished(self, drafts, parameters={})

It splits the images once: some to choose by; the others, which no choice is fitted on, to validate,
calibrate and measure on. Each image is decoded once and passed through the parent once: the held-out ones
for the parent's logits (plain, in a harder copy, and a hundred of them in a mirror), those to choose by
for moments and, with gradients, sensitivities of channels together. A network cut to a choice is another
network: it is asked of held-out images as often as the choice needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub import __version__
from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.artifact.tensors import ModuleTensors, TextureStatistics, TrunkTensors
from modhub.calibration.margins import margin_head
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet, split_indices, without_unreadable
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.checkpoint import Checkpoint, digest_of_images, looked_at
from modhub.decomposition.held_out import HeldOut, ParentAnswers, normalised
from modhub.decomposition.measurement import sizes_of
from modhub.decomposition.method import Method
from modhub.decomposition.observations import Observations
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, aligned, classes_seen, wanted_rows
from modhub.decomposition.textures import texture_statistics
from modhub.decomposition.validation import LossValidation
from modhub.errors import CompositionError
from modhub.manifest import Calibration, Measurement, MethodInfo, Sizes
from modhub.nets import (
    Mask,
    Network,
    Runner,
    channel_space,
    cost,
    fuse_batch_norm,
    mask_positions,
    slice_network,
    weightless,
)
from modhub.pruning.compensation import cut
from modhub.pruning.order import as_relevance, relevance_tensor
from modhub.pruning.statistics import ClassStatistics, observe, stored_statistics
from modhub.reporter import SILENT, Reporter
from modhub.workers import Workers

Result = TypeVar("Result")
_CHANCES = 20
"""Times as good as chance a parent of many classes is not described wrongly."""
_SURE = 0.2
"""How much surer than right on average a parent is whose input is described wrongly."""
_DOUBTFUL = 0.5
"""A parent that classifies less of the images correctly is more likely described wrongly than that bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What manifests record of one choice of channels; `measurement` is None where it was not measured."""

    calibration: Calibration
    measurement: Measurement | None
    sizes: Sizes


class Workbench:
    """`rows` are the wanted classes, as rows of the parent's head; `space` the trunk's channels, over whose
    slots masks are made; `images` those to choose by, targets counted as the parent's labels.

    `validation` judges choices on held-out images, `checkpoint` keeps what an interrupted run has found, and
    `workers` are the processes that share the work: all of them make the same calls, but for what `mine`
    says. `reporter` is warned where the parent hardly knows the images. Raises `DataError` when a wanted
    class is unknown or has too few images.
    """

    def __init__(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter = SILENT
    ) -> None:
        self.started = time.perf_counter()
        self.parent, self.options, self.reporter = parent, options, reporter
        self.rows = wanted_rows(parent, options)
        self._misread: str | None = None
        self.space = channel_space(parent.trunk)
        self.unpruned = cost(parent.trunk)
        self.workers = Workers.here()
        known = aligned(parent, images, options.only)
        if options.resume is not None:
            known = known.preloaded(looked_at(known))
        self._seen = classes_seen(parent, known)
        self.checkpoint = Checkpoint(options.resume, self._about(known), owner=self.workers.first)
        fit, held = split_indices(
            known.targets, (options.images_per_class, options.calibration_images), options.seed
        )
        self.images, self._held = known.subset(fit), known.subset(held)
        if self.workers.size > 1:
            # A process that came upon an unreadable image later would keep the others waiting.
            self.images = self.images.subset(self.images.readable(reporter, self.workers))
        self._runner = Runner(fuse_batch_norm(parent.trunk)).to(options.torch_device)
        self._weightless = weightless(parent.trunk)
        with reporter.step("calibrate"):
            self.validation = self._validation()

    def reading(self, use: Callable[[ImageSet], Result]) -> Result:
        """What `use` gives for the images to choose by, which lose those that turn out to be unreadable."""

        def of_these(images: ImageSet) -> Result:
            self.images = images
            return use(images)

        if self.workers.size > 1:
            return use(self.images)
        return without_unreadable(of_these, self.images, self.reporter)

    def images_of(self, row: int) -> ImageSet:
        """The images of one class to choose by."""
        return self.images.subset(np.flatnonzero(self.images.targets == row))

    @cached_property
    def observations(self) -> Observations:
        """Statistics of the wanted classes: one pass over their images to choose by, made when first asked
        for."""

        every = len(self.images)

        def observed(images: ImageSet) -> Observations:
            # What was saved is of all images, grouped by how many there are of each class.
            checkpoint = self.checkpoint if len(images) == every else Checkpoint(None, None)
            observations = Observations(
                self._runner,
                self.parent,
                images,
                self.space,
                self.options,
                self.rows,
                workers=self.workers,
                checkpoint=checkpoint,
                reporter=self.reporter,
            )
            observations.observe()
            return observations

        return self.reading(observed)

    @cached_property
    def textures(self) -> dict[int, TextureStatistics]:
        """What the images of the wanted classes look like, by row."""
        looks, held = self.observations.textures, self.validation.held
        return texture_statistics(looks, held, self.parent.input, self.options.batch) if looks else {}

    def statistics(self, row: int, *, covariances: bool = True) -> ClassStatistics:
        """What the trunk makes of the class: moments of every value that a layer reads, and how much its
        margin depends on each channel. With them removed channels are made up for, and budgets are met.

        Without `covariances` those that are pooled over the classes may be left out.
        """
        if row in self.rows:
            return self.observations.statistics(row, covariances=covariances)
        # A class that becomes no module is observed by itself.
        batches = normalised(self.images_of(row), Preprocess(self.parent.input), self.options.batch)
        head = one_against_rest_head(self.parent.head.weight, self.parent.head.bias, row)
        device = self.options.torch_device
        margin = margin_head((head[0].to(device), head[1].to(device)), self.parent.head.tail)
        return observe(self._runner, (batch.to(device) for batch in batches), self.space, margin)

    def assess(
        self,
        row: int,
        mask: Mask,
        statistics: ClassStatistics | None = None,
        *,
        positions: Mapping[str, Tensor] | None = None,
        measured: bool = True,
    ) -> Assessment:
        """What held-out images say of a choice, see `draft`; without `measured` only its sizes are
        counted."""
        calibration = self.validation.calibration(row)
        if not measured:
            sliced = slice_network(self._weightless, mask, space=self.space)
            return Assessment(
                calibration=calibration, measurement=None, sizes=sizes_of(mask, cost(sliced), self.unpruned)
            )
        sliced, weight, bias = self._cut(mask, statistics, positions)
        measurement = self.validation.measure(
            row,
            sliced,
            weight,
            bias,
            calibration,
            dataset=self.images.name,
            split=self.images.split,
        )
        return Assessment(
            calibration=calibration,
            measurement=measurement,
            sizes=sizes_of(mask, cost(sliced), self.unpruned),
        )

    def draft(
        self,
        row: int,
        mask: Mask,
        statistics: ClassStatistics | None = None,
        *,
        positions: Mapping[str, Tensor] | None = None,
        assessment: Assessment | None = None,
        relevance: NDArray[np.float64] | None = None,
    ) -> ModuleDraft:
        """The module of one class that keeps the slots of `mask` (slots,) and what must stay with them.

        Calibrated on what the parent answers, and measured with the channels gone; with `statistics` they are
        made up for, and the module carries them. `positions` are bool masks of single positions by value, for
        methods without statistics. `assessment` is what `assess` gave, where that was asked before.
        `relevance` (slots,), from 0 on, is how much the class needs each slot as the method sees it; without
        it, as the statistics do. Raises `CompositionError` for a mask that does not fit.
        """
        if np.isnan(np.asarray(mask, np.float64)).any():
            raise CompositionError(
                f"The mask of '{self.parent.labels[row]}' holds values that are not numbers.",
                hint="A mask is True where a slot is kept.",
            )
        mask = self.space.close(np.asarray(mask, np.bool_))
        assessment = assessment or self.assess(row, mask, statistics, positions=positions)
        return ModuleDraft(
            label=self.parent.labels[row],
            tensors=self._tensors(row, mask, statistics, positions or {}, relevance).to_dict(),
            calibration=assessment.calibration,
            measurement=assessment.measurement,
            sizes=assessment.sizes,
        )

    def finished(
        self,
        method: Method,
        drafts: Sequence[ModuleDraft],
        parameters: Mapping[str, str | int | float | bool | None],
    ) -> Decomposition:
        """All drafts with what they share, under the method's name; `parameters` are its own options."""
        options, head = self.options, self.parent.head
        observed = vars(self).get("observations")
        shared = TrunkTensors(
            parent_weight=head.weight,
            parent_bias=head.bias,
            correlations={} if observed is None else observed.correlations,
        )
        said = {
            **parameters,
            "fit_images": options.images_per_class,
            "calibration_images": options.calibration_images,
            **self._seen,
        }
        return Decomposition(
            method=MethodInfo(name=method.name, parameters=said, paper=method.paper),
            modules=tuple(drafts),
            statistics=shared.to_dict(),
            seconds=time.perf_counter() - self.started,
            images=len(self.images) + len(self._held),
            misread=self._misread,
        )

    def _about(self, images: ImageSet) -> list[Any]:
        """Everything that checkpoints depend on, beside the method."""
        options = self.options
        if options.resume is None:
            return []
        parent = self.parent
        return [
            __version__,
            parent.sha256,
            parent.trunk.sha256,
            list(parent.labels),
            parent.input.to_dict(),
            digest_of_images(images),
            [options.max_loss, options.images_per_class, options.calibration_images, options.examine],
            [options.seed, options.batch, str(options.torch_device), self.rows],
        ]

    def _validation(self) -> LossValidation:
        def read(images: ImageSet) -> HeldOut:
            self._held = images
            return HeldOut.read(images, self.parent, self.options)

        held = without_unreadable(read, self._held, self.reporter)
        left = self.checkpoint.load("logits")
        if self.workers.agree(left is not None) and left is not None:
            answers = ParentAnswers(left[0]["logits"], left[0]["mirrors"])
        else:
            answers = ParentAnswers.ask(self._runner, self.parent.head, held, self.options, self.workers)
            if self.workers.first:
                self.checkpoint.save("logits", {"logits": answers.logits, "mirrors": answers.mirrors})
        accuracy = answers.accuracy(held)
        chance = 1 / len(self.parent.labels)
        # A network that was never trained is not sure of itself; of one that is, the input must be wrong.
        sure = float(answers.logits[: held.plain].softmax(1).amax(1).mean())
        if accuracy < min(_DOUBTFUL, _CHANCES * chance) and sure > accuracy + _SURE:
            self._misread = (
                f"'{self.parent.name}' is sure of its answers and classifies only {100 * accuracy:.0f} % of "
                "the images correctly, so its input or its labels are described wrongly, or these are not "
                "images of its classes."
            )
        if accuracy < _DOUBTFUL and self.workers.first:
            self.reporter.warn(
                f"'{self.parent.name}' classifies only {100 * accuracy:.0f} % of the images correctly. Check "
                "--mean, --std, --input-size and the order of --labels."
            )
        return LossValidation(self.parent, self.space, held, answers, self.options)

    def _cut(
        self, mask: Mask, statistics: ClassStatistics | None, positions: Mapping[str, Tensor] | None
    ) -> tuple[Network, Tensor, Tensor]:
        head = self.parent.head
        if not positions:
            return cut(self.parent.trunk, mask, self.space, statistics, head.weight, head.bias)
        dense = mask_positions(self.parent.trunk, positions)
        return cut(dense, mask, channel_space(dense), None, head.weight, head.bias)

    def _tensors(
        self,
        row: int,
        mask: Mask,
        statistics: ClassStatistics | None,
        positions: Mapping[str, Tensor],
        relevance: NDArray[np.float64] | None,
    ) -> ModuleTensors:
        head = self.parent.head
        weight, bias = one_against_rest_head(head.weight, head.bias, row)
        tensors = ModuleTensors(
            mask=torch.from_numpy(mask.astype(np.uint8)),
            head_weight=weight,
            head_bias=bias,
            head_tail=head.tail,
            position_masks={
                value: alive.to(torch.uint8) for value, alive in positions.items() if not bool(alive.all())
            },
        )
        if relevance is not None:
            tensors = replace(tensors, relevance=as_relevance(relevance))
        if statistics is None:
            return tensors
        return replace(
            tensors,
            texture=self.textures.get(row),
            relevance=relevance_tensor(statistics, self.space) if relevance is None else tensors.relevance,
            statistics=stored_statistics(statistics, correlations=self.observations.per_class),
        )
