"""Sensitivity and the order of channels, on networks whose slots have one channel or several."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modhub.calibration.margins import margin_head
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data.preprocessing import Preprocess
from modhub.importing import import_module
from modhub.nets import Head, Network, Runner, channel_space, split_head
from modhub.pruning.order import pruning_order
from modhub.pruning.sensitivity import sensitivity_sums
from modhub.pruning.statistics import ClassStatistics, observe
from tests.support.digit_parents import INPUT, digit_parent, digits
from tests.support.small_vit import small_vit


@cache
def transformer() -> tuple[Network, ClassStatistics, Head, Tensor]:
    """Of four heads, each of two features; statistics of its class 1 over `images`."""
    torch.manual_seed(0)
    module = small_vit(3, channels=3, size=16, patch=4, width=8).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
    trunk, head = split_head(import_module(module, (3, 16, 16)))
    images = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    space = channel_space(trunk)
    margin = margin_head(one_against_rest_head(head.weight, head.bias, 1))
    return trunk, observe(Runner(trunk), images.split(7), space, margin), head, images


@given(
    layout=st.lists(st.integers(-1, 4), min_size=1, max_size=7),
    places=st.sampled_from([(), (3,), (2, 2)]),
    seed=st.integers(0, 2**32 - 1),
    split=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_it_is_what_a_linear_margin_moves_by(
    layout: list[int], places: tuple[int, ...], seed: int, split: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    value = torch.randn(10, len(layout), *places, generator=draw) + 3
    gradient = torch.randn(value.shape, generator=draw)
    graph, classes = transformer()[0].graph, torch.zeros(10, dtype=torch.int64)
    sums = sensitivity_sums(graph, np.array(layout))
    for part in (slice(None, split), slice(split, None)):
        sums.add(value[part], gradient[part], classes[part])
    samples = value.movedim(1, -1).flatten(0, -2).double().numpy()
    mean, variance = samples.mean(0), samples.var(0)
    found = sums.sensitivity(mean, variance, 10)
    moved = (value.double().numpy().swapaxes(1, -1) - mean).swapaxes(1, -1) * gradient.double().numpy()
    moved = moved.reshape(10, len(layout), -1).sum(2)
    for channel, slot in enumerate(layout):
        together = np.array(layout) == slot if slot >= 0 else np.arange(len(layout)) == channel
        wanted = float((moved[:, together].sum(1) ** 2).mean())
        assert found[channel] * variance[together].sum() == pytest.approx(wanted, rel=1e-4)


def test_a_large_slot_beside_many_small_ones_takes_little_memory() -> None:
    """Every slot has the room of the largest that is kept together."""
    layout = np.array([0] * 200 + list(range(1, 1001)))
    graph = transformer()[0].graph
    assert sensitivity_sums(graph, layout).sums.numel() <= 3 * 256 * len(layout)
    heads = np.repeat(np.arange(12), 64)
    assert sensitivity_sums(graph, heads).sums.shape == (1, 3, 12, 64, 64)


@pytest.mark.parametrize("attention", [False, True])
def test_classes_are_summed_apart(attention: bool) -> None:
    graph = (transformer()[0] if attention else digit_parent().trunk).graph
    draw = torch.Generator().manual_seed(0)
    value, gradient = torch.randn(2, 12, 4, 5, generator=draw)
    place = torch.arange(12) % 3
    layout, mean, variance = np.array([0, 1, 1, 2]), np.zeros(4), np.ones(4)
    together = sensitivity_sums(graph, layout, classes=3)
    together.add(value, gradient, place)
    for row in range(3):
        alone = sensitivity_sums(graph, layout)
        alone.add(value[place == row], gradient[place == row], torch.zeros(4, dtype=torch.int64))
        np.testing.assert_allclose(
            together.sensitivity(mean, variance, 4, row), alone.sensitivity(mean, variance, 4)
        )


@pytest.mark.parametrize("block", [0, 1])
def test_a_head_is_worth_what_the_margin_moves_by_without_it(block: int) -> None:
    """A hundredth of it replaced by its mean, times a hundred: the first order."""
    trunk, statistics, head, images = transformer()
    space = channel_space(trunk)
    reader = trunk.graph.node[f"blocks.{block}.attn.proj"]
    value, tensors = reader.inputs[0], trunk.of(reader)
    margin = margin_head(one_against_rest_head(head.weight, head.bias, 1))
    moments, sensitivity = statistics.moments[value], statistics.sensitivity[value]
    mean = torch.from_numpy(moments.mean).float()
    with torch.inference_mode():
        whole = margin(Runner(trunk)(images))
        for slot in np.unique(space.of(value)).tolist():
            channels = np.flatnonzero(space.of(value) == slot)
            assert len(channels) == 2
            part = torch.zeros_like(tensors["weight"])
            part[:, channels] = 0.01 * tensors["weight"][:, channels]
            less = trunk.with_tensors(
                reader.name, weight=tensors["weight"] - part, bias=tensors["bias"] + part @ mean
            )
            moved = 100 * (margin(Runner(less)(images)) - whole)
            worth = sensitivity[channels] @ moments.variance[channels]
            assert worth == pytest.approx(float(moved.square().mean()), rel=0.05)


def _digits() -> tuple[Network, ClassStatistics]:
    parent, images = digit_parent(), digits("012345")
    own = images.subset(np.flatnonzero(images.targets == 3)[:60])
    batches = (Preprocess(INPUT)(pixels) for pixels, _ in own.batches(60))
    margin = margin_head(one_against_rest_head(parent.head.weight, parent.head.bias, 3))
    return parent.trunk, observe(Runner(parent.trunk), batches, channel_space(parent.trunk), margin)


@pytest.mark.parametrize(("which", "block"), [("digits", 1), ("digits", 3), ("digits", 64), ("heads", 3)])
def test_the_order_is_that_of_plain_elimination(which: str, block: int) -> None:
    """Slot by slot as the paper on optimal brain surgeons does it: the one whose best linear guess from those
    that stay costs the margin least goes, and what was asked of it is asked of them."""
    trunk, statistics = _digits() if which == "digits" else transformer()[:2]
    space = channel_space(trunk)
    order = pruning_order(statistics, space, np.ones(space.slots), block=block)
    compared = 0
    for group in (each for each in space.groups if each.cuttable and each.size > 1):
        found = [slot for slot in order.slots if group.start <= slot < group.start + group.size]
        left, forms = list(range(group.start, group.start + group.size)), {}
        for name, moments in statistics.moments.items():
            channels = np.flatnonzero(np.isin(space.of(name), left))
            if len(channels):
                covariance = moments.covariance[np.ix_(channels, channels)].astype(np.float64)
                covariance += np.eye(len(channels)) * 1e-4 * np.diagonal(covariance).mean()
                form = np.diag(statistics.sensitivity[name][channels])
                forms[name] = space.of(name)[channels], covariance, form
        for gone in found:
            charges = dict.fromkeys(left, 0.0)
            for slots, covariance, form in forms.values():
                for slot in np.unique(slots).tolist():
                    inside, rest = slots == slot, slots != slot
                    guess = np.linalg.solve(covariance[rest][:, rest], covariance[rest][:, inside])
                    error = covariance[inside][:, inside] - covariance[inside][:, rest] @ guess
                    charges[slot] += np.trace(form[inside][:, inside] @ error)
            assert charges[gone] == pytest.approx(min(charges.values()), rel=1e-6)
            for name, (slots, covariance, form) in forms.items():
                inside, rest = slots == gone, slots != gone
                onto = np.zeros((len(slots), int(rest.sum())))
                onto[rest] = np.eye(int(rest.sum()))
                onto[inside] = np.linalg.solve(covariance[rest][:, rest], covariance[rest][:, inside]).T
                forms[name] = slots[rest], covariance[rest][:, rest], onto.T @ form @ onto
            left.remove(gone)
            compared += 1
    assert compared > 20
