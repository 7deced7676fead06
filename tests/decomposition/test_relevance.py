from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modhub
from modhub.calibration.calibrator import BY_ODDS, log_odds
from modhub.calibration.margins import margin_head, margin_of
from modhub.calibration.one_against_rest import balanced_accuracy, one_against_rest_head, platt
from modhub.calibration.temperature import fit_temperature
from modhub.calibration.thresholds import fit_thresholds
from modhub.composition import Budget, compose, parts_of
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.decomposition.network_input import voting
from modhub.decomposition.parent import classes_named
from modhub.decomposition.workbench import Workbench
from modhub.errors import DataError, IntegrityError, ParentError
from modhub.manifest import InputSpec
from modhub.nets import Runner, channel_space, fuse_batch_norm, head_logits, split_head
from modhub.pruning.compensation import affine_map, cut
from modhub.pruning.order import mask_after, pruning_order, relevance_tensor, slot_costs
from modhub.pruning.statistics import (
    ClassStatistics,
    Moments,
    observe,
    observed_values,
    pool,
    read_statistics,
    stored_statistics,
)
from tests.support.digit_parents import INPUT, OPTIONS, digit_modules, digit_parent, digits, pixels_of
from tests.support.pico import PicoNet, pico_network


def test_every_class_gets_a_module_that_answers_for_it() -> None:
    modules = digit_modules()
    space = channel_space(modules.trunk)
    assert [module.label for module in modules.modules] == list("012345")
    for module in modules.modules:
        values = module.manifest.measurement
        assert values is not None
        # How well one class is told from the rest is its parent's doing, and differs between processors.
        assert values.values["balanced_accuracy"] > max(0.8, values.values["parent_balanced_accuracy"] - 0.05)
        assert values.values["parent_recall"] > 0.9
        assert module.tensors["mask"].shape == (space.slots,)
        assert 0 < module.manifest.sizes.kept_channels <= space.slots
        assert module.manifest.sizes.flops <= module.manifest.sizes.parent_flops


def test_what_a_module_loses_hardly_moves_its_margins() -> None:
    """On images that no choice has seen; on those that it has, the limit is 2 % of their variance."""
    pixels, _ = pixels_of(digits("012345", "test"))
    for part in parts_of(digit_modules()):
        with torch.inference_mode():
            own, whole = (compose([part], budget=each).margins(pixels) for each in (None, Budget(flops=1.0)))
        assert float((own - whole).square().mean() / whole.var()) < 0.1


def test_a_mask_is_judged_by_all_images() -> None:
    """Also where the first of them show that the margins move too far."""
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    row, held, head = bench.rows[2], bench.validation.held, parent.head
    statistics, calibration = bench.statistics(row), bench.validation.calibration(row)
    order = pruning_order(statistics, bench.space, slot_costs(parent.trunk, bench.space))
    keeps = bench.validation.judge(row, statistics, calibration)
    sample = held.sample(row, 200, OPTIONS.seed)
    assert len(sample) > 100
    assert calibration.kind == BY_ODDS
    positive, before = held.targets[sample] == row, bench.validation.logits[sample].double()
    verdicts = []
    for count in range(0, len(order.slots) + 1, 4):
        mask = mask_after(order, count, bench.space)
        sliced, weight, bias = cut(parent.trunk, mask, bench.space, statistics, head.weight, head.bias)
        with torch.inference_mode():
            features = Runner(fuse_batch_norm(sliced))(held.images[sample])
            logits = head_logits(features, weight, bias).double()
        moved = (margin_of(logits, row) - margin_of(before, row)).square().mean()
        said, well = (
            balanced_accuracy(log_odds(each.numpy(), row, calibration) > 0, positive)
            for each in (logits, before)
        )
        close = bool(moved <= 0.02 * margin_of(before, row).var(correction=0))
        assert keeps(mask) == (close and said >= well - OPTIONS.max_loss)
        verdicts.append(close)
    assert set(verdicts) == {True, False}


def test_the_same_inputs_give_the_same_modules() -> None:
    parent = digit_parent()
    again = decompose(parent, digits("012345"), options=OPTIONS)
    for draft, module in zip(again.modules, digit_modules().modules, strict=True):
        assert draft.calibration == module.manifest.calibration
        assert draft.tensors.keys() == module.tensors.keys()
        assert all(torch.equal(draft.tensors[name], module.tensors[name]) for name in draft.tensors)


def test_only_the_wanted_classes_are_decomposed() -> None:
    options = DecomposeOptions(images_per_class=20, calibration_images=10, only=("3", "1"))
    done = decompose(digit_parent(), digits("012345"), options=options)
    assert [draft.label for draft in done.modules] == ["1", "3"]
    assert done.images == 6 * 30


