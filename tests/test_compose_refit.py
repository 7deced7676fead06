from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.compose import Budget, compose, parts_of
from modhub.compose.heads import CALIBRATION_FIELDS, HeadTensors, JoinedHead
from modhub.compose.plans import plans
from modhub.compose.recalibrating import recalibrated
from modhub.compose.refit import refit_head, refit_network
from modhub.compose.synthetic import dead_leaves
from modhub.compose.tuning import distilled, even_shares, held_apart, shares, tuning_images
from modhub.data import ImageSet
from modhub.decompose.compensation import cut
from modhub.nets import Mask, Network, Runner, fuse_batch_norm
from modhub.preprocessing import Preprocess
from tests.digit_parents import INPUT, digit_modules, digit_parent, digits, pixels_of


def _cut(fraction: float) -> tuple[Network, Network, Mask]:
    (plan,) = plans(parts_of(digit_modules(), ["1", "4"]))
    mask = plan.mask(Budget(flops=fraction))
    head = digit_parent().head
    slim, _, _ = cut(plan.trunk, mask, plan.space, plan.statistics(), head.weight, head.bias)
    return fuse_batch_norm(plan.trunk), fuse_batch_norm(slim), mask


def _inputs(split: str) -> torch.Tensor:
    return Preprocess(INPUT)(next(digits("14", split).batches(400))[0])


@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_a_refit_network_is_nearer_to_its_parent_on_other_images(fraction: float) -> None:
    (plan,) = plans(parts_of(digit_modules(), ["1", "4"]))
    dense, slim, mask = _cut(fraction)
    fitted, goal, features = refit_network(dense, slim, plan.space, mask, _inputs("train"))
    assert fitted.graph.shapes == slim.graph.shapes
    kept = torch.from_numpy(plan.space.kept(mask, plan.trunk.graph.output).copy())
    with torch.inference_mode():
        torch.testing.assert_close(Runner(fitted)(_inputs("train")), features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(Runner(dense)(_inputs("train")), goal, atol=1e-4, rtol=1e-4)
        other = Runner(dense)(_inputs("test"))[:, kept]
        before = (Runner(slim)(_inputs("test")) - other).square().mean()
        after = (Runner(fitted)(_inputs("test")) - other).square().mean()
    assert after < 0.7 * before


def test_nothing_cut_changes_nothing() -> None:
    (plan,) = plans(parts_of(digit_modules(), ["1", "4"]))
    dense = fuse_batch_norm(plan.trunk)
    fitted, _, _ = refit_network(dense, dense, plan.space, plan.space.full_mask(), _inputs("train"))
    assert fitted.sha256 == dense.sha256


def test_the_same_seed_gives_the_same_network() -> None:
    parts = parts_of(digit_modules(), ["1", "4"])
    one, two = (compose(parts, budget=Budget(flops=0.4), tune=digits("14"), seed=3) for _ in range(2))
    assert one.trunk_passes[0].trunk.network.sha256 == two.trunk_passes[0].trunk.network.sha256


def test_labels_of_tuning_images_are_not_looked_at() -> None:
    parts, images = parts_of(digit_modules(), ["1", "4"]), digits("14")
    plain = compose(parts, budget=Budget(flops=0.4), tune=images.subset(range(60)))
    blind = images.subset(range(60))
    blind.targets = np.zeros_like(blind.targets)
    assert (
        compose(parts, budget=Budget(flops=0.4), tune=blind).trunk_passes[0].trunk.network.sha256
        == plain.trunk_passes[0].trunk.network.sha256
    )


def test_a_head_is_pulled_to_what_it_was_and_to_its_goal() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=draw)
    weight, bias = torch.randn(2, 4, generator=draw), torch.randn(2, generator=draw)
    found = refit_head(weight, bias, features @ weight.T + bias, features)
    torch.testing.assert_close(found[0], weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], bias, atol=1e-4, rtol=1e-4)
    moved, _ = refit_head(weight, bias, features @ (2 * weight).T + bias, features)
    torch.testing.assert_close(moved, 2 * weight, atol=0.1, rtol=0.1)


def test_distillation_never_moves_away_from_the_parent() -> None:
    dense, slim, mask = _cut(0.4)
    (plan,) = plans(parts_of(digit_modules(), ["1", "4"]))
    head = digit_parent().head
    kept = torch.from_numpy(plan.space.kept(mask, plan.trunk.graph.output).copy())
    images = _inputs("train")
    rows = head.weight[:, kept], head.bias
    with torch.inference_mode():
        answers = Runner(dense)(images) @ head.weight.T + head.bias
    trained = distilled(slim, rows, images, answers.clone(), seed=0)
    held, used = held_apart(len(images), 5, copies=True)
    assert not set(held.tolist()) & set(used.tolist())

    def apart(network: Network) -> float:
        with torch.inference_mode():
            found = Runner(network)(images[held]) @ rows[0].T + rows[1]
        off = (found - found.mean(1, keepdim=True)) - (answers - answers.mean(1, keepdim=True))[held]
        return float(off.square().mean())

    assert apart(trained) <= apart(slim)


