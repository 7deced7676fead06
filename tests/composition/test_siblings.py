"""What a parent knows of its classes that are not composed: odds for one class, evidence for a set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from modhub.artifact.modules import tensor_bytes
from modhub.calibration.calibrator import Calibrator, log_odds
from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.build import load_build
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.fitting.sources import FittingSource, synthesis_targets
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.fitting.transfer_set import ImageTransferSet
from modhub.composition.heads import JoinedHead
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.errors import IntegrityError
from modhub.files import sha256_of_bytes
from modhub.nets import Runner
from modhub.text import pretty_json
from tests.support.digit_parents import INPUT, digit_modules, digit_parent, digits, pixels_of
from tests.support.quick import SHORT


def _whole(labels: list[str]) -> list[Part]:
    found = []
    for part in parts_of(digit_modules(), labels):
        tensors = {**part.module.tensors, "mask": torch.ones_like(part.module.tensors["mask"])}
        found.append(dataclasses.replace(part, module=dataclasses.replace(part.module, tensors=tensors)))
    return found


def _logits(pixels: Tensor) -> Tensor:
    parent = digit_parent()
    with torch.inference_mode():
        logits: Tensor = Runner(parent.head.join(parent.trunk))(Preprocess(INPUT)(pixels))
    return logits


def _head(classifier: ComposedClassifier) -> JoinedHead:
    ((head,),) = (each.heads for each in classifier.trunk_passes)
    return head


def _scaled(pixels: Tensor, head: JoinedHead) -> Tensor:
    """The parent's logits at the scale of its temperature on margins."""
    logits = _logits(pixels)
    count = logits.shape[1]
    return float(head.field("temperature")[0]) * count / (count - 1) * logits


@pytest.mark.parametrize("label", ["0", "3", "5"])
def test_one_class_alone_answers_with_the_odds_of_its_parents_softmax(label: str) -> None:
    classifier = compose(_whole([label]))
    pixels, _ = pixels_of(digits("012345", "test"))
    share = _scaled(pixels, _head(classifier)).double().softmax(1)[:, int(label)]
    head = _head(classifier)
    expected = head.field("slope") * (share / (1 - share)).log() + head.field("intercept")
    assert torch.allclose(classifier(pixels)[:, 0].double(), expected, atol=1e-3, rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
def test_evidence_falls_as_other_classes_of_the_parent_claim_an_image(composed: list[int]) -> None:
    classifier = compose(_whole([str(row) for row in composed]))
    head = _head(classifier)
    pixels, _ = pixels_of(digits("0123456789", "test"))
    scaled = _scaled(pixels, head)
    share = scaled.double().softmax(1)[:, composed].sum(1)
    (output,) = classifier.outputs(pixels)
    best = output.margin.max(1).values.double()
    found = head.ood_score(output.margin, output.rest).max(1).values.double()
    expected = best + share.log() / float(head.field("temperature")[0])
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)
    assert bool((found <= best).all())


def test_odds_between_several_classes_are_those_of_the_softmax_and_stay_numbers() -> None:
    classifier = compose(_whole(["1", "4"]))
    head = _head(classifier)
    pixels, _ = pixels_of(digits("012345", "test"))
    (output,) = classifier.outputs(pixels)
    share = _scaled(pixels, head).double().softmax(1)[:, [1, 4]].clamp(max=1 - 1e-6)
    found = head.odds(output.margin, output.rest)
    unsure = (share < 0.999) & (share > 1e-6)
    assert torch.allclose(found.double()[unsure], torch.logit(share)[unsure], atol=2e-2)
    assert bool(torch.isfinite(found).all())


def test_the_parents_other_classes_are_refused_better_than_by_margins() -> None:
    """The same classes, once told by margins alone and once by the whole head, at the same share of own
    images accepted."""
    own, others = (pixels_of(digits(labels, "test"))[0] for labels in ("35", "0124"))
    classifier = compose(_whole(["3", "5"]), reject=True)
    head = _head(classifier)
    rates = []
    for told in (True, False):
        found = []
        for pixels in (own, others):
            (output,) = classifier.outputs(pixels)
            found.append(head.ood_score(output.margin, output.rest if told else None).max(1).values)
        rates.append(float((found[1] >= torch.quantile(found[0], 0.05)).float().mean()))
    assert rates[0] < rates[1]
    accepted = [float((classifier.assess(pixels)[1] >= 0).float().mean()) for pixels in (own, others)]
    assert accepted[0] > 0.85
    assert accepted[1] < 0.1


