"""Residual branches that go as a whole."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modhub.importing import import_module
from modhub.nets import (
    OPERATOR_FLOPS,
    ChannelSpace,
    Mask,
    Network,
    Runner,
    channel_space,
    cost,
    fuse_batch_norm,
    slice_network,
    split_head,
    weightless,
)
from modhub.nets.architectures import ARCHITECTURES
from tests.nets.test_properties import IMAGES as NOISE
from tests.nets.test_properties import QUICK
from tests.support.random_nets import networks
from tests.support.small_nets import FAMILIES, random_masks, settle, slice_difference

SHAPE = (3, 64, 64)
IMAGES = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
BRANCHES = {
    "vgg_bn": 0,
    "densenet": 0,
    "resnet": 4,
    "resnext": 4,
    "wide_resnet": 4,
    "mobilenet_v2": 1,
    "mobilenet_v3": 2,
    "regnet_y": 4,
    "convnext": 3,
}


@cache
def trunk_of(name: str) -> Network:
    return split_head(import_module(settle(FAMILIES[name](), SHAPE), SHAPE))[0]


def without(space: ChannelSpace, mask: Mask, numbers: range) -> Mask:
    mask = mask.copy()
    for number in numbers:
        mask[space.branches[number].slots] = False
    return mask


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_of_families(name: str) -> None:
    """Every one of them, alone and together with channels, leaves what zeros in its place would."""
    trunk = trunk_of(name)
    space = channel_space(trunk)
    assert len(space.branches) == BRANCHES[name]
    for number, branch in enumerate(space.branches):
        for mask in (space.full_mask(), random_masks(space)[2]):
            cut = without(space, mask, range(number, number + 1))
            sliced = slice_network(trunk, cut, space=space)
            assert not branch.nodes & set(sliced.graph.node)
            assert sliced.graph.node[branch.sum].op == "add_constant"
            assert slice_difference(trunk, cut, space, IMAGES) < 1e-4
            assert torch.allclose(
                Runner(fuse_batch_norm(sliced))(IMAGES), Runner(sliced)(IMAGES), atol=1e-4, rtol=1e-4
            )
            assert cost(slice_network(weightless(trunk), cut, space=space)) == cost(sliced)
    every = without(space, space.full_mask(), range(len(space.branches)))
    assert slice_difference(trunk, every, space, IMAGES) < 1e-4


@QUICK
@given(networks(), st.integers(0, 1 << 16))
def test_branches_of_any_network_go(network: Network, seed: int) -> None:
    space = channel_space(network)
    draw = np.random.default_rng(seed)
    mask = draw.random(space.slots) < 0.8
    for branch in space.branches:
        if draw.random() < 0.6:
            mask[branch.slots] = False
    assert slice_difference(network, mask, space, NOISE) < 1e-4


def test_resnet20_has_nine_branches_of_one_group_each() -> None:
    network = import_module(ARCHITECTURES["resnet20"].build(10), (3, 32, 32))
    space = channel_space(network, keep_output=True)
    assert [branch.sum for branch in space.branches] == [
        f"layer{stage}.{block}.add" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert [group.size for branch in space.branches for group in space.groups_of(branch)] == [
        size for size in (16, 32, 64) for _ in range(3)
    ]


def test_half_a_branch_does_not_go() -> None:
    """A bottleneck has two groups of its own: without one the other keeps a channel of both."""
    space = channel_space(trunk_of("wide_resnet"))
    branch = space.branches[1]
    first, second = space.groups_of(branch)
    mask = space.full_mask()
    mask[first.slots] = False
    closed = space.close(mask)
    assert closed[first.slots].sum() == 1
    assert closed[second.slots].all()
    assert branch not in space.gone(closed)
    mask[second.slots] = False
    assert np.array_equal(space.close(mask), mask)
    assert space.gone(mask) == (branch,)


def test_an_operator_costs_time_of_its_own() -> None:
    trunk = trunk_of("resnet")
    space = channel_space(trunk)
    whole, thin = (
        cost(slice_network(trunk, without(space, space.full_mask(), range(count)), space=space))
        for count in (0, 1)
    )
    assert whole.time == whole.flops + OPERATOR_FLOPS * whole.operators
    # Two convolutions and an activation; what is left of the branch is added like the branch was.
    assert whole.operators - thin.operators == 3
    assert cost(fuse_batch_norm(trunk)).operators == whole.operators


@pytest.mark.parametrize("name", FAMILIES)
def test_values_are_overwritten_only_where_nobody_sees_it(name: str) -> None:
    """In inference mode the answers are the same to the bit, the input stays, and observed values do too."""
    runner = Runner(trunk_of(name))
    kept = IMAGES.clone()
    with torch.no_grad():
        plain = runner(IMAGES)
        values = [node.name for node in runner.network.graph.nodes if node.op in ("conv2d", "add")]
        seen = runner.observe(IMAGES, values)
    with torch.inference_mode():
        assert torch.equal(runner(IMAGES), plain)
        assert torch.equal(IMAGES, kept)
        again: dict[str, Tensor] = runner.observe(IMAGES, values)
    assert all(torch.equal(seen[value], again[value]) for value in values)
