"""What every method that chooses channels must do, and what is each one's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhub.artifact import read_artifact, write_artifact
from modhub.artifact.modules import Decomposition
from modhub.calibration.margins import margin_of
from modhub.composition import Budget, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.trunk_plan import trunk_plans
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import METHODS, DecomposeOptions, Workbench, method_of
from modhub.decomposition.assembly import assemble
from modhub.decomposition.firing import firing_rates
from modhub.decomposition.genetic import Population, bred
from modhub.decomposition.gradients import activation_scores, weight_scores
from modhub.decomposition.masked_trunk import MaskedTrunk, straight_through, target_loss
from modhub.decomposition.methods.cnnsplitter import genes_of
from modhub.decomposition.methods.firing_rate import lowered_thresholds
from modhub.decomposition.methods.incite import clusters_of
from modhub.decomposition.mutants import contributions
from modhub.decomposition.samples import logits_of, sample_of, validation_sample
from modhub.nets import Runner, channel_space, fuse_batch_norm, head_logits, mask_network
from modhub.pruning.baselines import best_slots
from modhub.pruning.order import importance
from modhub.pruning.statistics import observed_values
from modhub.reporter import SILENT
from tests.decomposition.test_concern import pico_parent
from tests.support.digit_parents import INPUT, digit_parent, digits, pixels_of

OPTIONS = DecomposeOptions(images_per_class=20, calibration_images=20, only=("0", "1"))
SMALL: dict[str, dict[str, Any]] = {
    "seam": {"price": 0.5, "epochs": 2, "images": 10, "batch": 10},
    "gradsplitter": {"epochs": 2, "images": 10, "batch": 10},
    "incite": {"clusters": 3, "images": 5},
    "cnnsplitter": {"generations": 2, "population": 3, "images": 5},
}
"""Options with which a method works in a moment."""
CHANNELS = sorted(METHODS.keys() - {"relevance", "concern"})


def decomposed(name: str, **options: Any) -> Decomposition:
    method = METHODS[name](**{**SMALL.get(name, {}), **options})
    return method.decompose(digit_parent(), digits("012345"), OPTIONS, SILENT)


drafts = cache(decomposed)


@pytest.mark.parametrize("name", CHANNELS)
def test_modules_are_written_read_and_composed(name: str, tmp_path: Path) -> None:
    parent, done = digit_parent(), drafts(name)
    assert done.method.name == name
    assert done.method.parameters.items() >= {**method_of(name).parameters(), **SMALL.get(name, {})}.items()  # type: ignore[attr-defined]
    write_artifact(tmp_path / "out", assemble(parent, done))
    modules = read_artifact(tmp_path / "out")
    pixels, targets = pixels_of(digits("01", "test"))
    for module in modules.modules:
        assert module.manifest.measurement is not None
        assert module.tensors["relevance"].max() == 1
        assert any(key.startswith("statistics.") for key in module.tensors)
    with torch.inference_mode():
        scores = compose(parts_of(modules))(pixels)
    assert float((scores.argmax(1).numpy() == targets).mean()) > 0.9
    (plan,) = trunk_plans(parts_of(modules))
    report = plan.compile(ChannelChooser(plan).mask(Budget(flops=0.6))).report
    assert report.flops <= 0.6 * report.parent_flops


@pytest.mark.parametrize("name", CHANNELS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    for one, other in zip(drafts(name).modules, decomposed(name).modules, strict=True):
        assert one.calibration == other.calibration
        assert one.measurement == other.measurement
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)


# -- random -----------------------------------------------------------------------------------------------


def test_random_keeps_the_same_share_of_channels_for_every_class() -> None:
    first, second = drafts("random", share=0.5).modules
    assert torch.equal(first.tensors["mask"], second.tensors["mask"])
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    free = np.concatenate([np.full(group.size, group.cuttable) for group in space.groups])
    kept = first.tensors["mask"].bool().numpy()
    assert kept[~free].all()
    assert abs(kept[free].mean() - 0.5) < 0.02
    # Less is a part of more.
    more = drafts("random", share=0.8).modules[0].tensors["mask"].bool().numpy()
    assert (more | ~kept).all()


def test_the_best_slots_are_those_worth_most() -> None:
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    worth = np.random.default_rng(0).random(space.slots)
    assert best_slots(worth, space, 1.0).all()
    assert (best_slots(worth, space, 0.0) == space.close(np.zeros(space.slots, np.bool_))).all()
    half = best_slots(worth, space, 0.5)
    free = np.concatenate([np.full(group.size, group.cuttable) for group in space.groups])
    assert worth[half & free].min() > worth[~half].max()


# -- activation -------------------------------------------------------------------------------------------


def test_rates_are_those_counted_image_by_image() -> None:
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    rates = firing_rates(bench)
    assert list(rates) == bench.rows
    runner, space = Runner(parent.trunk), bench.space
    relus = [node.name for node in parent.trunk.graph.nodes if node.op == "relu"]
    for row in bench.rows:
        anywhere, share = np.full((2, space.slots), -1.0)
        for relu in relus:
            counted = [
                (runner.observe(Preprocess(INPUT)(pixels), [relu])[relu] > 0).flatten(2)
                for pixels, _ in bench.images_of(row).batches(1)
            ]
            fired = torch.cat(counted).double()
            slots = space.of(relu)
            anywhere[slots] = np.maximum(anywhere[slots], fired.amax(2).mean(0).numpy())
            share[slots] = np.maximum(share[slots], fired.mean((0, 2)).numpy())
        behind = anywhere >= 0
        assert np.allclose(rates[row].images[behind], anywhere[behind])
        assert np.allclose(rates[row].positions[behind], share[behind])
        assert (rates[row].images[~behind] == 1).all()


def test_activation_keeps_what_is_active_in_most_images() -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    rates = firing_rates(bench)
    for row, draft in zip(bench.rows, drafts("activation", share=0.99).modules, strict=True):
        assert (draft.tensors["mask"].bool().numpy() == bench.space.close(rates[row].images >= 0.99)).all()


# -- circuit ----------------------------------------------------------------------------------------------


def test_scores_of_weights_are_what_removing_them_costs_to_first_order() -> None:
    """Of a network without bias in its features, the sum of w · ∂z/∂w over one layer is the logit's part that
    the layer makes; here against gradients of the unfused parent, weight by weight."""
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    fused = fuse_batch_norm(parent.trunk)
    row, space = bench.rows[1], bench.space
    runner = Runner(fused)
    expected = np.zeros(space.slots)
    images = bench.images_of(row)
    pixels = torch.cat([Preprocess(INPUT)(batch) for batch, _ in images.batches(7)])
    for node in fused.graph.nodes:
        if node.op in ("conv2d", "linear"):
            weight = runner.parameter(node.tensors["weight"]).requires_grad_()
            logits = head_logits(runner(pixels), parent.head.weight, parent.head.bias)
            (slope,) = torch.autograd.grad(logits[:, row].mean(), weight)
            each = (weight * slope).abs().flatten(1).sum(1)
            expected[space.of(node.name)] += each.detach().double().numpy()
            weight.requires_grad_(False)
    assert np.allclose(weight_scores(bench)[row], expected, rtol=1e-4, atol=1e-6)


def test_scores_of_activations_are_taylor_terms_image_by_image() -> None:
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    row, space = bench.rows[0], bench.space
    runner, graph = Runner(fuse_batch_norm(parent.trunk)), parent.trunk.graph
    values = observed_values(graph, space)
    expected = np.zeros(space.slots)
    images = bench.images_of(row)
    for pixels, _ in images.batches(1):
        seen = runner.observe(Preprocess(INPUT)(pixels).requires_grad_(), {*values, graph.output})
        logit = head_logits(seen[graph.output], parent.head.weight, parent.head.bias)[0, row]
        for value in values:
            (slope,) = torch.autograd.grad(logit, seen[value], retain_graph=True)
            term = (seen[value] * slope)[0].flatten(1).sum(1) if slope.dim() > 2 else (seen[value] * slope)[0]
            expected[space.of(value)] += term.abs().detach().double().numpy() / len(images)
    assert np.allclose(activation_scores(bench)[row], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["weights", "activations"])
def test_a_circuit_keeps_the_best_scores(score: str) -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    scores = (weight_scores if score == "weights" else activation_scores)(bench)
    for row, draft in zip(bench.rows, drafts("circuit", score=score, share=0.6).modules, strict=True):
        assert (draft.tensors["mask"].bool().numpy() == best_slots(scores[row], bench.space, 0.6)).all()


# -- firing rates -----------------------------------------------------------------------------------------


def test_thresholds_are_lowered_from_the_last_layers_on() -> None:
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    rates = np.random.default_rng(1).random(space.slots)
    thresholds = np.array([0.0, 0.25, 0.5])
    everything = lowered_thresholds(rates, space, thresholds, lambda mask: True)
    nothing = lowered_thresholds(rates, space, thresholds, lambda mask: False)
    assert nothing.all()
    for group in space.groups:
        if group.cuttable:
            assert (everything[group.slots] >= (rates[group.slots] >= 0.5)).all()
    # A limit of so many channels: the last groups spend it.
    limit = 6
    some = lowered_thresholds(rates, space, thresholds, lambda mask: int((~mask).sum()) <= limit)
    assert 0 < (~some).sum() <= limit
    last = [group for group in space.groups if group.cuttable][-1]
    gone = {threshold: int((rates[last.slots] < threshold).sum()) for threshold in thresholds}
    assert int((~some[last.slots]).sum()) == max(count for count in gone.values() if count <= limit)


def test_the_limit_of_firing_rates_is_the_loss_on_held_out_images() -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    for row, draft in zip(bench.rows, drafts("firing_rate").modules, strict=True):
        calibration = bench.validation.calibration(row)
        keeps = bench.validation.judge(row, bench.statistics(row), calibration, negatives=100)
        mask = draft.tensors["mask"].bool().numpy()
        assert mask.all() or keeps(mask)


# -- learned masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["digits", "pico"])
def test_a_masked_trunk_is_the_masked_network(network: str) -> None:
    parent = digit_parent() if network == "digits" else pico_parent()
    space = channel_space(parent.trunk)
    trunk = MaskedTrunk(parent, space)
    draw = np.random.default_rng(3)
    pixels = torch.randn(4, *parent.trunk.graph.input_shape)
    for share in (0.0, 0.5, 0.9, 1.0):
        mask = space.close(draw.random(space.slots) < share)
        features = Runner(mask_network(parent.trunk, mask))(pixels)
        said = trunk.logits(pixels, torch.from_numpy(mask).float())
        torch.testing.assert_close(
            said, head_logits(features, parent.head.weight, parent.head.bias), rtol=1e-4, atol=1e-4
        )


def test_the_gradient_of_a_mask_is_a_difference() -> None:
    parent = digit_parent()
    space = channel_space(parent.trunk)
    trunk = MaskedTrunk(parent, space)
    seeded = torch.Generator().manual_seed(5)
    pixels = torch.randn(2, 1, 8, 8, generator=seeded)
    mask = torch.rand(space.slots, generator=seeded).requires_grad_()
    (slope,) = torch.autograd.grad(trunk.logits(pixels, mask)[:, 1].sum(), mask)
    step = 1e-3
    for slot in range(0, space.slots, 7):
        moved = torch.zeros(space.slots)
        moved[slot] = step
        with torch.no_grad():
            change = trunk.logits(pixels, mask + moved) - trunk.logits(pixels, mask - moved)
        assert float(slope[slot]) == pytest.approx(float(change[:, 1].sum()) / (2 * step), rel=0.1, abs=0.05)


def test_a_straight_through_mask_is_of_zeros_and_ones_and_hands_its_gradient_on() -> None:
    scores = torch.tensor([-1.0, -1e-9, 0.0, 1e-9, 2.0], requires_grad=True)
    mask = straight_through(scores)
    assert mask.tolist() == pytest.approx([0, 0, 0, 1, 1])
    (mask * torch.arange(5.0)).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rows", [[0, 2], [1]])
def test_the_target_loss_is_over_the_wanted_classes(rows: list[int]) -> None:
    logits = torch.randn(6, 4)
    targets = torch.tensor([0, 2, 2, 0, 0, 2] if len(rows) > 1 else [0, 1, 2, 3, 1, 1])
    log = logits[:, rows].log_softmax(1) if len(rows) > 1 else logits.log_softmax(1)
    if len(rows) > 1:
        right = torch.stack([log[i, rows.index(int(t))] for i, t in enumerate(targets)])
    else:
        own = log[:, 1]
        right = torch.where(targets == 1, own, torch.log1p(-own.exp()))
    assert float(target_loss(logits, targets, rows)) == pytest.approx(float(-right.mean()), rel=1e-4)


def test_a_higher_price_keeps_fewer_channels() -> None:
    kept = [
        int(drafts("seam", price=price, epochs=6).modules[0].tensors["mask"].sum()) for price in (0.0, 2.0)
    ]
    assert kept[1] < kept[0]


def test_seam_shares_its_mask_and_gradsplitter_does_not() -> None:
    first, second = drafts("seam", price=0.5, epochs=8).modules
    assert torch.equal(first.tensors["mask"], second.tensors["mask"])
    first, second = drafts("gradsplitter", price=0.5, epochs=8).modules
    assert not torch.equal(first.tensors["mask"], second.tensors["mask"])


# -- searches ---------------------------------------------------------------------------------------------


def test_clusters_are_of_channels_that_respond_alike() -> None:
    profiles = np.array([[1, 0], [2, 0.1], [0, 1], [0, 3.0], [-1, 0], [0, 0]])
    for seed in range(5):
        clusters = clusters_of(profiles, 4, np.random.default_rng(seed))
        assert sorted(np.concatenate(clusters).tolist()) == list(range(6))
        assert len(clusters) <= 4
    every = clusters_of(profiles, 9, np.random.default_rng(0))
    assert sorted(np.concatenate(every).tolist()) == list(range(6))


def test_a_contribution_is_the_change_of_the_margin() -> None:
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    group = next(group for group in bench.space.groups if group.cuttable)
    cluster = group.start + np.array([0, 2])
    worth = contributions(bench, [cluster], 10)
    sample = sample_of(bench, 10)
    mask = bench.space.full_mask()
    mask[cluster] = False
    for row in bench.rows:
        pixels = sample.images[np.flatnonzero(sample.targets == row)]
        margins = [
            margin_of(head_logits(Runner(network)(pixels), parent.head.weight, parent.head.bias), row)
            for network in (parent.trunk, mask_network(parent.trunk, mask))
        ]
        change = float((margins[1] - margins[0]).abs().mean()) / 2
        assert worth[row][cluster] == pytest.approx(change, rel=1e-3)
        assert worth[row].sum() == pytest.approx(2 * change, rel=1e-3)


def test_genes_hold_every_slot_that_can_go_once_the_least_important_first() -> None:
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    worth = np.random.default_rng(2).random(space.slots)
    genes = genes_of(worth, space, 4)
    free = np.flatnonzero(np.concatenate([np.full(group.size, group.cuttable) for group in space.groups]))
    assert sorted(np.concatenate(genes).tolist()) == free.tolist()
    assert worth[genes[0]].max() < worth[genes[1]].min()


def test_children_are_of_their_parents_but_for_mutations() -> None:
    parents = np.array([[True, True, False, False], [True, False, False, True]])
    children = bred(parents, 50, 0.0, np.random.default_rng(0))
    assert children[:, 0].all()
    assert not children[:, 2].any()
    assert 0 < children[:, 1].mean() < 1
    assert (bred(parents, 50, 1.0, np.random.default_rng(0)) == ~children).all()


def test_no_generation_is_worse_than_the_one_before() -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    worth = {row: importance(bench.statistics(row), bench.space) for row in bench.rows}
    population = Population(
        bench, {row: genes_of(worth[row], bench.space, 3) for row in bench.rows}, images=10, size=4
    )
    sample, reached = validation_sample(bench, 10), []
    for generation in range(4):
        if generation:
            population.advance(0.1)
        masks = [population.best(row) for row in bench.rows]
        margins = [
            margin_of(logits_of(bench, sample, mask, bench.statistics(row)), row)
            for row, mask in zip(bench.rows, masks, strict=True)
        ]
        said = np.array(bench.rows)[torch.stack(margins, 1).argmax(1).numpy()]
        shared = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        reached.append(0.9 * (said == sample.targets).mean() + 0.1 * (1 - shared))
    assert reached == sorted(reached)


def test_candidates_are_judged_on_held_out_images_that_test_nothing() -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    held, sample = bench.validation.held, validation_sample(bench, 10)
    assert sorted(np.unique(sample.targets).tolist()) == bench.rows
    tests = {image.numpy().tobytes() for image in held.images[np.flatnonzero(held.test)]}
    chosen = {image.numpy().tobytes() for batch in sample.images.split(9) for image in batch}
    plain = {image.numpy().tobytes() for image in held.images[: held.plain]}
    assert chosen <= plain - tests


def test_a_class_alone_is_learned_and_searched_against_the_rest() -> None:
    for name in ("seam", "gradsplitter", "cnnsplitter", "incite"):
        cheap = {"price": 0.02} if "training" in METHODS[name].needs else {}
        method = METHODS[name](**{**SMALL[name], **cheap})
        options = replace(OPTIONS, only=("3",))
        (draft,) = method.decompose(digit_parent(), digits("012345"), options, SILENT).modules
        assert draft.label == "3"
        assert draft.measurement is not None
        assert draft.measurement.values["balanced_accuracy"] > 0.7
