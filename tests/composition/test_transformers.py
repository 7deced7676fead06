"""A transformer composed as any other parent: heads go, and what is left is fitted, saved and exported."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, ComposedClassifier, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.trunk_plan import trunk_plans
from modhub.decomposition import decompose
from modhub.decomposition.assembly import assemble
from modhub.evaluation.evaluate import evaluate
from modhub.runtimes.export import FORMATS, as_raw_batch, export_classifier
from modhub.runtimes.geometry import Geometry
from tests.support.digit_parents import OPTIONS, digits, pixels_of, trained_parent
from tests.support.quick import QUICK
from tests.support.small_vit import small_vit

LABELS = "0123"


@cache
def modules() -> ModuleSet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_vit(len(LABELS), channels=1, size=8, patch=2, width=16)
        parent = trained_parent(model, LABELS, "digits-vit")
    return assemble(parent, decompose(parent, digits(LABELS), options=OPTIONS))


@cache
def half() -> ComposedClassifier:
    tune = digits("13")
    return compose(parts_of(modules(), ["1", "3"]), budget=Budget(flops=0.5), tune=tune, settings=QUICK)


def test_all_modules_answer_as_their_parent() -> None:
    pixels, targets = pixels_of(digits(LABELS, "test"))
    classifier = compose(parts_of(modules()))
    whole = compose(parts_of(modules()), budget=Budget(flops=1.0))
    assert (classifier(pixels).argmax(1).numpy() == targets).mean() > 0.7
    assert (classifier(pixels).argmax(1) == whole(pixels).argmax(1)).float().mean() > 0.97
    again = compose(parts_of(modules())[::-1])
    assert torch.allclose(again(pixels)[:, [3, 2, 1, 0]], classifier(pixels), atol=1e-4)


def test_half_of_it_still_tells_two_classes_apart() -> None:
    (trunk,) = half().trunk_passes
    assert trunk.report.flops <= 0.5 * trunk.report.parent_flops
    assert evaluate(half(), digits("13", "test")).top1 > 0.85


def test_more_budget_never_drops_a_head() -> None:
    (plan,) = trunk_plans(parts_of(modules(), ["1", "3"]))
    chooser = ChannelChooser(plan)
    masks = [chooser.mask(Budget(flops=step / 10)) for step in range(2, 11)]
    heads = [group for group in plan.space.groups if group.name.endswith("attn.qkv")]
    assert [group.size for group in heads] == [4, 4]
    assert any(not masks[0][group.slots].all() for group in heads)
    for smaller, larger in itertools.pairwise(masks):
        assert (larger | smaller == larger).all()


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_transformer_is_exported(form: str, tmp_path: Path) -> None:
    pixels, _ = pixels_of(digits("13", "test"))
    images = as_raw_batch(list(pixels[:5].permute(0, 2, 3, 1).numpy().astype(np.uint8)), Geometry((8, 8)))
    report = export_classifier(half(), ["1", "3"], tmp_path / f"digits.{form}", format=form, images=images)
    assert report.largest_difference <= 1e-3


def test_a_cut_transformer_comes_back_as_it_was(tmp_path: Path) -> None:
    pixels, _ = pixels_of(digits("13", "test"))
    half().save(tmp_path / "build")
    assert torch.equal(ComposedClassifier.load(tmp_path / "build")(pixels), half()(pixels))
