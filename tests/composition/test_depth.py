"""Budgets of time: whole residual branches go."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.budget import RelativeCost
from modhub.composition.choose_channels import ChannelChooser, mask_within
from modhub.composition.choose_depth import choose_depth
from modhub.composition.fitting.sources import FittingSource
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.trunk_plan import TrunkPlan, trunk_plans
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.errors import BudgetError
from modhub.evaluation.evaluate import evaluate
from modhub.importing import import_module
from modhub.nets import (
    Mask,
    Network,
    Runner,
    channel_space,
    cost,
    fuse_batch_norm,
    slice_network,
    without_constants,
)
from modhub.pruning.baselines import random_order
from modhub.pruning.compensation import cut
from modhub.pruning.depth import branch_order, evenly
from modhub.pruning.order import PruningOrder, mask_after, pruning_order, slot_costs
from tests.nets.test_branches import trunk_of
from tests.support.digit_parents import INPUT, digits
from tests.support.quick import QUICK, SHORT

BLOCKS = 4
LIMITS = (0.9, 0.7, 0.5)
IDLE = 2
"""The block whose branch says nearly nothing."""


class DeepDigitNet(nn.Module):
    """conv-bn-relu, four residual blocks, average, linear; (batch, 1, 8, 8) to (batch, classes)."""

    def __init__(self, classes: int, width: int = 10) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.one = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(BLOCKS))
        self.two = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(BLOCKS))
        self.head = nn.Linear(width, classes)
        with torch.no_grad():
            for layer in self.two:
                layer.weight.mul_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        for number, (one, two) in enumerate(zip(self.one, self.two, strict=True)):
            branch = two(F.relu(one(x)))
            x = F.relu(x + (1e-3 * branch if self.training and number == IDLE else branch))
            x = F.max_pool2d(x, 2) if number == 1 else x
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@cache
def deep_modules(labels: str = "0123") -> ModuleSet:
    images = digits(labels)
    pixels, order = next(images.batches(len(images)))
    inputs, targets = Preprocess(INPUT)(pixels), torch.from_numpy(images.targets[order])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DeepDigitNet(len(labels)).train()
        optimiser = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12)
        for _ in range(12):
            for batch in torch.randperm(len(inputs)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
                optimiser.step()
            schedule.step()
        with torch.no_grad():
            for parameter in model.two[IDLE].parameters():
                parameter.mul_(1e-3)
    parent = Parent.of(
        import_module(model.eval(), (1, 8, 8)),
        name="deep-digits",
        architecture="deep-digit-net",
        labels=tuple(labels),
        input=INPUT,
        license="MIT",
        dataset="digits",
    )
    options = DecomposeOptions(images_per_class=50, calibration_images=30)
    return assemble(parent, decompose(parent, images, options=options))


def deep_parts() -> list[Part]:
    return parts_of(deep_modules(), ["1", "3"])


def deep_plan() -> TrunkPlan:
    (plan,) = trunk_plans(deep_parts())
    return plan


@cache
def composed(time: float) -> ComposedClassifier:
    return compose(deep_parts(), budget=Budget(time=time), settings=SHORT)


def cost_of_mask(mask: Mask) -> RelativeCost:
    plan = deep_plan()
    sliced = slice_network(plan.trunk, mask, space=plan.space)
    return RelativeCost.of(without_constants(sliced, plan.space, mask), plan.trunk)


def cost_of(classifier: ComposedClassifier) -> RelativeCost:
    plan, (trunk,) = deep_plan(), classifier.trunk_passes
    return RelativeCost.of(trunk.trunk.network, fuse_batch_norm(plan.trunk))


@pytest.mark.parametrize("limit", LIMITS)
def test_a_budget_of_time_is_never_exceeded(limit: float) -> None:
    found = composed(limit)
    assert cost_of(found).time <= limit
    whole = evaluate(compose(deep_parts(), budget=Budget(flops=1.0)), digits("13", "test")).top1
    assert evaluate(found, digits("13", "test")).top1 > whole - 0.15


def test_time_is_saved_by_fewer_layers() -> None:
    """Thin layers take the time of wide ones, so channels alone cannot save half of it here."""
    operators = [cost(composed(limit).trunk_passes[0].trunk.network).operators for limit in LIMITS]
    assert operators == sorted(operators, reverse=True)
    assert operators[-1] < cost(fuse_batch_norm(deep_plan().trunk)).operators - 3


def test_the_idle_branch_goes_first() -> None:
    plan = deep_plan()
    images = Preprocess(INPUT)(next(digits("13").batches(60))[0])

    def margins(network: Network) -> Tensor:
        with torch.inference_mode():
            return plan.unpruned.heads[0].margins(Runner(network)(images))

    order = branch_order(plan.unpruned.trunk.network, images, margins)
    sums = [branch.sum for branch in plan.space.branches]
    assert len(sums) == BLOCKS
    assert sorted(order) == sorted(sums)
    assert order[0] == sums[IDLE]
    assert sums[IDLE] not in composed(0.7).trunk_passes[0].trunk.network.graph.node


def test_both_limits_hold() -> None:
    found = cost_of(compose(deep_parts(), budget=Budget(flops=0.4, time=0.8), settings=QUICK))
    assert found.flops <= 0.4
    assert found.time <= 0.8


def test_a_time_that_cannot_be_met_says_what_can() -> None:
    with pytest.raises(BudgetError, match=r"meets time=0\.01: .* time=0\.\d+ of its parent"):
        compose(deep_parts(), budget=Budget(time=0.01))


def test_the_control_leaves_out_branches_at_random() -> None:
    plan = deep_plan()
    masks = [ChannelChooser(plan, seed).mask(Budget(time=0.7)) for seed in range(4)]
    gone = [tuple(branch.sum for branch in plan.space.gone(mask)) for mask in masks]
    assert all(gone)
    assert len(set(gone)) > 1
    assert all(cost_of_mask(mask).time <= 0.7 for mask in masks)


def test_a_loss_and_a_time() -> None:
    budget, few = Budget(time=0.8, max_loss=0.1), replace(QUICK, loss_budgets=(0.4, 0.7))
    found = compose(deep_parts(), budget=budget, tune=digits("0123").sample(30, 0), settings=few)
    assert cost_of(found).time <= 0.8
    assert evaluate(found, digits("13", "test")).top1 > 0.85


def test_without_residual_branches_channels_save_the_time() -> None:
    """Of a chain nothing but channels can go, and what they do not save cannot be met."""
    network = fuse_batch_norm(trunk_of("vgg_bn"))
    space = channel_space(network)
    assert not space.branches
    order = random_order(space, 0, branches=True)
    whole = cost(network)
    limit = 1 - 0.5 * whole.flops / whole.time
    mask = mask_within(network, space, order, Budget(time=limit))
    assert RelativeCost.of(slice_network(network, mask, space=space), network).time <= limit
    with pytest.raises(BudgetError, match="meets time="):
        mask_within(network, space, order, Budget(time=0.9 * (1 - whole.flops / whole.time)))


def test_what_is_left_of_a_branch_is_its_mean() -> None:
    """But at the border of the image, where the last layer reads zeros and moments know nothing of them."""
    plan = deep_plan()
    branch = plan.space.branches[1]
    mask = plan.space.full_mask()
    mask[branch.slots] = False
    weight = torch.zeros(1, plan.trunk.graph.shapes[plan.trunk.graph.output][0])
    sliced, _, _ = cut(plan.trunk, mask, plan.space, plan.statistics, weight, torch.zeros(1))
    images = Preprocess(INPUT)(next(digits("13").batches(80))[0])
    with torch.inference_mode():
        seen = Runner(plan.trunk).observe(images, [branch.sum, branch.other])
    wanted = (seen[branch.sum] - seen[branch.other])[..., 1:-1, 1:-1].mean((0, 2, 3))
    found = sliced.of(sliced.graph.node[branch.sum])["value"].flatten()
    assert float((found - wanted).norm() / wanted.norm()) < 0.5


def test_constants_go_where_a_fit_takes_them_over() -> None:
    plan = deep_plan()
    mask = plan.space.full_mask()
    branch = plan.space.branches[0]
    mask[branch.slots] = False
    sliced = slice_network(plan.trunk, mask, space=plan.space)
    bare = without_constants(sliced, plan.space, mask)
    # The constant, and an activation of what is activated already.
    assert len(sliced.graph.nodes) - len(bare.graph.nodes) == 2
    assert without_constants(plan.trunk, plan.space, plan.space.full_mask()).graph == plan.trunk.graph
    zero = {name: torch.zeros_like(each) for name, each in sliced.of(sliced.graph.node[branch.sum]).items()}
    images = Preprocess(INPUT)(next(digits("13").batches(20))[0])
    torch.testing.assert_close(
        Runner(bare)(images), Runner(sliced.with_tensors(branch.sum, **zero))(images), atol=1e-5, rtol=1e-5
    )


def test_the_order_ends_with_every_branch_gone() -> None:
    plan = deep_plan()
    statistics = plan.statistics
    assert statistics is not None
    order = pruning_order(statistics, plan.space, slot_costs(plan.trunk, plan.space), branches=True)
    every = sorted(int(slot) for branch in plan.space.branches for slot in branch.slots)
    assert set(every) <= set(order.slots.tolist())
    last = mask_after(order, len(order.slots), plan.space)
    assert len(plan.space.gone(last)) == BLOCKS


@pytest.mark.parametrize("multiple", [1, 3])
def test_no_half_of_a_bottleneck_is_left(multiple: int) -> None:
    trunk = trunk_of("wide_resnet")
    space = channel_space(trunk)
    draw = np.random.default_rng(0)
    slots = draw.permutation(np.concatenate([branch.slots for branch in space.branches]))
    order = PruningOrder(slots, np.arange(len(slots), dtype=np.float64))
    before = space.full_mask()
    for count in range(0, len(slots) + 1, 3):
        mask = mask_after(order, count, space, multiple)
        for branch in space.branches:
            left = {bool(mask[group.slots].any()) for group in space.groups_of(branch)}
            assert len(left) == 1
        assert not (mask & ~before).any()
        before = mask


def test_evenly_takes_all_when_there_are_few() -> None:
    images = torch.arange(7.0)[:, None]
    assert evenly(images, 9).tolist() == images.tolist()
    assert evenly(images, 3).flatten().tolist() == [0.0, 3.0, 6.0]


def test_synthetic_images_are_enough() -> None:
    """Networks of several depths are refitted on what modules carry alone, and one of them is taken."""
    plan = deep_plan()
    budget = Budget(time=0.7)
    data = FittingSource(None, ImageSynthesizer()).data(plan, budget)
    assert data is not None
    chooser = ChannelChooser(plan)
    assert plan.space.gone(choose_depth(chooser, chooser.mask(budget), budget, data, seed=0))