def test_dead_leaves_depend_on_their_seed_alone() -> None:
    one = dead_leaves(3, 100, 80, 5)
    assert one.shape == (3, 3, 100, 80)
    assert one.dtype == torch.uint8
    assert torch.equal(one, dead_leaves(3, 100, 80, 5))
    assert not torch.equal(one, dead_leaves(3, 100, 80, 6))
    assert one.float().std() > 10


def test_tuning_images_come_with_changed_copies() -> None:
    preprocess = Preprocess(INPUT)
    found = tuning_images(digits("14").subset(range(20)), preprocess, 0)
    assert found.shape == (80, 1, 8, 8)
    pixels, _ = next(digits("14").subset(range(20)).batches(20))
    torch.testing.assert_close(found[:20], preprocess(pixels))
    rounds = torch.split(found, 20)
    for one, other in itertools.combinations(rounds, 2):
        assert not torch.equal(one, other)
    held, used = held_apart(len(found), 4, copies=True)
    assert held.tolist() == [0, 4, 8, 12, 16]
    assert not {index % 20 for index in used.tolist()} & set(held.tolist()), "no copy of a held image is used"


@settings(max_examples=40, deadline=None)
@given(
    stretch=st.floats(0.2, 3.0),
    shift=st.floats(-5.0, 5.0),
    classes=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_recalibration_undoes_what_a_slim_network_does_to_all_margins(
    stretch: float, shift: float, classes: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    sides = draw.normal(np.where(draw.random((400, classes)) < 0.3, 6.0, -3.0), 2.0)
    numbers = {"temperature": 1.0, "slope": 0.8, "intercept": -0.5, "margin_mean": 5.0, "margin_std": 2.0}
    calibration = torch.tensor([[numbers.get(name, -1.6)] * classes for name in CALIBRATION_FIELDS])
    whole = torch.from_numpy(sides).float()
    slim = stretch * whole + shift
    before, after = (
        JoinedHead(HeadTensors(*(torch.zeros(classes, 2), torch.zeros(classes)) * 2, each, torch.ones(2)))
        for each in (calibration, recalibrated(calibration, whole, slim))
    )
    if classes == 1:
        assert torch.allclose(after.log_odds(slim), before.log_odds(whole), atol=0.02)
    else:
        assert torch.equal(after.field("slope"), before.field("slope"))
    assert torch.allclose(after.evidence(slim), before.evidence(whole), atol=1e-3)


def test_a_single_class_under_a_budget_says_yes_as_often_as_its_parent() -> None:
    parts, images = parts_of(digit_modules(), ["3"]), digits("012345", "test")
    pixels, targets = pixels_of(images)
    with torch.inference_mode():
        whole = compose(parts, budget=Budget(flops=1.0))(pixels)[:, 0] > 0
        slim = compose(parts, budget=Budget(flops=0.3), tune=digits("012345"))(pixels)[:, 0] > 0
    own = targets == 3
    assert float(whole[own].float().mean()) > 0.9
    assert float(slim[own].float().mean()) > float(whole[own].float().mean()) - 0.1
    assert float(slim[~own].float().mean()) < float(whole[~own].float().mean()) + 0.1


def numbered(per_class: int) -> ImageSet:
    """Images of six classes that are all different."""
    targets = np.repeat(np.arange(6), per_class)
    return ImageSet("numbered", "train", "012345", targets, lambda i: np.array([[[i % 256]], [[i // 256]]]))


def contents(images: ImageSet) -> set[bytes]:
    return {each.tobytes() for each in images.images(range(len(images)))}


@pytest.mark.parametrize(("per_class", "fitted", "checked"), [(20, 120, 0), (100, 600, 0), (110, 600, 60)])
def test_images_to_check_on_are_not_fitted_on(per_class: int, fitted: int, checked: int) -> None:
    fit, others = shares(numbered(per_class), digit_parent().trunk, 0)
    assert fit.counts().tolist() == [fitted // 6] * 6
    assert (others is None) == (checked == 0)
    if others is not None:
        assert others.counts().tolist() == [checked // 6] * 6
        assert (len(contents(fit)), len(contents(others))) == (fitted, checked)
        assert not contents(fit) & contents(others)


@pytest.mark.parametrize(
    ("per_class", "fitted", "checked"),
    [(50, (40, 200), (10, 50)), (300, (240, 360), (60, 300)), (1000, (300, 300), (167, 833))],
)
def test_yes_and_no_are_fitted_on_alike(
    per_class: int, fitted: tuple[int, int], checked: tuple[int, int]
) -> None:
    images = numbered(per_class)
    fit, others = even_shares(images, images.targets == 2, digit_parent().trunk, 0)
    for part, (yes, no) in ((fit, fitted), (others, checked)):
        assert abs(int((part.targets == 2).sum()) - yes) <= (0 if part is fit else 20)
        assert len(contents(part)) == len(part) == yes + no
    assert not contents(fit) & contents(others)