def test_all_classes_of_a_parent_have_no_siblings() -> None:
    head = _head(compose(_whole(list("012345"))))
    assert head.tensors.siblings is None
    assert head.rest_logsumexp(torch.zeros(1, head.features)) is None


def test_a_class_that_cut_channels_speak_of_keeps_its_siblings() -> None:
    """Under a budget rows of siblings are cut and fitted as all others are."""
    images = digits("012345")
    classifier = compose(
        parts_of(digit_modules(), ["3"]), budget=Budget(flops=0.6), tune=images, settings=SHORT
    )
    head = _head(classifier)
    assert head.tensors.siblings is not None
    assert head.tensors.siblings.shape == (5, head.features)
    pixels, targets = pixels_of(digits("012345", "test"))
    assert balanced_accuracy((classifier(pixels)[:, 0] > 0).numpy(), targets == 3) > 0.9


@pytest.mark.parametrize("label", ["0", "3"])
def test_without_data_a_class_alone_has_seen_what_it_says_no_to(label: str) -> None:
    """Its images are imagined, and others that its siblings claim; so yes and no keep their level."""
    parts = parts_of(digit_modules(), [label])
    (plan,) = trunk_plans(parts)
    own, others = synthesis_targets(plan).values()
    assert others.rows is not None
    assert len(others.rows) == 5
    assert set(others.statistics.moments) < set(own.statistics.moments)
    classifier = compose(parts, budget=Budget(flops=0.6), settings=SHORT)
    (trunk,) = classifier.trunk_passes
    assert trunk.report.flops <= 0.6 * trunk.report.parent_flops
    pixels, targets = pixels_of(digits("012345", "test"))
    found = balanced_accuracy((classifier(pixels)[:, 0] > 0).numpy(), targets == int(label))
    assert found > 0.8


def test_channels_of_a_class_alone_are_chosen_by_what_images_say() -> None:
    parts = parts_of(digit_modules(), ["3"])
    (plan,) = trunk_plans(parts)
    images = digits("012345")
    data = FittingSource(images, ImageSynthesizer()).data(plan, Budget(flops=0.6))
    assert data is not None
    assert data.balanced
    modules = ChannelChooser(plan)
    observed = modules.observing(data)
    assert observed.plan.statistics is not None
    assert plan.statistics is not None
    assert set(observed.plan.statistics.moments) == set(plan.statistics.moments)
    assert not np.array_equal(observed.order.slots, modules.order.slots)
    # For images of one side the other is synthesized; several classes are chosen for by their modules.
    one_sided = FittingSource(images.only(["3"]), ImageSynthesizer()).data(plan, None)
    assert one_sided is not None
    assert one_sided.balanced
    (pair,) = trunk_plans(parts_of(digit_modules(), ["3", "5"]))
    both = FittingSource(images, ImageSynthesizer()).data(pair, None)
    assert both is not None
    of_pair = ChannelChooser(pair)
    assert of_pair.observing(both) is of_pair


def test_a_set_among_images_of_others_is_fitted_on_both_alike() -> None:
    """What its parent says decides, not labels: every second image that it is distilled on is of the set."""
    images = digits("012345")
    (plan,) = trunk_plans(parts_of(digit_modules(), ["3", "5"]))

    def share(tune: ImageSet) -> float:
        data = FittingSource(tune, ImageSynthesizer()).data(plan, None)
        assert data is not None
        assert isinstance(data.transfer, ImageTransferSet)
        pixels, _ = pixels_of(data.transfer.images)
        with torch.inference_mode():
            (output,) = plan.unpruned.outputs(pixels)
        assert output.rest is not None
        of_set = output.head.scaled(output.margin).logsumexp(1) > output.rest[:, 0]
        drawn = data.transfer.chances
        assert data.balanced == (drawn is not None)
        return float(of_set.double().mean() if drawn is None else drawn[of_set.numpy()].sum())

    assert share(images) == pytest.approx(0.5, abs=0.05)
    assert share(images.only(["0", "1", "2", "3"])) == pytest.approx(0.5, abs=0.05)
    # Where most are of the set, or hardly any, all are taken as they come.
    assert share(images.only(["3", "5"])) > 0.9
    assert share(images.only(["0", "3", "5"])) == pytest.approx(2 / 3, abs=0.1)
    assert share(images.only(["0", "1"])) < 0.1


