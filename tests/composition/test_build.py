from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.compiler import join_passes
from modhub.composition.fitting.synthesis import dead_leaves
from modhub.composition.fitting.tuning_set import every_nth
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.errors import BudgetError, CompositionError, DataError, IntegrityError, ManifestError
from modhub.evaluation.baselines import RestrictedParent
from modhub.evaluation.evaluate import evaluate
from modhub.nets import Runner, cost
from tests.support.digit_parents import digit_modules, digit_parent, digits, pixels_of
from tests.support.pico import pico_set
from tests.support.quick import QUICK

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "build.schema.json").read_text())


def _whole(parts: list[Part]) -> list[Part]:
    """The same modules with nothing masked."""
    found = []
    for part in parts:
        tensors = {**part.module.tensors, "mask": torch.ones_like(part.module.tensors["mask"])}
        found.append(dataclasses.replace(part, module=dataclasses.replace(part.module, tensors=tensors)))
    return found


def test_unmasked_modules_answer_with_the_parents_margins() -> None:
    parent = digit_parent()
    classifier = compose(_whole(parts_of(digit_modules())))
    pixels, _ = pixels_of(digits("012345", "test"))
    base = RestrictedParent(
        Runner(parent.head.join(parent.trunk)), parent.input, parent.labels, parent.labels
    )
    logits = base(pixels)
    margins = logits - (logits.sum(1, keepdim=True) - logits) / 5
    torch.testing.assert_close(classifier.margins(pixels), margins, atol=1e-4, rtol=1e-4)
    assert (classifier(pixels).argmax(1) == logits.argmax(1)).all()


def test_all_modules_together_lose_little_and_run_in_one_pass() -> None:
    classifier = compose(parts_of(digit_modules()))
    parent = digit_parent()
    base = RestrictedParent(
        Runner(parent.head.join(parent.trunk)), parent.input, parent.labels, parent.labels
    )
    test = digits("012345", "test")
    assert evaluate(classifier, test).top1 >= evaluate(base, test).top1 - 0.02
    assert classifier.report()["passes"] == 1


@given(st.permutations(list(range(4))), st.lists(st.integers(0, 3), max_size=3))
@settings(max_examples=8, deadline=None)
def test_order_and_repetition_do_not_matter(order: list[int], repeated: list[int]) -> None:
    parts = parts_of(digit_modules())[:4]
    pixels = pixels_of(digits("0123", "test"))[0][:16]
    plain = compose(parts)
    other = compose([parts[k] for k in [*order, *repeated]])
    assert other.labels == tuple(parts[k].name for k in order)
    assert torch.equal(other(pixels), plain(pixels)[:, order])


def test_two_modules_for_one_label_are_refused() -> None:
    parts = [*parts_of(digit_modules(), ["4"]), *parts_of(digit_modules("456789", 10, 1), ["4"])]
    with pytest.raises(CompositionError) as caught:
        compose(parts)
    assert caught.value.message == (
        "Two modules answer for '4': one of 'digits-012345-12' and one of 'digits-456789-10'."
    )
    renamed = dataclasses.replace(parts[1], label="four")
    assert compose([parts[0], renamed]).labels == ("4", "four")


def test_nothing_to_compose_is_refused() -> None:
    with pytest.raises(CompositionError, match="There are no modules to compose"):
        compose([])


def test_two_parents_know_together_what_neither_knows() -> None:
    parts = [*parts_of(digit_modules(), list("0123")), *parts_of(digit_modules("456789", 10, 1))]
    classifier = compose(parts)
    test = digits("0123456789", "test")
    found = evaluate(classifier, test)
    assert classifier.report()["passes"] == 2
    assert found.top1 > 0.7
    # Inside one parent the ranking is that of its margins.
    pixels, _ = pixels_of(test)
    scores, margins = classifier(pixels), classifier.margins(pixels)
    for own in (slice(0, 4), slice(4, 10)):
        assert (scores[:, own].argsort(1) == margins[:, own].argsort(1)).float().mean() > 0.999
    few = digits("0123456789").sample(10, 3)
    assert evaluate(compose(parts, calibrate=few), test).top1 >= found.top1 - 0.02


def test_calibration_images_of_labels_that_differ_in_signs_are_told_apart() -> None:
    few, parts = digits("01").sample(10, 3), parts_of(digit_modules(), list("01"))
    signs = ("C", "C++")
    renamed = ImageSet(few.name, few.split, signs, few.targets, lambda index: few.images([index])[0])
    named = [dataclasses.replace(part, label=sign) for part, sign in zip(parts, signs, strict=True)]
    pixels, _ = pixels_of(digits("01", "test"))
    expected = compose(parts, calibrate=few)(pixels)
    assert torch.equal(compose(named, calibrate=renamed)(pixels), expected)


