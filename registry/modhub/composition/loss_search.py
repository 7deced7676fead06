"""The smallest network whose predictions differ from the unpruned model's on a given share of images at most.

Candidates are the networks of a row of budgets; a binary search compiles and fits about three of them. The
loss is measured on images that nothing was fitted on, whose accuracy falls by that share at most.
"""

from __future__ import annotations

from dataclasses import replace

from modhub.composition.budget import KINDS, Budget
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.choose_depth import choose_depth
from modhub.composition.classifier import TrunkPass
from modhub.composition.fitting.fit import fit_trunk
from modhub.composition.fitting.sources import FittingSource
from modhub.composition.trunk_plan import TrunkPlan
from modhub.errors import BudgetError


def compile_to_loss(plan: TrunkPlan, budget: Budget, source: FittingSource) -> TrunkPass:
    """The smallest network within `budget` and its `max_loss`; the unpruned one when none is. Raises
    `BudgetError` when that is too large for the budget."""
    settings, seed, reporter = source.settings, source.seed, source.reporter
    goal = 0.0 if budget.max_loss is None else budget.max_loss
    modules = ChannelChooser(plan)
    modules.prunes(budget)
    most = budget.flops or 1.0
    limits = [*(step for step in settings.loss_budgets if step < most), *([most] if most < 1 else [])]
    best, images = plan.unpruned, None
    low, high = 0, len(limits)
    while low < high:
        middle = (low + high) // 2
        limit = replace(budget, flops=limits[middle])
        try:
            prunes = modules.prunes(limit)
        except BudgetError:
            # So small is none of its networks.
            low = middle + 1
            continue
        if images is None:
            images = source.split(plan) if prunes else None
            if images is None:
                break
            test, data = images
            reference = plan.unpruned.decisions(test, settings.batch)
            chooser = modules.observing(data, settings, reporter)
        mask = chooser.mask(limit)
        mask = choose_depth(chooser, mask, limit, data, seed=seed, settings=settings, reporter=reporter)
        candidate = fit_trunk(chooser.plan, mask, data, seed=seed, settings=settings, reporter=reporter)
        differing = candidate.decisions(test, settings.batch) != reference
        if float(differing.float().mean()) <= goal:
            best, high = candidate, middle
        else:
            low = middle + 1
    limited = any((getattr(budget, kind) or 1.0) < 1 for kind in KINDS)
    if limited and best.report.flops == best.report.parent_flops:
        raise BudgetError(
            f"No network within the budget predicts as the unpruned one on all but {goal:.2%} of the images.",
            hint="Allow a larger --max-loss or a larger --budget, or give more images with --tune.",
        )
    return best