def test_a_set_that_knows_no_siblings_takes_images_as_they_come() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["0", "1", "2", "3", "4", "5"]))
    data = FittingSource(digits("012345"), ImageSynthesizer()).data(plan, None)
    assert data is not None
    assert not data.balanced


def test_a_build_keeps_its_siblings(tmp_path: Path) -> None:
    classifier = compose(parts_of(digit_modules(), ["3", "5"]), reject=True)
    again = load_build(classifier.save(tmp_path / "build"))
    pixels, _ = pixels_of(digits("0123456789", "test"))
    for one, other in zip(classifier.assess(pixels), again.assess(pixels), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("0.0.sibling_bias"),
        lambda tensors: tensors.update({"0.0.siblings": tensors["0.0.siblings"][:, :-1].contiguous()}),
        lambda tensors: tensors.update({"0.0.siblings": torch.zeros(())}),
    ],
)
def test_siblings_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any]
) -> None:
    place = compose(parts_of(digit_modules(), ["3"])).save(tmp_path / "build")
    tensors = load_file(place / "heads.safetensors")
    change(tensors)
    content = tensor_bytes(tensors)
    (place / "heads.safetensors").write_bytes(content)
    told = json.loads((place / "build.json").read_text())
    told["heads"] |= {"size": len(content), "sha256": sha256_of_bytes(content)}
    (place / "build.json").write_bytes(pretty_json(told))
    with pytest.raises(IntegrityError, match="sibling"):
        load_build(place)


@pytest.mark.parametrize("left", [{}, {"parent.weight": torch.zeros(6, 3), "parent.bias": torch.zeros(6)}])
def test_a_trunk_without_its_parents_head_is_refused(left: dict[str, Tensor]) -> None:
    parts = [dataclasses.replace(part, statistics=left) for part in parts_of(digit_modules(), ["3"])]
    with pytest.raises(IntegrityError, match="head of 'digits-012345-12'"):
        compose(parts)


def test_modules_calibrated_by_margins_compose_as_ever() -> None:
    parts = []
    for part in parts_of(digit_modules(), ["3"]):
        manifest = part.module.manifest
        calibration = dataclasses.replace(manifest.calibration, kind="margin")
        manifest = dataclasses.replace(manifest, calibration=calibration)
        parts.append(dataclasses.replace(part, module=dataclasses.replace(part.module, manifest=manifest)))
    classifier = compose(parts)
    pixels, _ = pixels_of(digits("012345", "test"))
    numbers = parts[0].module.manifest.calibration.parameters
    expected = numbers["slope"] * classifier.margins(pixels) + numbers["intercept"]
    assert torch.allclose(classifier(pixels), expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), labels=st.integers(2, 6), odds=st.booleans())
def test_log_odds_of_a_manifest_are_those_it_was_fitted_for(seed: int, labels: int, odds: bool) -> None:
    """`log_odds` of the very images finds both sides at even odds about as likely as they are."""
    draw = np.random.default_rng(seed)
    targets = np.arange(400) % labels
    logits = draw.normal(size=(400, labels)) * 2
    logits[np.arange(400), targets] += 3.0
    weights = np.ones(400)
    calibrator = Calibrator(logits, targets, weights, weights, odds=odds)
    row = int(draw.integers(labels))
    calibration = calibrator.calibration(row)
    assert calibration.kind == ("odds" if odds else "margin")
    found = log_odds(logits, row, calibration)
    chance = 1 / (1 + np.exp(-found))
    positive = targets == row
    # The likelihood is greatest where both sides are believed as often as they are there.
    assert chance[positive].mean() + chance[~positive].mean() == pytest.approx(1.0, abs=0.05)
    assert balanced_accuracy(found > 0, positive) > 0.65
