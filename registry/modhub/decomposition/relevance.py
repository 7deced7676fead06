"""The default method: per class, the channels its margin hangs on, to a loss budget checked on other images.

One pass over a few hundred images per class collects moments and sensitivities (`gathering`). They order the
channels (`selection`); the longest prefix of the order is removed whose loss, with the removed channels
replaced by affine maps of the kept ones (`compensation`), stays in the budget, and that hardly moves the
class's margins. Nothing is trained, and a module carries its statistics, so that a composer can choose
channels again for any set of classes.

Where a large trunk meets many classes, channels are ordered by their first charges, and the loss is checked
for some classes only (`examined`); the others pay the price, in squared log-odds, that those could pay.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhub import __version__
from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet, split_indices
from modhub.decomposition.checkpoint import Savings, digest_of_images
from modhub.decomposition.held_out import HeldOut
from modhub.decomposition.measurement import sizes_of
from modhub.decomposition.observations import Observations
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, aligned, classes_seen, wanted_rows
from modhub.decomposition.validation import Examiner, parent_logits
from modhub.manifest import Calibration, Measurement, MethodInfo, Sizes
from modhub.manifest.fields import Fields
from modhub.nets import Mask, channel_space, cost, slice_network, weightless
from modhub.pruning.compensation import cut
from modhub.pruning.moments import correlation_numbers
from modhub.pruning.order import (
    PruningOrder,
    QuickOrder,
    mask_after,
    order_work,
    pruning_order,
    relevance_tensor,
    slot_costs,
)
from modhub.pruning.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    observed_values,
)
from modhub.reporter import Reporter
from modhub.workers import Workers

__all__ = ["Relevance"]

_ORDER_WORK = 100_000_000_000
"""Numbers that ordering the channels of all classes may change before first charges have to do."""
_EXAMINED = 16


class Relevance:
    """See the module's docstring. Grew out of observing what a class activates, Pan & Rajan 2022, §3."""

    name = "relevance"
    paper: str | None = None

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        return _Work(parent, images, options, reporter).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What is decided for one class. `price` is what the last removed channel cost, if images had a say."""

    mask: Mask
    calibration: Calibration
    measurement: Measurement | None
    sizes: Sizes
    price: float | None

    def notes(self) -> dict[str, Any]:
        return {
            "calibration": self.calibration.to_dict(),
            "measurement": None if self.measurement is None else self.measurement.to_dict(),
            "sizes": self.sizes.to_dict(),
            "price": self.price,
        }

    @classmethod
    def of(cls, mask: Tensor, notes: Mapping[str, Any]) -> _Choice:
        measured = notes["measurement"]
        return cls(
            mask=mask.bool().numpy(),
            calibration=Calibration.from_dict(Fields(notes["calibration"], "calibration")),
            measurement=None if measured is None else Measurement.from_dict(Fields(measured, "measurement")),
            sizes=Sizes.from_dict(Fields(notes["sizes"], "sizes")),
            price=notes["price"],
        )


class _Work:
    """One run of the method: what it looks at, and what it finds on the way."""

    def __init__(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> None:
        self.parent, self.options, self.reporter = parent, options, reporter
        self.wanted = wanted_rows(parent, options)
        images = aligned(parent, images, options.only)
        self.workers = Workers.here()
        self.parameters: dict[str, str | int | float | bool | None] = {
            "max_loss": options.max_loss,
            "fit_images": options.images_per_class,
            "calibration_images": options.calibration_images,
        }
        if options.examine is not None:
            self.parameters["examined"] = options.examine
        self.parameters |= classes_seen(parent, images)
        fit, held = split_indices(
            images.targets, (options.images_per_class, options.calibration_images), options.seed
        )
        self.place = f"{images.name}/{images.split}"
        self.fit, self.held = images.subset(fit), images.subset(held)
        self.space = channel_space(parent.trunk)
        self.whole = cost(parent.trunk)
        self.shapes = weightless(parent.trunk)
        self.costs = slot_costs(parent.trunk, self.space)
        graph = parent.trunk.graph
        self.own = correlation_numbers(graph, self.space) <= CORRELATION_LIMIT
        work = len(self.wanted) * order_work(self.space, observed_values(graph, self.space))
        self.quick = not self.own and work > _ORDER_WORK
        self.saved = Savings(options.resume, self._about(images), owner=self.workers.first)
        self.seen = Observations(
            parent,
            self.fit,
            self.space,
            options,
            self.wanted,
            own=self.own,
            workers=self.workers,
            saved=self.saved,
            reporter=reporter,
        )

    def _about(self, images: ImageSet) -> list[Any]:
        """Everything the result depends on."""
        if self.options.resume is None:
            return []
        parent = self.parent
        return [
            __version__,
            Relevance.name,
            parent.sha256,
            parent.trunk.sha256,
            list(parent.labels),
            parent.input.to_dict(),
            digest_of_images(images),
            self.parameters,
            [self.options.seed, self.options.batch, str(self.options.torch_device), self.wanted],
        ]

    def run(self) -> Decomposition:
        started = time.perf_counter()
        parent = self.parent
        self.seen.observe()
        with self.reporter.step("calibrate"):
            self._calibrate()
        choices = self._choose()
        shared = TrunkTensors(
            parent_weight=parent.head.weight,
            parent_bias=parent.head.bias,
            correlations=self.seen.correlations,
        )
        return Decomposition(
            method=MethodInfo(name=Relevance.name, parameters=self.parameters, paper=Relevance.paper),
            modules=tuple(self._draft(row, choices[row]) for row in self.wanted),
            statistics=shared.to_dict(),
            seconds=time.perf_counter() - started,
            images=len(self.fit) + len(self.held),
        )

    def _calibrate(self) -> None:
        held = HeldOut.read(self.held, self.parent, self.options)
        left = self.saved.load("logits")
        if self.workers.agree(left is not None) and left is not None:
            logits = left[0]["logits"]
        else:
            logits = parent_logits(self.parent, held.images, self.options, self.workers)
            if self.workers.first:
                self.saved.save("logits", {"logits": logits})
        self.examiner = Examiner(self.parent, self.space, held, logits, self.options)

    def _choose(self) -> dict[int, _Choice]:
        """Every class's channels: first those that are examined, then the others at the same price."""
        if self.quick:
            self.orders = QuickOrder(self.seen.matrices, self.space, self.costs)
        limit = self.options.examine or (_EXAMINED if self.quick else len(self.wanted))
        spread = np.linspace(0, len(self.wanted) - 1, min(limit, len(self.wanted))).round().astype(int)
        first = [self.wanted[place] for place in dict.fromkeys(spread.tolist())]
        with self.reporter.step("choose channels", len(self.wanted)):
            choices = self._shared_out(first, None)
            paid = [choice.price for choice in choices.values() if choice.price is not None]
            price = float(np.quantile(paid, 0.25)) if paid else 0.0
            choices.update(self._shared_out([row for row in self.wanted if row not in choices], price))
        return choices

    def _shared_out(self, rows: list[int], price: float | None) -> dict[int, _Choice]:
        """The choices for `rows`, each made by one of the processes, known to all."""
        found: dict[int, _Choice] = {}
        for number, row in enumerate(rows):
            if self.workers.mine(number):
                found[row] = self._saved_choice(row, price)
                self.reporter.advance(min(self.workers.size, len(rows) - number))
        return {row: choice for part in self.workers.gather(found) for row, choice in part.items()}

    def _saved_choice(self, row: int, price: float | None) -> _Choice:
        left = self.saved.load(f"choice-{row}")
        if left is not None:
            return _Choice.of(left[0]["mask"], left[1])
        choice = self._choice(row, price)
        self.saved.save(f"choice-{row}", {"mask": torch.from_numpy(choice.mask)}, choice.notes())
        return choice

    def _choice(self, row: int, price: float | None) -> _Choice:
        parent, examiner = self.parent, self.examiner
        calibration = examiner.calibration(row)
        # The slope turns a squared error of the margin into one of log-odds, which compares between classes.
        scale = examiner.calibrator.slope(row) ** 2
        if price is not None:
            removal = self._order(row, self.seen.statistics(row, covariances=not self.quick))
            count = int(np.searchsorted(removal.saliency * scale, price, side="right"))
            mask = mask_after(removal, count, self.space)
            return _Choice(
                mask=mask,
                calibration=calibration,
                measurement=None,
                sizes=sizes_of(mask, cost(slice_network(self.shapes, mask, space=self.space)), self.whole),
                price=None,
            )
        statistics = self.seen.statistics(row)
        removal = self._order(row, statistics)
        count = examiner.longest(row, statistics, removal, calibration)
        mask = mask_after(removal, count, self.space)
        sliced, weight, bias = cut(
            parent.trunk, mask, self.space, statistics, parent.head.weight, parent.head.bias
        )
        return _Choice(
            mask=mask,
            calibration=calibration,
            measurement=examiner.measure(row, sliced, weight, bias, calibration, self.place),
            sizes=sizes_of(mask, cost(sliced), self.whole),
            price=float(removal.saliency[count - 1] * scale) if count else 0.0,
        )

    def _order(self, row: int, statistics: ClassStatistics) -> PruningOrder:
        if not self.quick:
            return pruning_order(statistics, self.space, self.costs)
        return self.orders.order(self.seen.deviations(row), statistics.sensitivity)

    def _draft(self, row: int, choice: _Choice) -> ModuleDraft:
        statistics = self.seen.statistics(row, covariances=False)
        head = self.parent.head
        weight, bias = one_against_rest_head(head.weight, head.bias, row)
        return ModuleDraft(
            label=self.parent.labels[row],
            tensors=ModuleTensors(
                mask=torch.from_numpy(choice.mask.astype(np.uint8)),
                head_weight=weight,
                head_bias=bias,
                head_tail=head.tail,
                relevance=relevance_tensor(statistics, self.space),
                statistics=self.seen.carried(row),
            ).to_dict(),
            calibration=choice.calibration,
            measurement=choice.measurement,
            sizes=choice.sizes,
        )
