from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.composition import Budget, ComposedClassifier, choose_channels, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser, mask_within
from modhub.composition.compiler import join_passes
from modhub.composition.fitting.data import FittingData
from modhub.composition.fitting.decoded import decoded_once
from modhub.composition.fitting.distillation import ScoredNetwork, Trainer, matched_values
from modhub.composition.fitting.fit import fit_trunk
from modhub.composition.fitting.recalibration import HeadScores, recalibrated
from modhub.composition.fitting.reconstruction import refit_head, refit_network
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.sources import FittingSource, synthesis_targets
from modhub.composition.fitting.synthesis import dead_leaves
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.fitting.transfer_set import ImageTransferSet, SyntheticTransferSet
from modhub.composition.fitting.tuning_set import TuningSet, every_nth, images_to_classify
from modhub.composition.heads import CALIBRATION_FIELDS, HeadTensors, JoinedHead
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.importing import import_module
from modhub.nets import (
    ChannelSpace,
    Mask,
    Network,
    Runner,
    channel_space,
    cost,
    fuse_batch_norm,
    slice_network,
    value_bytes,
)
from modhub.pruning.compensation import cut
from modhub.pruning.order import PruningOrder
from tests.support.digit_parents import INPUT, digit_modules, digit_parent, digits, pixels_of
from tests.support.quick import QUICK, SHORT


def _cut(fraction: float) -> tuple[Network, Network, Mask]:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    mask = ChannelChooser(plan).mask(Budget(flops=fraction))
    head = digit_parent().head
    slim, _, _ = cut(plan.trunk, mask, plan.space, plan.statistics, head.weight, head.bias)
    return fuse_batch_norm(plan.trunk), fuse_batch_norm(slim), mask


def _heads(mask: Mask) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """The parent's rows of the two classes, and the same on the features that `mask` keeps."""
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    head = digit_parent().head
    kept = torch.from_numpy(plan.space.kept(mask, plan.trunk.graph.output).copy())
    weight, bias = head.weight[[1, 4]], head.bias[[1, 4]]
    return (weight, bias), (weight[:, kept], bias)


def _inputs(split: str) -> torch.Tensor:
    return Preprocess(INPUT)(next(digits("14", split).batches(400))[0])


@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_a_refit_network_is_nearer_to_its_parent_on_other_images(fraction: float) -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    dense, slim, mask = _cut(fraction)
    fitted, goal = refit_network(dense, slim, plan.space, mask, _inputs("train"))
    assert fitted.graph.shapes == slim.graph.shapes
    kept = torch.from_numpy(plan.space.kept(mask, plan.trunk.graph.output).copy())
    with torch.inference_mode():
        torch.testing.assert_close(Runner(dense)(_inputs("train")), goal, atol=1e-4, rtol=1e-4)
        other = Runner(dense)(_inputs("test"))[:, kept]
        before = (Runner(slim)(_inputs("test")) - other).square().mean()
        after = (Runner(fitted)(_inputs("test")) - other).square().mean()
    assert after < 0.7 * before