def test_calibration_images_may_be_called_as_the_module_is() -> None:
    few, parts = digits("0123").sample(10, 3), parts_of(digit_modules(), list("0123"))
    manifest = dataclasses.replace(parts[1].module.manifest, aliases=("ein",))
    parts[1] = dataclasses.replace(parts[1], module=dataclasses.replace(parts[1].module, manifest=manifest))
    named = [*parts[:2], dataclasses.replace(parts[2], label="two"), dataclasses.replace(parts[3], label="2")]
    pixels, _ = pixels_of(digits("0123", "test"))
    expected = compose(parts[:3], calibrate=few)(pixels)
    for own in (("0", "1", "2", "3"), ("0", "Ein", "two", "3"), ("0", "1", "TWO", "3")):
        images = ImageSet(few.name, few.split, own, few.targets, lambda index: few.images([index])[0])
        assert torch.equal(compose(named[:3], calibrate=images)(pixels), expected)
    # A label's own name wins over what another one's module is called.
    with pytest.raises(DataError) as caught:
        compose(named, calibrate=few)
    assert caught.value.message == "The calibration images have none of 'two'."


def test_calibration_needs_every_class() -> None:
    with pytest.raises(DataError) as caught:
        compose(parts_of(digit_modules()), calibrate=digits("01234"))
    assert caught.value.message == "The calibration images have none of '5'."


@pytest.mark.parametrize("labels", [["3"], ["3", "1", "4"]])
def test_scores_are_those_of_an_assessment(labels: list[str]) -> None:
    classifier = compose(parts_of(digit_modules(), labels))
    pixels, _ = pixels_of(digits("012345", "test"))
    with torch.inference_mode():
        assert torch.equal(classifier(pixels), classifier.assess(pixels)[0])


def test_what_is_fitted_elsewhere_is_saved(tmp_path: Path) -> None:
    """Moving a module to another device or type copies its buffers."""
    classifier = compose(parts_of(digit_modules(), ["1", "3"])).double()
    (head,) = classifier.trunk_passes[0].heads
    head.adjustment.copy_(torch.tensor([2.0, 0.5]))
    (again,) = ComposedClassifier.load(classifier.save(tmp_path / "build")).trunk_passes[0].heads
    assert torch.equal(again.adjustment, torch.tensor([2.0, 0.5]))


def test_images_of_any_sizes_are_answered_in_their_order() -> None:
    classifier = compose(parts_of(digit_modules(), ["1", "3"]))
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (8 + size, 8, 1), np.uint8) for size in (0, 3, 0, 5, 3, 0, 0)]
    together = classifier.predict(images, batch=5)
    for one, image in zip(together, images, strict=True):
        (alone,) = classifier.predict([image])
        assert one.label == alone.label
        assert one.scores == pytest.approx(alone.scores, abs=1e-4)


def test_one_module_alone_answers_with_log_odds() -> None:
    classifier = compose(parts_of(digit_modules(), ["3"]))
    pixels, targets = pixels_of(digits("012345", "test"))
    yes = (classifier(pixels)[:, 0] > 0).numpy()
    assert (yes == (targets == 3)).mean() > 0.9
    (prediction,) = classifier.predict(pixels[:1])
    assert prediction.probability == pytest.approx(classifier(pixels[:1]).sigmoid().item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["flops", "params"])
@pytest.mark.parametrize("limit", [0.8, 0.5, 0.3])
def test_a_budget_is_never_exceeded(kind: str, limit: float) -> None:
    classifier = compose(
        parts_of(digit_modules(), ["1", "4"]), budget=Budget(**{kind: limit}), settings=QUICK
    )
    (trunk,) = classifier.trunk_passes
    spent = (
        trunk.report.flops / trunk.report.parent_flops
        if kind == "flops"
        else trunk.report.kept_params_fraction
    )
    assert spent <= limit
    assert evaluate(classifier, digits("14", "test")).top1 > 0.8


def test_more_budget_never_drops_a_channel() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    chooser = ChannelChooser(plan)
    masks = [chooser.mask(Budget(flops=step / 20)) for step in range(4, 21)]
    for smaller, larger in itertools.pairwise(masks):
        assert (larger | smaller == larger).all()