def test_images_of_some_classes_make_modules_of_these() -> None:
    """Whoever wants three classes of a public model has images of three classes, not of a thousand."""
    options = DecomposeOptions(images_per_class=20, calibration_images=10, only=("3", "1"))
    few = decompose(digit_parent(), digits("134"), options=options)
    all_there = decompose(digit_parent(), digits("012345"), options=options)
    assert [draft.label for draft in few.modules] == ["1", "3"]
    assert few.method.parameters["classes_seen"] == 3
    assert "classes_seen" not in all_there.method.parameters
    for one, other in zip(few.modules, all_there.modules, strict=True):
        carried = [name for name in one.tensors if name != "mask"]
        assert "head.weight" in carried
        assert any(name.startswith("statistics.") for name in carried)
        for name in carried:
            assert torch.equal(one.tensors[name], other.tensors[name]), name


@pytest.mark.parametrize("method", ["relevance", "concern"])
def test_a_wanted_class_is_told_from_something(method: str) -> None:
    options = DecomposeOptions(images_per_class=10, calibration_images=4, only=("3",))
    with pytest.raises(DataError, match="the data set 'digits' has images of '3' only"):
        decompose(digit_parent(), digits("3"), options=options, method=method)


@pytest.mark.parametrize(
    ("labels", "sets", "options", "message"),
    [
        (
            "012345",
            "01234",
            {},
            "The data set 'digits' has no images of '5', which 'digits-012345-12' knows.",
        ),
        (
            "012345",
            "01234",
            {"only": ("1", "5")},
            "The data set 'digits' has no images of '5', which 'digits-012345-12' knows.",
        ),
        ("012345", "012345", {"only": ("7",)}, "'digits-012345-12' has no class '7'."),
    ],
)
def test_data_that_does_not_fit_is_refused(labels: str, sets: str, options: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decompose(digit_parent(labels), digits(sets), options=DecomposeOptions(**options))
    assert caught.value.message == message


def test_a_class_with_too_few_images_is_named() -> None:
    images = digits("012345")
    few = images.subset(
        [*np.flatnonzero(images.targets != 2)[:200].tolist(), int(np.argmax(images.targets == 2))]
    )
    with pytest.raises(DataError, match=r"has 1 images of '2'; at least 2 are needed"):
        decompose(digit_parent(), few)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(DataError, match="There is no method 'magic'"):
        decompose(digit_parent(), digits("012345"), method="magic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("a", "b")}, "'pico' answers with 3 classes, but 2 labels were given."),
        ({"labels": ("a", "b", "a")}, "Duplicate label 'a'."),
        (
            {"labels": ("a", "b", "c\n")},
            r"The label 'c\n' holds a control character or a lone surrogate.",
        ),
        ({"name": "a\nb"}, r"The name 'a\nb' holds a control character or a lone surrogate."),
        ({"license": "mit\x07"}, r"The licence 'mit\x07' holds a control character or a lone surrogate."),
        ({"dataset": "a\tb"}, r"The data set 'a\tb' holds a control character or a lone surrogate."),
        (
            {"input": InputSpec(channels=3, height=9, width=8, mean=(0.5,) * 3, std=(0.2,) * 3)},
            "'pico' takes images of (3, 8, 8) (channels, height, width), but the input was described as "
            "(3, 9, 8).",
        ),
    ],
)
def test_a_parent_must_make_sense(change: dict, message: str) -> None:
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    given_ = {"name": "pico", "architecture": "pico", "labels": ("a", "b", "c"), "input": spec, **change}
    with pytest.raises(ParentError) as caught:
        Parent.of(pico_network(), **given_)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("x" * 201, f"The label '{'x' * 77}…' has 201 characters; a label has 1 to 200 and is not blank."),
        ("  ", "The label '  ' has 2 characters; a label has 1 to 200 and is not blank."),
    ],
)
def test_a_label_that_no_manifest_holds_is_named_before_the_work(label: str, message: str) -> None:
    read: list[int] = []

    def read_one(index: int) -> np.ndarray:
        read.append(index)
        return np.zeros((8, 8, 3), np.uint8)

    images = ImageSet("signs", "train", ["plus", "minus", label], np.arange(900) % 3, read_one)
    with pytest.raises(ParentError) as caught:
        modhub.decompose(PicoNet(), images)
    assert caught.value.message == message
    assert caught.value.hint == "Rename the class's folder, or name the classes with --labels."
    assert set(read) <= set(voting(images)), "only those that are asked how large images are"


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["tabby, tabby cat"], ("tabby, tabby cat",)),
        (["Tench,Tinca tinca,dog", "dog"], ("tench, Tinca tinca", "dog")),
        (["DOG", "cafe\u0301"], ("dog", "café")),
        (["cat,dog"], ("cat", "dog")),
        (["cat dog"], ("cat dog",)),
    ],
)
def test_classes_are_named_with_commas_and_without_case(texts: list[str], labels: tuple[str, ...]) -> None:
    assert classes_named(_Named(), texts) == labels  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["taby tabby cat"], "'p' has no class 'taby tabby cat'. Nearest: 'tabby, tabby cat'."),
        (["cat,dgo"], "'p' has no class 'dgo'. Nearest: 'dog'."),
        ([","], "No class is named to make a module of. Name at least one with --only."),
    ],
)
def test_classes_that_there_are_not_are_refused_with_the_nearest(texts: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        classes_named(_Named(), texts)  # type: ignore[arg-type]
    assert str(caught.value) == message


class _Named:
    name = "p"
    labels = ("tench, Tinca tinca", "tabby, tabby cat", "dog", "café", "cat", "cat dog")
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {}


def test_weights_that_are_not_finite_are_refused() -> None:
    network = pico_network()
    name = next(iter(network.graph.nodes[0].tensors.values()))
    broken = network.with_tensors(
        network.graph.nodes[0].name, weight=torch.full_like(network.tensors[name], float("nan"))
    )
    with pytest.raises(ParentError, match="hold values that are not finite"):
        Parent.of(broken, name="pico", architecture="pico", labels=("a", "b", "c"), input=INPUT)


def _statistics(batches: int = 1) -> tuple[ClassStatistics, Parent]:
    parent = digit_parent()
    images = digits("012345")
    own = images.subset(np.flatnonzero(images.targets == 3)[:60])
    space = channel_space(parent.trunk)
    found = observe(
        Runner(parent.trunk),
        (Preprocess(INPUT)(pixels) for pixels, _ in own.batches(60 // batches)),
        space,
        margin_head(one_against_rest_head(parent.head.weight, parent.head.bias, 3)),
    )
    return found, parent


def test_statistics_do_not_depend_on_the_batches() -> None:
    (whole, _), (parts, _) = _statistics(1), _statistics(4)
    for name, moments in whole.moments.items():
        np.testing.assert_allclose(moments.mean, parts.moments[name].mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.covariance, parts.moments[name].covariance, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(whole.sensitivity[name], parts.sensitivity[name], rtol=1e-3, atol=1e-7)


def test_statistics_are_read_as_they_were_written() -> None:
    statistics, parent = _statistics()
    graph, space = parent.trunk.graph, channel_space(parent.trunk)
    stored = stored_statistics(statistics, correlations=True)
    found = read_statistics(stored, {}, graph, space)
    assert found is not None
    for name, moments in statistics.moments.items():
        scale = float(moments.variance.max())
        np.testing.assert_allclose(found.moments[name].mean, moments.mean, rtol=1e-6)
        np.testing.assert_allclose(found.moments[name].covariance, moments.covariance, atol=2e-3 * scale)
    assert read_statistics({}, {}, graph, space) is None
    name = next(iter(stored))
    channels = len(space.of(name))
    for part, words in (("mean", torch.zeros(1)), ("sensitivity", None)):
        broken = {**stored, name: dataclasses.replace(stored[name], **{part: words})}
        found = "missing" if words is None else "[1]"
        with pytest.raises(IntegrityError) as caught:
            read_statistics(broken, {}, graph, space)
        assert caught.value.message == (
            f"The tensor 'statistics.{name}.{part}' of a module is {found}; its trunk needs [{channels}]."
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_pooling_is_the_moments_of_all_samples_together(seed: int, groups: int) -> None:
    draw = np.random.default_rng(seed)
    samples = [draw.normal(draw.normal(), 1, (30, 4)) for _ in range(groups)]
    pooled = pool([Moments(each.mean(0), np.cov(each.T, bias=True)) for each in samples])
    together = np.concatenate(samples)
    np.testing.assert_allclose(pooled.mean, together.mean(0), atol=1e-9)
    np.testing.assert_allclose(pooled.covariance, np.cov(together.T, bias=True), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_channel_that_is_a_map_of_others_is_found_again(seed: int) -> None:
    draw = np.random.default_rng(seed)
    kept = draw.normal(size=(200, 3))
    removed = kept @ np.array([[1.0], [-2.0], [0.5]]) + 3
    values = np.concatenate([removed, kept], 1)
    found = affine_map(
        Moments(values.mean(0), np.cov(values.T, bias=True)), np.array([False, True, True, True]), 0
    )
    np.testing.assert_allclose(found.matrix.numpy(), [[1.0, -2.0, 0.5]], atol=1e-4)
    np.testing.assert_allclose(found.offset.numpy(), [3.0], atol=1e-3)


def test_redundant_channels_go_first_and_prefixes_are_nested() -> None:
    statistics, parent = _statistics()
    space = channel_space(parent.trunk)
    order = pruning_order(statistics, space, slot_costs(parent.trunk, space))
    assert len(set(order.slots.tolist())) == len(order.slots)
    masks = [mask_after(order, count, space) for count in range(len(order.slots) + 1)]
    for more, fewer in itertools.pairwise(masks):
        assert (more | fewer == more).all()
    for group in space.groups:
        assert masks[-1][group.slots].any()


def test_channels_of_which_nothing_is_known_go_for_nothing() -> None:
    statistics, parent = _statistics()
    space = channel_space(parent.trunk)
    order = pruning_order(ClassStatistics({}, {}), space, np.ones(space.slots))
    assert len(order.slots) == len(pruning_order(statistics, space, np.ones(space.slots)).slots)
    assert not order.saliency.any()


def test_compensation_beats_zeroing() -> None:
    statistics, parent = _statistics()
    space = channel_space(parent.trunk)
    order = pruning_order(statistics, space, slot_costs(parent.trunk, space))
    mask = mask_after(order, len(order.slots) // 3, space)
    images = digits("012345")
    own = Preprocess(INPUT)(next(images.subset(np.flatnonzero(images.targets == 3)[60:90]).batches(30))[0])
    rows = parent.head.weight, parent.head.bias
    whole = Runner(parent.trunk)(own) @ rows[0].T + rows[1]

    def error(used: ClassStatistics | None) -> float:
        sliced, weight, bias = cut(parent.trunk, mask, space, used, *rows)
        found = Runner(fuse_batch_norm(sliced))(own) @ weight.T + bias
        return float((found - whole).square().mean())

    assert error(statistics) < 0.5 * error(None)


@settings(max_examples=30)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(40, 400), min_size=2, max_size=4))
def test_thresholds_let_ninety_five_of_a_hundred_images_pass(seed: int, sizes: list[int]) -> None:
    draw = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(sizes)), sizes)
    margins = draw.normal(0, 1, (len(targets), len(sizes)))
    margins[np.arange(len(targets)), targets] += 2 + targets
    weights = draw.uniform(0.5, 1.5, len(targets))
    own, largest = margins[np.arange(len(targets)), targets], margins.max(1)
    thresholds = fit_thresholds(own, largest, targets, weights)
    for threshold, values in ((thresholds.alone, own), (thresholds.together, largest)):
        passing = [
            np.average(values[targets == row] >= threshold, weights=weights[targets == row])
            for row in range(len(sizes))
        ]
        # However many images a class has, all classes count the same.
        assert np.mean(passing) == pytest.approx(0.95, abs=0.02)
    assert thresholds.together >= thresholds.alone


def test_all_classes_of_a_parent_share_their_thresholds() -> None:
    numbers = [module.manifest.calibration.parameters for module in digit_modules().modules]
    for name in ("threshold", "threshold_all"):
        margins = [each["margin_mean"] + each[name] * each["margin_std"] for each in numbers]
        assert margins == pytest.approx([margins[0]] * len(margins), abs=1e-6)
    assert all(each["threshold_all"] >= each["threshold"] for each in numbers)
    assert all(0 <= each["false_accept"] < 1 for each in numbers)


def test_a_temperature_and_a_slope_are_found_again() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (20_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (draw.random((20_000, 1)) > chances.cumsum(1)).sum(1).clip(0, 2)
    assert fit_temperature(logits * 4, targets, np.ones(20_000)) == pytest.approx(0.25, rel=0.05)
    margin = draw.normal(0, 2, 20_000)
    positive = draw.random(20_000) < 1 / (1 + np.exp(-(0.8 * margin)))
    slope, intercept = platt(margin, positive, np.ones(20_000))
    assert slope == pytest.approx(0.8, rel=0.1)
    assert intercept == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("count", [2, 4])
def test_a_class_with_few_images_beside_others_with_many(count: int) -> None:
    """Nothing of it is left to measure on, so nothing is recorded, and nothing is not a number."""
    images = digits("012345")
    few = [np.flatnonzero(images.targets == row)[: count if row == 3 else 60] for row in range(6)]
    parent = digit_parent()
    modules = assemble(parent, decompose(parent, images.subset(np.concatenate(few)), options=OPTIONS))
    recorded = {module.label: module.manifest.measurement for module in modules.modules}
    assert recorded["3"] is None
    assert recorded["4"] is not None
    for module in modules.modules:
        module.manifest.to_bytes()


def test_relevance_is_finite_where_a_variance_is_computed_below_nothing() -> None:
    network = pico_network()
    trunk, _ = split_head(network)
    space = channel_space(trunk)
    moments, sensitivity = {}, {}
    for name in observed_values(trunk.graph, space):
        channels = len(space.of(name))
        moments[name] = Moments(np.zeros(channels), np.full(channels, -1e-12))
        sensitivity[name] = np.ones(channels)
    relevance = relevance_tensor(ClassStatistics(moments, sensitivity), space)
    assert torch.equal(relevance, torch.zeros_like(relevance))
