"""What a method needs beside its choice of channels: a new one is a few lines, and judged like the others.

    bench = Workbench(parent, images, options)
    drafts = [bench.draft(row, my_choice(bench.own(row))) for row in bench.rows]
    return bench.finished(self, drafts, parameters={})

It splits the images: some to choose by, others to calibrate and to measure on, which no choice sees.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.calibration.margins import margin_head
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet, split_indices
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.held_out import HeldOut, normalised
from modhub.decomposition.method import Method
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, aligned, classes_seen, wanted_rows
from modhub.decomposition.validation import Examiner, parent_logits
from modhub.errors import CompositionError
from modhub.manifest import MethodInfo, Sizes
from modhub.nets import Mask, Runner, channel_space, cost
from modhub.pruning.compensation import cut
from modhub.pruning.order import relevance_tensor
from modhub.pruning.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    observe,
    stored_statistics,
)
from modhub.workers import Workers

__all__ = ["Workbench"]


class Workbench:
    """`rows` are the wanted classes, as rows of the parent's head; `space` the trunk's channels, over whose
    slots masks are made; `images` those to choose by, targets counted as the parent's labels.

    Raises `DataError` when a wanted class is unknown or has too few images.
    """

    def __init__(self, parent: Parent, images: ImageSet, options: DecomposeOptions) -> None:
        self.started = time.perf_counter()
        self.parent, self.options = parent, options
        self.rows = wanted_rows(parent, options)
        self.space = channel_space(parent.trunk)
        self.whole = cost(parent.trunk)
        known = aligned(parent, images, options.only)
        fit, held = split_indices(
            known.targets, (options.images_per_class, options.calibration_images), options.seed
        )
        self.images = known.subset(fit)
        self.looked_at = len(fit) + len(held)
        self._seen = classes_seen(parent, known)
        self._place = f"{images.name}/{images.split}"
        self._preprocess = Preprocess(parent.input)
        kept = HeldOut.read(known.subset(held), parent, options)
        logits = parent_logits(parent, kept.images, options, Workers.here())
        self._examiner = Examiner(parent, self.space, kept, logits, options)

    def own(self, row: int) -> ImageSet:
        """The images of one class to choose by."""
        return self.images.subset(np.flatnonzero(self.images.targets == row))

    def statistics(self, row: int) -> ClassStatistics:
        """What the trunk makes of the class: moments of every value that a layer reads, and how much its
        margin hangs on each channel. With them removed channels are made up for, and budgets are met."""
        runner = Runner(self.parent.trunk).to(self.options.torch_device)
        batches = normalised(self.own(row), self._preprocess, self.options.batch)
        head = one_against_rest_head(self.parent.head.weight, self.parent.head.bias, row)
        on_device = (each.to(self.options.torch_device) for each in batches)
        placed = head[0].to(self.options.torch_device), head[1].to(self.options.torch_device)
        return observe(runner, on_device, self.space, margin_head(placed, self.parent.head.tail))

    def draft(self, row: int, mask: Mask, statistics: ClassStatistics | None = None) -> ModuleDraft:
        """The module of one class that keeps the slots of `mask` (slots,) and what must stay with them.

        Calibrated on what the parent answers, and measured with the channels gone; with `statistics` they are
        made up for, and the module carries them. Raises `CompositionError` for a mask that does not fit.
        """
        if np.isnan(np.asarray(mask, np.float64)).any():
            raise CompositionError(
                f"The mask of '{self.parent.labels[row]}' holds values that are not numbers.",
                hint="A mask is True where a slot is kept.",
            )
        mask = self.space.close(np.asarray(mask, np.bool_))
        parent = self.parent
        sliced, weight, bias = cut(
            parent.trunk, mask, self.space, statistics, parent.head.weight, parent.head.bias
        )
        calibration = self._examiner.calibration(row)
        size = cost(sliced)
        return ModuleDraft(
            label=parent.labels[row],
            tensors=self._tensors(row, mask, statistics).to_dict(),
            calibration=calibration,
            measurement=self._examiner.measure(row, sliced, weight, bias, calibration, self._place),
            sizes=Sizes(
                kept_channels=int(mask.sum()),
                channels=self.space.slots,
                kept_parameters=size.parameters,
                parameters=self.whole.parameters,
                flops=size.flops,
                parent_flops=self.whole.flops,
            ),
        )

    def finished(
        self,
        method: Method,
        drafts: Sequence[ModuleDraft],
        parameters: Mapping[str, str | int | float | bool | None],
    ) -> Decomposition:
        """All drafts with what they share, under the method's name; `parameters` are its own options."""
        options = self.options
        said = {
            **parameters,
            "fit_images": options.images_per_class,
            "calibration_images": options.calibration_images,
            **self._seen,
        }
        return Decomposition(
            method=MethodInfo(name=method.name, parameters=said, paper=method.paper),
            modules=tuple(drafts),
            statistics=TrunkTensors(
                parent_weight=self.parent.head.weight, parent_bias=self.parent.head.bias
            ).to_dict(),
            seconds=time.perf_counter() - self.started,
            images=self.looked_at,
        )

    def _tensors(self, row: int, mask: Mask, statistics: ClassStatistics | None) -> ModuleTensors:
        head = self.parent.head
        weight, bias = one_against_rest_head(head.weight, head.bias, row)
        tensors = ModuleTensors(
            mask=torch.from_numpy(mask.astype(np.uint8)),
            head_weight=weight,
            head_bias=bias,
            head_tail=head.tail,
        )
        if statistics is None:
            return tensors
        numbers = sum(len(each.mean) * (len(each.mean) - 1) // 2 for each in statistics.moments.values())
        return replace(
            tensors,
            relevance=relevance_tensor(statistics, self.space),
            statistics=stored_statistics(statistics, correlations=numbers <= CORRELATION_LIMIT),
        )