@pytest.mark.parametrize("multiple", [2, 4])
def test_channels_come_in_multiples(multiple: int) -> None:
    """Inside the budget, and a larger budget still keeps all that a smaller one does."""
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    chooser = ChannelChooser(plan)
    smaller: np.ndarray | None = None
    for flops in (0.3, 0.5, 0.7, 0.9):
        mask = chooser.mask(Budget(flops=flops, multiple=multiple))
        for group in plan.space.groups:
            kept = int(mask[group.start : group.start + group.size].sum())
            assert kept == group.size or kept % multiple == 0
        report = plan.compile(mask).report
        assert report.flops <= flops * report.parent_flops
        assert smaller is None or not (smaller & ~mask).any()
        smaller = mask
    with pytest.raises(BudgetError, match=f"that keeps {multiple} channels in every layer"):
        chooser.mask(Budget(flops=0.0001, multiple=multiple))


def test_a_budget_that_cannot_be_met_says_what_can() -> None:
    with pytest.raises(
        BudgetError, match=r"No choice of channels meets flops=0.001: .* flops=0\.\d+, params="
    ):
        compose(parts_of(digit_modules(), ["1", "4"]), budget=Budget(flops=0.001))
    with pytest.raises(BudgetError, match="is not a fraction"):
        Budget(flops=1.5)


def test_chosen_channels_beat_random_ones_before_any_refit() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4", "5"]))
    test = digits("145", "test")

    def top1(control: int | None) -> float:
        passes = [plan.compile(ChannelChooser(plan, control).mask(Budget(flops=0.5)))]
        return evaluate(join_passes(plan.parts, [plan], passes, reject=False), test).top1

    assert top1(None) > np.mean([top1(seed) for seed in range(4)])


def test_a_loss_is_met_on_images_that_had_no_say() -> None:
    few = dataclasses.replace(QUICK, loss_budgets=(0.3, 0.5, 0.8))
    parts, tune = parts_of(digit_modules(), ["1", "4"]), digits("14").sample(50, 0)
    loose = compose(parts, budget=Budget(max_loss=0.1), tune=tune, settings=few)
    strict = compose(parts, budget=Budget(max_loss=0.0), tune=tune, settings=few)
    costs = [each.trunk_passes[0].report.flops for each in (loose, strict)]
    assert costs[0] <= costs[1]
    assert costs[0] < loose.trunk_passes[0].report.parent_flops
    held, _ = pixels_of(tune.subset(every_nth(len(tune), 4)[0]))
    with torch.inference_mode():
        wanted = compose(parts, budget=Budget(flops=1.0)).margins(held).argmax(1)
        lost = [float((each.margins(held).argmax(1) != wanted).float().mean()) for each in (loose, strict)]
    assert lost[0] <= 0.1
    assert lost[1] == 0


def test_the_search_for_a_loss_passes_over_what_cannot_be_reached() -> None:
    """Nothing of this trunk can go in multiples of 6, so that no step of the search can be met."""
    report = compose(parts_of(pico_set()), budget=Budget(max_loss=0.1, multiple=6)).trunk_passes[0].report
    assert report.flops == report.parent_flops
    with pytest.raises(BudgetError, match=r"No choice of channels meets flops=0\.9:"):
        compose(parts_of(pico_set()), budget=Budget(flops=0.9, max_loss=0.1, multiple=6))


def test_the_search_for_a_loss_tries_the_budget_itself() -> None:
    budget = Budget(flops=0.15, max_loss=0.9)
    tune = digits("14").subset(range(0, 200, 5))
    report = compose(parts_of(digit_modules(), ["1", "4"]), budget=budget, tune=tune).trunk_passes[0].report
    assert report.flops <= 0.15 * report.parent_flops


def test_rejection_says_none_of_these() -> None:
    classifier = compose(parts_of(digit_modules()), reject=True)
    noise = dead_leaves(40, 8, 8, 0)[:, :1]
    labels = [each.label for each in classifier.predict(noise)]
    own = [each.label for each in classifier.predict(pixels_of(digits("012345", "test"))[0])]
    assert labels.count(None) / len(labels) > own.count(None) / len(own)
    assert own.count(None) / len(own) < 0.25


@pytest.mark.parametrize("labels", [["3"], ["3", "5"], list("1234"), list("012345")])
def test_images_of_the_classes_are_accepted_more_often_than_others(labels: list[str]) -> None:
    classifier = compose(parts_of(digit_modules(), labels), reject=True)
    found = evaluate(classifier, digits("0123456789", "test")).rejection
    assert found is not None
    assert found.false_accept is not None
    assert found.accepted > 0.9
    assert found.false_accept < found.accepted - 0.05
    assert list(classifier.false_accept) == labels