class _Spread(torch.nn.Module):
    """x + f(x), where f gives one number for all channels of a place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        value = self.first(images).relu()
        return (value + self.second(value)).mean((2, 3))


def test_a_sum_that_spreads_a_layer_over_channels_is_refitted() -> None:
    dense = import_module(_Spread(), (3, 8, 8))
    space = channel_space(dense)
    mask = space.full_mask()
    mask[space.of("first")[:3]] = False
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    slim = slice_network(dense, mask, space=space)
    fitted, goal = refit_network(dense, slim, space, mask, images)
    with torch.inference_mode():
        before, after = ((Runner(each)(images) - goal[:, 3:]).square().mean() for each in (slim, fitted))
    assert after < before


def test_nothing_cut_changes_nothing() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    dense = fuse_batch_norm(plan.trunk)
    fitted, _ = refit_network(dense, dense, plan.space, plan.space.full_mask(), _inputs("train"))
    assert fitted.sha256 == dense.sha256


def test_the_same_seed_gives_the_same_network() -> None:
    parts = parts_of(digit_modules(), ["1", "4"])
    images = digits("14").subset(range(60))
    one, two = (
        compose(parts, budget=Budget(flops=0.4), tune=images, seed=3, settings=QUICK) for _ in range(2)
    )
    assert one.trunk_passes[0].trunk.network.sha256 == two.trunk_passes[0].trunk.network.sha256


def test_labels_of_tuning_images_are_not_looked_at() -> None:
    parts, images = parts_of(digit_modules(), ["1", "4"]), digits("14")
    plain = compose(parts, budget=Budget(flops=0.4), tune=images.subset(range(60)), settings=QUICK)
    blind = images.subset(range(60))
    blind.targets = np.zeros_like(blind.targets)
    assert (
        compose(parts, budget=Budget(flops=0.4), tune=blind, settings=QUICK)
        .trunk_passes[0]
        .trunk.network.sha256
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


def test_distillation_brings_a_network_nearer_to_its_parent_on_other_images() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    dense, slim, mask = _cut(0.4)
    rows, slim_rows = _heads(mask)
    slim, _ = refit_network(dense, slim, plan.space, mask, _inputs("train"))
    data = FittingData.of_images(TuningSet(digits("14")), INPUT, plan.trunk, 0)
    statistics = plan.statistics
    assert statistics is not None
    teacher, student = ScoredNetwork(dense, *rows), ScoredNetwork(slim, *slim_rows)
    trainer = Trainer(teacher, student, plan.space, mask, statistics.sensitivity, SHORT)
    trained = trainer.train(data.transfer, data.validation)

    def away(network: Network) -> float:
        with torch.inference_mode():
            answers = Runner(dense)(_inputs("test")) @ rows[0].T + rows[1]
            found = Runner(network)(_inputs("test")) @ slim_rows[0].T + slim_rows[1]
        off = (found - found.mean(1, keepdim=True)) - (answers - answers.mean(1, keepdim=True))
        return float(off.square().mean())

    assert away(trained) < 0.7 * away(slim)


def test_without_images_to_validate_or_learn_from_nothing_is_trained() -> None:
    dense, slim, mask = _cut(0.4)
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    rows, slim_rows = _heads(mask)
    trainer = Trainer(ScoredNetwork(dense, *rows), ScoredNetwork(slim, *slim_rows), plan.space, mask)
    images = _inputs("train")[:4]
    for transfer, validation in ((images, images[:0]), (images[:0], images)):
        assert trainer.train(SyntheticTransferSet(transfer, 0), validation) is slim


def test_training_that_leads_away_is_undone() -> None:
    """Validation images are like those of the parent; the transfer set is nothing like them."""
    dense, slim, mask = _cut(0.7)
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    rows, slim_rows = _heads(mask)
    images = _inputs("train")
    slim, _ = refit_network(dense, slim, plan.space, mask, images)
    trainer = Trainer(ScoredNetwork(dense, *rows), ScoredNetwork(slim, *slim_rows), plan.space, mask)
    noise = SyntheticTransferSet(1000 * torch.randn(32, *images.shape[1:]), 0)
    assert trainer.train(noise, images).sha256 == slim.sha256


def test_what_is_matched_are_the_inputs_of_layers_and_the_features_before_they_are_averaged() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    graph = plan.trunk.graph
    found = matched_values(graph, plan.space)
    statistics = plan.statistics
    assert statistics is not None
    assert set(found.values()) == set(statistics.sensitivity)
    (last,) = (name for name, known in found.items() if known == graph.output)
    assert len(graph.shapes[last]) == 3
    assert len(graph.shapes[graph.output]) == 1


def test_dead_leaves_depend_on_their_seed_alone() -> None:
    one = dead_leaves(3, 100, 80, 5)
    assert one.shape == (3, 3, 100, 80)
    assert one.dtype == torch.uint8
    assert torch.equal(one, dead_leaves(3, 100, 80, 5))
    assert not torch.equal(one, dead_leaves(3, 100, 80, 6))
    assert one.float().std() > 10


def test_images_are_augmented_anew_in_every_batch_but_for_a_quarter() -> None:
    preprocess, images = Preprocess(INPUT), digits("14").subset(range(20))
    plain = {each.numpy().tobytes() for each in preprocess(next(images.batches(20))[0])}
    transfer = ImageTransferSet(images, preprocess, 0)
    one, again, other = (transfer.batch(step, 8) for step in (0, 0, 1))
    assert one.shape == (8, 1, 8, 8)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    for batch in (one, other):
        assert [each.numpy().tobytes() in plain for each in batch] == [True] * 2 + [False] * 6
    assert len(transfer.batch(0, 64)) == 20


def test_images_are_drawn_as_often_as_their_chances_say() -> None:
    images = numbered(10)
    preprocess = Preprocess(replace(INPUT, height=2, width=1))
    chances = np.where(images.targets == 2, 5.0, 1.0)
    transfer = ImageTransferSet(images, preprocess, 0, chances / chances.sum())
    own = {each.numpy().tobytes() for each in preprocess(next(images.only("2").batches(10))[0])}
    plain = [transfer.batch(step, 1)[0].numpy().tobytes() for step in range(400)]
    assert 0.4 < np.mean([each in own for each in plain]) < 0.6


def test_synthetic_images_are_mirrored_or_not() -> None:
    images = torch.rand(6, 1, 8, 8)
    batch = SyntheticTransferSet(images, 0).batch(0, 4)
    known = [each.numpy().tobytes() for each in images]
    assert [each.numpy().tobytes() in known for each in batch] == [False, False, True, True]
    assert all(each.numpy().tobytes() in known for each in batch[:2].flip(3))


def test_fewer_images_are_synthesized_where_work_or_memory_is_short() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    trunk, targets = fuse_batch_norm(plan.trunk), synthesis_targets(plan)
    work = 3 * DEFAULT_SETTINGS.synthesis_steps * cost(trunk).flops
    # Two targets share the work; each has the memory to itself.
    for scarce, count in (
        (FitSettings(synthesis_work=2 * 20 * work), 20),
        (FitSettings(synthesis_memory=15 * value_bytes(trunk.graph)), 15),
    ):
        images = ImageSynthesizer(settings=scarce).images(trunk, INPUT, targets)
        assert images.shape == (2 * count, 1, 8, 8)


def test_the_values_of_an_image_take_their_floats() -> None:
    graph = trunk_plans(parts_of(digit_modules(), ["1"]))[0].trunk.graph
    images = torch.zeros(1, *graph.input_shape)
    values = Runner(digit_modules().trunk).observe(images, graph.shapes)
    assert value_bytes(graph) == 4 * sum(value.numel() for value in values.values())


@given(every=st.integers(2, 6), kinds=st.integers(1, 10), rounds=st.integers(1, 9))
def test_of_interleaved_images_as_many_of_every_kind_are_taken(every: int, kinds: int, rounds: int) -> None:
    count = kinds * every * rounds
    taken, others = every_nth(count, every, kinds)
    assert sorted([*taken.tolist(), *others.tolist()]) == list(range(count))
    assert np.bincount(taken % kinds, minlength=kinds).tolist() == [rounds] * kinds


def test_one_image_in_so_many_is_taken() -> None:
    taken, others = every_nth(9, 4)
    assert (taken.tolist(), others.tolist()) == ([0, 4, 8], [1, 2, 3, 5, 6, 7])


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
    said = [HeadScores(each.double().numpy(), each.double().numpy()) for each in (whole, slim)]
    before, after = (
        JoinedHead(HeadTensors(*(torch.zeros(classes, 2), torch.zeros(classes)) * 2, each, torch.ones(2)))
        for each in (calibration, recalibrated(calibration, *said, torch.ones(400)))
    )
    if classes == 1:
        assert torch.allclose(after.log_odds(slim), before.log_odds(whole), atol=0.02)
    else:
        assert torch.equal(after.field("slope"), before.field("slope"))
    assert torch.allclose(after.excess(slim) / stretch, before.excess(whole), atol=1e-3)


def test_a_single_class_under_a_budget_says_yes_as_often_as_its_parent() -> None:
    parts, images = parts_of(digit_modules(), ["3"]), digits("012345", "test")
    pixels, targets = pixels_of(images)
    with torch.inference_mode():
        whole = compose(parts, budget=Budget(flops=1.0))(pixels)[:, 0] > 0
        slim = (
            compose(parts, budget=Budget(flops=0.3), tune=digits("012345"), settings=SHORT)(pixels)[:, 0] > 0
        )
    own = targets == 3
    assert float(whole[own].float().mean()) > 0.9
    assert float(slim[own].float().mean()) > float(whole[own].float().mean()) - 0.1
    assert float(slim[~own].float().mean()) < float(whole[~own].float().mean()) + 0.1


def numbered(per_class: int) -> ImageSet:
    """Images of six classes that are all different."""
    targets = np.repeat(np.arange(6), per_class)
    return ImageSet(
        "numbered", "train", "012345", targets, lambda i: np.array([[[i % 256]], [[i // 256]]], np.uint8)
    )


def contents(images: ImageSet) -> set[bytes]:
    return {each.tobytes() for each in images.images(range(len(images)))}


def roles(data: FittingData) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """The images that are learned from, that judge, and that were not fitted on."""
    assert isinstance(data.transfer, ImageTransferSet)
    learned = contents(data.transfer.images)
    judged = contents_of_pixels(data)
    others = set().union(*(contents(each) for each in data.calibration if isinstance(each, ImageSet)))
    assert not learned & judged
    assert not (learned | judged) & others
    return learned, judged, others


def contents_of_pixels(data: FittingData) -> set[bytes]:
    levels = (data.validation * torch.tensor(INPUT.std)[0] + torch.tensor(INPUT.mean)[0]) * 255
    return {each.round().byte().permute(1, 2, 0).numpy().tobytes() for each in levels}


@pytest.mark.parametrize(
    ("per_class", "learned", "judged", "others"),
    [(20, 96, 24, 0), (100, 500, 100, 0), (110, 500, 100, 60), (400, 1820, 100, 480)],
)
def test_images_have_one_role_each(per_class: int, learned: int, judged: int, others: int) -> None:
    spec = replace(INPUT, height=2, width=1)
    data = FittingData.of_images(TuningSet(numbered(per_class)), spec, digit_parent().trunk, 0)
    assert len(data.refit) == 4 * min(6 * per_class, 600)
    assert tuple(map(len, roles(data))) == (learned, judged, others)


@pytest.mark.parametrize(
    ("per_class", "refitted", "others"),
    [(50, (40, 200), (10, 50)), (300, (240, 360), (60, 300)), (1000, (300, 300), (160, 800))],
)
def test_yes_and_no_are_fitted_on_alike(
    per_class: int, refitted: tuple[int, int], others: tuple[int, int]
) -> None:
    trunk, spec = digit_parent().trunk, replace(INPUT, height=2, width=1)
    images = images_to_classify(numbered(per_class), trunk, 0, DEFAULT_SETTINGS)
    assert len(images) == 6 * min(per_class, 800)
    yes = {each.tobytes() for each in numbered(per_class).only("2").images(range(per_class))}
    data = FittingData.of_images(TuningSet(images, images.targets == 2), spec, trunk, 0)
    assert data.balanced
    assert len(data.refit) == 4 * sum(refitted)
    roles(data)
    (kept,) = data.calibration
    assert isinstance(kept, ImageSet)
    found = contents(kept)
    assert (len(found & yes), len(found - yes)) == pytest.approx(others, abs=20)
    assert isinstance(data.transfer, ImageTransferSet)
    assert data.transfer.chances is not None
    learned = data.transfer.images
    said = np.array([each.tobytes() in yes for each in learned.images(range(len(learned)))])
    share = data.transfer.chances[said].sum()
    assert share == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("yes", "no", "lacking"), [(20, 20, None), (19, 500, True), (500, 19, False), (0, 5, True), (3, 0, True)]
)
def test_an_answer_that_hardly_any_image_gets_is_lacking(yes: int, no: int, lacking: bool | None) -> None:
    images = numbered(100).subset(range(yes + no))
    assert TuningSet(images, np.arange(yes + no) < yes).lacking() is lacking
    assert TuningSet(images).lacking() is None


def test_synthetic_images_stand_for_the_side_that_is_lacking() -> None:
    images, spec = numbered(100), replace(INPUT, height=2, width=1)
    synthetic_images = torch.arange(100.0).reshape(100, 1, 1, 1).expand(100, 1, 2, 1) + 1000
    tuning = TuningSet(images, images.targets < 9, synthetic_images)
    test, fitted = tuning.split(4)
    measured = test.normalised(Preprocess(spec), 60, 50)
    assert (len(measured), int((measured >= 1000).all(dim=(1, 2, 3)).sum())) == (85, 25)
    data = FittingData.of_images(fitted, spec, digit_parent().trunk, 0)
    assert data.balanced

    def synthetic(some: torch.Tensor) -> set[float]:
        levels = some[:, 0, 0, 0]
        return set(levels[levels >= 1000].tolist())

    (checked,) = (each for each in data.calibration if isinstance(each, torch.Tensor))
    batches = [data.transfer.batch(step, 32) for step in range(40)]
    assert {int((batch >= 1000).all(dim=(1, 2, 3)).sum()) for batch in batches} == {16}
    roles_of = [
        synthetic(measured),
        synthetic(checked),
        synthetic(data.validation),
        set().union(*map(synthetic, batches)),
    ]
    assert [len(each) for each in roles_of] == [25, 15, 12, 48]
    assert len(set().union(*roles_of)) == 100


def test_a_class_alone_tuned_on_one_side_has_synthetic_images_of_the_other() -> None:
    """Beside the same network fitted to the given images alone."""
    parts, images, budget = parts_of(digit_modules(), ["3"]), digits("012345", "test"), Budget(flops=0.3)
    pixels, targets = pixels_of(images)
    (plan,) = trunk_plans(parts)
    mask = ChannelChooser(plan).mask(budget)

    def balanced(classifier: ComposedClassifier) -> float:
        with torch.inference_mode():
            return balanced_accuracy((classifier(pixels)[:, 0] > 0).numpy(), targets == 3)

    both, one_side = [], []
    for seed in range(2):
        both.append(balanced(compose(parts, budget=budget, tune=digits("3"), seed=seed, settings=SHORT)))
        data = FittingData.of_images(TuningSet(digits("3")), INPUT, plan.trunk, seed, SHORT)
        fitted = fit_trunk(plan, mask, data, seed=seed, settings=SHORT)
        one_side.append(balanced(join_passes(parts, [plan], [fitted], reject=False)))
    assert np.mean(both) > np.mean(one_side)
    assert np.mean(both) > 0.85


def counted(images: ImageSet, reads: list[int]) -> ImageSet:
    """The same images; every read is noted in `reads`."""

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return images.images([index])[0]

    return ImageSet(images.name, images.split, images.labels, images.targets, read)


@pytest.mark.parametrize("labels", [["1", "4"], ["3"]])
def test_tuning_decodes_each_image_once_and_searches_one_mask(
    labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[Budget] = []

    def searched(trunk: Network, space: ChannelSpace, order: PruningOrder, budget: Budget) -> Mask:
        searches.append(budget)
        return mask_within(trunk, space, order, budget)

    monkeypatch.setattr(choose_channels, "mask_within", searched)
    reads: list[int] = []
    few = FitSettings(distill_steps=(4, 4))
    images, budget = digits("0134").subset(range(0, 452, 10)), Budget(flops=0.4)
    compose(parts_of(digit_modules(), labels), budget=budget, tune=counted(images, reads), settings=few)
    assert sorted(reads) == list(range(len(images)))
    assert searches == [budget]


def test_recalibration_changes_no_other_network_of_the_same_modules() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["3"]))
    mask, few = ChannelChooser(plan).mask(Budget(flops=0.4)), FitSettings(distill_steps=(4, 4))
    data = FittingSource(digits("012345"), ImageSynthesizer(), settings=few).data(plan, None)
    assert data is not None
    before = plan.unpruned.heads[0].calibration.clone()
    first, second = (fit_trunk(plan, mask, data, seed=0, settings=few).heads[0].calibration for _ in range(2))
    assert not torch.equal(first, before)
    assert torch.equal(second, first)
    assert torch.equal(plan.unpruned.heads[0].calibration, before)


@pytest.mark.parametrize("memory", [0, 100, 1 << 20])
def test_decoded_images_are_the_same_in_memory_and_on_disk(memory: int) -> None:
    reads: list[int] = []
    images = numbered(4)
    once = decoded_once(counted(images, reads), FitSettings(decoded_memory=memory))
    for _ in range(2):
        for (pixels, indices), (same, places) in zip(images.batches(5), once.batches(5), strict=True):
            assert torch.equal(pixels, same)
            assert (indices == places).all()
    assert once.subset([7, 7, 3]).images([0, 1, 2])[2].tolist() == images.images([3])[0].tolist()
    assert reads == list(range(24))
