"""How many residual branches go where time is limited.

A thin layer takes nearly the time of a wide one, so time is saved by fewer layers. Saliencies of channels and
of layers do not compare: more and more branches are left out, in one order for all budgets, channels save the
rest, and each network is refitted on some of the images. The one that comes closest to its parent's margins
is taken. So a larger budget may keep fewer branches and more channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modhub.composition.budget import Budget
from modhub.composition.choose_channels import ChannelChooser, mask_within
from modhub.composition.classifier import TrunkPass
from modhub.composition.fitting.data import FittingData
from modhub.composition.fitting.fit import fit_trunk
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.nets import Mask, Network, Runner, cost
from modhub.pruning.baselines import with_first
from modhub.pruning.depth import branch_order, distance, evenly
from modhub.reporter import SILENT, Reporter


def choose_depth(
    chooser: ChannelChooser,
    mask: Mask,
    budget: Budget,
    data: FittingData,
    *,
    seed: int,
    settings: FitSettings = DEFAULT_SETTINGS,
    reporter: Reporter = SILENT,
) -> Mask:
    """`mask`, which is the chooser's within `budget`, or one with more residual branches gone; `mask` itself
    where time is not limited or modules carry no statistics. Raises `BudgetError`."""
    plan = chooser.plan
    if budget.time is None or mask.all() or plan.statistics is None:
        return mask
    with reporter.step("choose layers"):
        order = _branches(chooser, data, settings)
        slots = {branch.sum: branch.slots for branch in plan.space.branches}
        trial = data.for_trial(settings.depth_images)
        wanted = _margins(plan.unpruned, data.validation, settings.batch)
        best, least, worse = mask, math.inf, 0
        for count in range(0, len(order) + 1, max(1, round(len(order) / settings.depth_steps))):
            candidate = mask
            if count:
                first = with_first(chooser.order, [slots[name] for name in order[:count]])
                candidate = mask_within(plan.trunk, plan.space, first, budget)
            fitted = fit_trunk(plan, candidate, trial, seed=seed, settings=settings)
            off = distance(_margins(fitted, data.validation, settings.batch) - wanted)
            if off < least:
                best, least, worse = candidate, off, 0
            else:
                worse += 1
            if worse == 2:
                break
    return best


def _branches(chooser: ChannelChooser, data: FittingData, settings: FitSettings) -> tuple[str, ...]:
    """All residual branches in the order in which they go."""
    unpruned = chooser.plan.unpruned
    dense, (fewest, most) = unpruned.trunk.network, settings.branch_images
    affordable = settings.branch_work / max(len(chooser.plan.space.branches) * cost(dense).flops, 1)
    images = evenly(data.refit, int(min(max(affordable, fewest), most)))
    return branch_order(dense, images, lambda network: _margins(unpruned, images, settings.batch, network))


def _margins(trunk_pass: TrunkPass, images: Tensor, batch: int, network: Network | None = None) -> Tensor:
    """(images, classes): the margins for normalised images, centred in every head of several classes; of
    another `network` in the place of the pass's."""
    run = trunk_pass.trunk if network is None else Runner(network)
    with torch.inference_mode():
        features = torch.cat([run(part) for part in torch.split(images, batch)])
        margins = [head.margins(features) for head in trunk_pass.heads]
    return torch.cat(
        [of_head - of_head.mean(1, keepdim=True) if of_head.shape[1] > 1 else of_head for of_head in margins],
        1,
    )