def test_the_more_classes_the_higher_the_bar() -> None:
    """The largest of many margins is larger, on strange images as well."""
    (alone,), (two,), (every,) = (
        [head for each in compose(parts_of(digit_modules(), labels)).trunk_passes for head in each.heads]
        for labels in (["3"], ["3", "5"], list("012345"))
    )
    margin = torch.zeros(1, 1)
    assert alone.excess(margin) > two.excess(margin) > every.excess(margin)


def test_modules_of_before_bars_were_shared_still_refuse() -> None:
    parts = []
    for part in parts_of(digit_modules(), ["3", "5"]):
        manifest = part.module.manifest
        known = dict(manifest.calibration.parameters)
        del known["threshold_all"], known["false_accept"]
        calibration = dataclasses.replace(manifest.calibration, parameters=known)
        module = dataclasses.replace(
            part.module, manifest=dataclasses.replace(manifest, calibration=calibration)
        )
        parts.append(dataclasses.replace(part, module=module))
    classifier = compose(parts, reject=True)
    assert classifier.false_accept == {}
    noise = dead_leaves(40, 8, 8, 0)[:, :1]
    assert None in {each.label for each in classifier.predict(noise)}


def test_a_build_comes_back_as_it_was(tmp_path: Path) -> None:
    parts = [*parts_of(digit_modules(), list("0123")), *parts_of(digit_modules("456789", 10, 1))]
    classifier = compose(parts, calibrate=digits("0123456789").sample(5, 0), reject=True)
    classifier.save(tmp_path / "build")
    compose(parts, calibrate=digits("0123456789").sample(5, 0), reject=True).save(tmp_path / "again")
    for file in (tmp_path / "build").rglob("*"):
        if file.is_file():
            assert (
                file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "build")).read_bytes()
            )
    jsonschema.validate(json.loads((tmp_path / "build" / "build.json").read_text()), SCHEMA)
    loaded = ComposedClassifier.load(tmp_path / "build")
    pixels = pixels_of(digits("0123456789", "test"))[0][:20]
    assert loaded.labels == classifier.labels
    assert loaded.reject
    assert loaded.report() == classifier.report()
    assert torch.equal(loaded(pixels), classifier(pixels))


@pytest.mark.parametrize("name", ["heads.safetensors", "trunks/0/weights.safetensors", "trunks/0/graph.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_build_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    compose(parts_of(digit_modules(), ["1", "4"])).save(tmp_path / "build")
    file = tmp_path / "build" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=name):
        ComposedClassifier.load(tmp_path / "build")


def test_a_calibration_of_a_later_kind_is_refused() -> None:
    (part,) = parts_of(pico_set(), ["cat"])
    manifest = part.module.manifest
    later = dataclasses.replace(manifest, calibration=dataclasses.replace(manifest.calibration, kind="later"))
    with pytest.raises(CompositionError) as caught:
        compose([dataclasses.replace(part, module=dataclasses.replace(part.module, manifest=later))])
    assert str(caught.value) == (
        "The module 'cat' has the calibration 'later', which this version of modhub does not know. "
        "Upgrade modhub."
    )


def test_a_directory_without_a_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"holds no build\.json"):
        ComposedClassifier.load(tmp_path)


def test_a_classifier_prints_its_labels_parents_and_size() -> None:
    classifier = compose(parts_of(pico_set(), ["cat"]))
    (trunk_pass,) = classifier.trunk_passes
    report = trunk_pass.report
    assert repr(classifier) == (
        f"ComposedClassifier([cat], from {report.parent} ({report.flops / report.parent_flops:.0%} of its "
        f"multiply-adds, {cost(trunk_pass.trunk.network).parameters:,} parameters))"
    )
    everything = compose(parts_of(digit_modules()))
    assert repr(everything).startswith("ComposedClassifier([0, 1, 2, 3, 4, 5], from digits-012345-12 (")


def test_a_classifier_can_be_copied_and_pickled() -> None:
    classifier = compose(parts_of(digit_modules(), ["1", "4"]))
    pixels, _ = pixels_of(digits("14", "test"))
    with torch.inference_mode():
        for again in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
            assert torch.equal(again(pixels), classifier(pixels))


def test_a_classifier_can_be_exported() -> None:
    parts = [*parts_of(digit_modules(), list("01")), *parts_of(digit_modules("456789", 10, 1), list("89"))]
    classifier = compose(parts)
    pixels = pixels_of(digits("0189", "test"))[0][:4].float() / 255
    program = torch.export.export(classifier, (pixels,))
    torch.testing.assert_close(program.module()(pixels), classifier(pixels), atol=1e-5, rtol=1e-5)
