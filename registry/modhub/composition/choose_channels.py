"""Which channels a set of modules keeps: the union of their masks, or what a budget leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from modhub.composition.budget import KINDS, Budget, RelativeCost
from modhub.composition.fitting.data import FittingData
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.part_tensors import mask_of, relevance_of
from modhub.composition.trunk_plan import TrunkPlan
from modhub.errors import BudgetError
from modhub.nets import (
    ChannelSpace,
    Mask,
    Network,
    Runner,
    cost,
    fuse_batch_norm,
    slice_network,
    without_constants,
)
from modhub.pruning.baselines import random_order, relevance_order
from modhub.pruning.depth import evenly
from modhub.pruning.order import PruningOrder, mask_after, pruning_order, slot_costs
from modhub.pruning.statistics import observe
from modhub.reporter import SILENT, Reporter


@dataclass(frozen=True)
class ChannelChooser:
    """Chooses the channels of one plan, by the statistics of its modules; with `control` at random, by that
    seed."""

    plan: TrunkPlan
    control: int | None = None

    @cached_property
    def order(self) -> PruningOrder:
        """The order in which channels can go for this set of classes."""
        space, costs = self.plan.space, slot_costs(self.plan.trunk, self.plan.space)
        statistics = self.plan.statistics
        if statistics is not None:
            return pruning_order(statistics, space, costs, branches=True)
        relevance = np.sum([relevance_of(part, space) for part in self.plan.parts], axis=0)
        return relevance_order(relevance, space, costs)

    def order_for(self, budget: Budget) -> PruningOrder:
        if self.control is None:
            return self.order
        return random_order(self.plan.space, self.control, branches=budget.time is not None)

    def prunes(self, budget: Budget | None) -> bool:
        """Whether any channel has to go, without the search that says which. Raises `BudgetError` for a
        budget that cannot be met."""
        if budget is None or not budget.limited:
            return not bool(self._union(budget or Budget()).all())
        trunk, space = self.plan.trunk, self.plan.space
        check_budget(trunk, space, self.order_for(budget), budget)
        return not _cost_of(trunk, space, space.full_mask()).within(budget)

    def mask(self, budget: Budget | None) -> Mask:
        """(slots,) the union of the modules' masks, or within a budget what is left of the trunk when the
        least salient channels for the set have gone. Raises `BudgetError`."""
        if budget is None or not budget.limited:
            return self._union(budget or Budget())
        return mask_within(self.plan.trunk, self.plan.space, self.order_for(budget), budget)

    def observing(
        self, data: FittingData, settings: FitSettings = DEFAULT_SETTINGS, reporter: Reporter = SILENT
    ) -> ChannelChooser:
        """The chooser that goes by what `data` shows, where one class is composed alone, or modules were made
        without images.

        A module carries what the images of its class do to the trunk. A class among others of its parent
        needs no more; one that is told from everything else depends as much on what the others look like.
        """
        plan = self.plan
        alone = len(plan.parts) == 1
        if not plan.unmeasured and not (data.balanced and alone and plan.statistics is not None):
            return self
        heads = plan.unpruned.heads
        runner = Runner(fuse_batch_norm(plan.trunk)).to(plan.device)

        def answer(features: Tensor) -> Tensor:
            """The log-odds of the only class, or the margin of the likeliest one."""
            on_head = features.to(heads[0].calibration.device)
            if alone:
                return heads[0].odds(heads[0].margins(on_head), heads[0].rest_logsumexp(on_head))[:, 0]
            return torch.cat([head.scaled(head.margins(on_head)) for head in heads], 1).amax(1)

        most = min(
            settings.refit_images * (1 + settings.refit_copies),
            settings.statistics_work / max(cost(plan.trunk).flops, 1),
        )
        with reporter.step("compute statistics"):
            images = evenly(data.refit, max(10, int(most)))
            batches = (batch.to(plan.device) for batch in torch.split(images, settings.batch))
            observed = observe(runner, batches, plan.space, answer)
        return ChannelChooser(replace(plan, observed=observed), self.control)

    def _union(self, budget: Budget) -> Mask:
        """What any module keeps, and of each group as many more as fill a block: the most relevant ones."""
        space, parts = self.plan.space, self.plan.parts
        mask = space.union(mask_of(part) for part in parts)
        relevance = np.max([relevance_of(part, space) for part in parts], 0)
        for group in space.groups:
            gone = group.start + np.flatnonzero(~mask[group.slots])
            kept = group.size - len(gone)
            if kept:
                mask[gone[np.argsort(-relevance[gone], kind="stable")][: -kept % budget.block]] = True
        return space.close(mask)


def mask_within(trunk: Network, space: ChannelSpace, order: PruningOrder, budget: Budget) -> Mask:
    """The mask that removes the shortest prefix of the order that meets `budget`'s flops, params and time.

    A prefix for a larger budget is a prefix of that for a smaller one, so more budget never drops a channel
    that less had kept. Raises `BudgetError` that says what could be reached.
    """

    def meets(count: int) -> bool:
        return _cost_of(trunk, space, mask_after(order, count, space, budget.block)).within(budget)

    check_budget(trunk, space, order, budget)
    return mask_after(order, _first(meets, len(order.slots)), space, budget.block)


def check_budget(trunk: Network, space: ChannelSpace, order: PruningOrder, budget: Budget) -> None:
    """Raises `BudgetError` when even the smallest network of the order does not meet `budget`."""
    smallest = _cost_of(trunk, space, mask_after(order, len(order.slots), space, budget.block))
    if smallest.within(budget):
        return
    fewest = "a channel" if budget.block == 1 else f"{budget.block} channels"
    limits = [f"{name}={value:g}" for name in KINDS if (value := getattr(budget, name)) is not None]
    raise BudgetError(
        f"No choice of channels meets {' and '.join(limits)}: the smallest network that keeps "
        f"{fewest} in every layer it needs has flops={smallest.flops:.3f}, "
        f"params={smallest.params:.3f} and time={smallest.time:.3f} of its parent.",
        hint="Allow more, or compose fewer classes from fewer parents.",
    )


def _cost_of(trunk: Network, space: ChannelSpace, mask: Mask) -> RelativeCost:
    """What the trunk cut to `mask` costs once it is fitted."""
    sliced = slice_network(trunk, mask, space=space)
    return RelativeCost.of(without_constants(sliced, space, mask), trunk)


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The smallest count for which a monotone condition holds; it holds for `last`."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
