"""The default method: per class, the channels its margin hangs on, to a loss budget checked on other images.

One pass over a few hundred images per class collects moments and sensitivities (`statistics`). They order the
channels (`selection`); the longest prefix of the order is removed whose loss, with the removed channels
replaced by affine maps of the kept ones (`compensation`), stays in the budget. Nothing is trained, and a
module carries its statistics, so that a composer can choose channels again for any set of classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.data import ImageSet, split_indices
from modhub.decompose.base import DecomposeOptions, Parent, aligned
from modhub.decompose.calibration import (
    balanced_accuracy,
    fit_calibration,
    fit_temperature,
    log_odds,
)
from modhub.decompose.channelling import channelled_head, head_tensors
from modhub.decompose.compensation import cut
from modhub.decompose.held_out import HeldOut, normalised
from modhub.decompose.selection import Removal, importance, mask_after, removal_order, slot_costs
from modhub.decompose.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    correlation_tensors,
    margins,
    observe,
    observed_values,
    pooled_statistics,
    statistics_tensors,
)
from modhub.errors import DataError
from modhub.manifest import Calibration, Measurement, MethodInfo, Sizes
from modhub.modules import Decomposition, ModuleDraft
from modhub.nets import Mask, Runner, channel_space, cost
from modhub.preprocessing import Preprocess
from modhub.reporter import Reporter

__all__ = ["Relevance"]

_NEGATIVES = 200
_HALVINGS = 6


class Relevance:
    """See the module's docstring. Grew out of observing what a class activates, Pan & Rajan 2022, §3."""

    name = "relevance"
    paper: str | None = None

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        return _Work(parent, aligned(parent, images), options, reporter).run()


class _Work:
    """One run of the method: what it looks at, and what it finds on the way."""

    def __init__(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> None:
        if unknown := set(options.labels or ()) - set(parent.labels):
            raise DataError(
                f"'{parent.name}' has no class '{min(unknown)}'.",
                hint=f"Its classes are: {', '.join(parent.labels[:20])}.",
            )
        self.parent, self.options, self.reporter = parent, options, reporter
        fit, held = split_indices(
            images.targets, (options.fit_images, options.calibration_images), options.seed
        )
        self.dataset = images.name
        self.split = images.split
        self.fit, self.held = images.subset(fit), images.subset(held)
        self.space = channel_space(parent.trunk)
        self.preprocess = Preprocess(parent.input)
        self.wanted = [
            row for row, label in enumerate(parent.labels) if not options.labels or label in options.labels
        ]
        self.whole = cost(parent.trunk)
        self.costs = slot_costs(parent.trunk, self.space)

    def run(self) -> Decomposition:
        started = time.perf_counter()
        parent = self.parent
        statistics = self._observe()
        self._calibrate()
        with self.reporter.step("choose channels", len(self.wanted)):
            drafts = []
            for row in self.wanted:
                drafts.append(self._draft(row, statistics[row]))
                self.reporter.advance()
        shared = {"parent.weight": parent.head.weight, "parent.bias": parent.head.bias}
        if not self._own_correlations(statistics[self.wanted[0]]):
            shared.update(correlation_tensors(pooled_statistics(list(statistics.values())).moments))
        parameters = {
            "max_loss": self.options.max_loss,
            "fit_images": self.options.fit_images,
            "calibration_images": self.options.calibration_images,
        }
        return Decomposition(
            method=MethodInfo(name=Relevance.name, parameters=parameters, paper=Relevance.paper),
            modules=tuple(drafts),
            statistics=shared,
            seconds=time.perf_counter() - started,
            images=len(self.fit) + len(self.held),
        )

    def _observe(self) -> dict[int, ClassStatistics]:
        parent = self.parent
        runner = Runner(parent.trunk)
        values = observed_values(parent.trunk.graph, self.space)
        found = {}
        with self.reporter.step("observe classes", len(self.wanted)):
            for row in self.wanted:
                own = self.fit.subset(np.flatnonzero(self.fit.targets == row))
                batches = normalised(own, self.preprocess, self.options.batch)
                head = channelled_head(parent.head.weight, parent.head.bias, row)
                found[row], _ = observe(runner, batches, values, head, parent.head.tail)
                self.reporter.advance()
        return found

    def _calibrate(self) -> None:
        """Logits of the whole parent on the held-out images, and the temperature they ask for."""
        self.held_out = HeldOut.read(self.held, self.preprocess, self.options.seed, self.options.batch)
        self.logits = self._logits(
            Runner(self.parent.trunk), self.parent.head.weight, self.parent.head.bias, self.held_out.images
        )
        choosing = self.held_out.choosing
        rows = len(self.parent.labels)
        self.temperature = (
            fit_temperature(
                self.logits.double().numpy()[choosing],
                self.held_out.targets[choosing],
                self.held_out.weights[choosing],
            )
            * (rows - 1)
            / max(rows, 1)
        )
        self.odds = log_odds(self.logits)

    def _logits(self, trunk: Runner, weight: Tensor, bias: Tensor, images: Tensor) -> Tensor:
        tail = self.parent.head.tail
        with torch.inference_mode():
            found = [
                margins(trunk(batch), weight, bias, tail) for batch in torch.split(images, self.options.batch)
            ]
        return torch.cat(found)

    def _draft(self, row: int, statistics: ClassStatistics) -> ModuleDraft:
        parent, held = self.parent, self.held_out
        calibration = self._calibration(row)
        removal = removal_order(statistics, self.space, self.costs)
        mask = self._choose(row, statistics, removal, calibration)
        sliced, weight, bias = cut(
            parent.trunk, mask, self.space, statistics, parent.head.weight, parent.head.bias
        )
        size = cost(sliced)
        relevance = importance(statistics, self.space)
        tensors = {
            "mask": torch.from_numpy(mask.astype(np.uint8)),
            "relevance": torch.from_numpy(relevance / max(relevance.max(initial=0.0), 1e-30)).half(),
            **head_tensors(parent.head, row),
            **statistics_tensors(statistics, correlations=self._own_correlations(statistics)),
        }
        measured = np.flatnonzero(held.measuring)
        measurement = None
        if len(measured):
            logits = self._logits(Runner(sliced), weight, bias, held.images[measured])
            measurement = self._measure(row, measured, logits, calibration)
        return ModuleDraft(
            label=parent.labels[row],
            tensors=tensors,
            calibration=calibration,
            measurement=measurement,
            sizes=Sizes(
                kept_channels=int(mask.sum()),
                channels=self.space.slots,
                kept_parameters=size.parameters,
                parameters=self.whole.parameters,
                flops=size.flops,
                parent_flops=self.whole.flops,
            ),
        )

    def _calibration(self, row: int) -> Calibration:
        choosing = self.held_out.choosing
        return fit_calibration(
            _margin(self.logits, row)[choosing],
            self.odds[:, row].double().numpy()[choosing],
            self.held_out.targets[choosing] == row,
            self.held_out.weights[choosing],
            self.temperature,
        )

    def _choose(
        self, row: int, statistics: ClassStatistics, removal: Removal, calibration: Calibration
    ) -> Mask:
        """The longest prefix of the order whose loss of balanced accuracy stays in the budget, by halving."""
        parent, held = self.parent, self.held_out
        chosen = held.examination(row, _NEGATIVES, self.options.seed)
        positive = held.targets[chosen] == row
        weight, bias = channelled_head(parent.head.weight, parent.head.bias, row)
        whole = self._accepted(_margin(self.logits, row)[chosen], calibration)
        goal = balanced_accuracy(whole, positive) - self.options.max_loss
        fewest, most = 0, len(removal.slots)
        for _ in range(_HALVINGS):
            count = (fewest + most + 1) // 2
            mask = mask_after(removal, count, self.space)
            sliced, *rows = cut(parent.trunk, mask, self.space, statistics, weight, bias)
            scores = self._logits(Runner(sliced), rows[0], rows[1], held.images[chosen]).double().numpy()
            accepted = self._accepted(scores[:, 0] - scores[:, 1], calibration)
            if balanced_accuracy(accepted, positive) >= goal:
                fewest = count
            else:
                most = count - 1
            if fewest >= most:
                break
        return mask_after(removal, fewest, self.space)

    def _accepted(self, margin: NDArray[np.float64], calibration: Calibration) -> NDArray[np.bool_]:
        parameters = calibration.parameters
        return np.asarray(parameters["slope"] * margin + parameters["intercept"] > 0)

    def _measure(
        self, row: int, measured: NDArray[np.int64], logits: Tensor, calibration: Calibration
    ) -> Measurement:
        """On images no choice has seen: the class among the parent's others, and against the rest."""
        positive = self.held_out.targets[measured] == row
        answers, expected = logits.argmax(1).numpy(), self.logits[measured].argmax(1).numpy()
        margin, parent_margin = _margin(logits, row), _margin(self.logits[measured], row)
        values = {
            "recall": float((answers[positive] == row).mean()),
            "precision": float(positive[answers == row].mean()) if (answers == row).any() else 0.0,
            "parent_recall": float((expected[positive] == row).mean()),
            "balanced_accuracy": balanced_accuracy(self._accepted(margin, calibration), positive),
            "parent_balanced_accuracy": balanced_accuracy(
                self._accepted(parent_margin, calibration), positive
            ),
            "false_accept": calibration.parameters["false_accept"],
        }
        return Measurement(
            dataset=self.dataset,
            split=self.split,
            positives=int(positive.sum()),
            negatives=int((~positive).sum()),
            values=values,
        )

    def _own_correlations(self, statistics: ClassStatistics) -> bool:
        numbers: Sequence[int] = [
            len(each.mean) * (len(each.mean) - 1) // 2
            for each in statistics.moments.values()
            if each.covariance.ndim == 2
        ]
        return sum(numbers) <= CORRELATION_LIMIT


def _margin(logits: Tensor, row: int) -> NDArray[np.float64]:
    """z_row − mean of the other logits, (batch,)."""
    others = max(logits.shape[1] - 1, 1)
    total = logits.sum(1)
    margin = logits[:, row] - (total - logits[:, row]) / others
    return np.asarray(margin.double().numpy())
