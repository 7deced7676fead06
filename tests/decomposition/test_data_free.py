"""Modules that are made without images: exact inside their parent, and nothing said that nobody measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import modhub
from modhub.artifact import read_artifact, write_artifact
from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, compose, parts_of
from modhub.decomposition import DecomposeOptions, Parent
from modhub.decomposition.assembly import assemble
from modhub.decomposition.data_free import without_images
from modhub.decomposition.teaching import teach
from modhub.errors import BudgetError, DataError, ParentError
from modhub.evaluation.evaluate import evaluate
from modhub.importing import import_module
from modhub.manifest import InputSpec
from modhub.nets import Runner
from modhub.reporter import Reporter
from tests.support.digit_parents import INPUT, digit_modules, digit_parent, digits, pixels_of
from tests.support.quick import QUICK


def _blind(parent: Parent, only: tuple[str, ...] | None = None) -> ModuleSet:
    return assemble(parent, without_images(parent, DecomposeOptions(only=only)))


class _Heard(Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_they_answer_as_the_parents_logits_do_restricted_to_their_classes() -> None:
    parent = digit_parent()
    pixels, _ = pixels_of(digits("012345", "test"))
    classifier = compose([parts_of(_blind(parent))[row] for row in (4, 1, 2)])
    with torch.inference_mode():
        logits = Runner(parent.head.join(parent.trunk))(classifier.trunk_passes[0].preprocess(pixels))
        answers = classifier.probabilities(classifier(pixels))
    assert torch.allclose(answers, logits[:, [4, 1, 2]].softmax(1), atol=1e-5)
    assert not classifier.false_accept


def test_one_alone_says_what_the_parents_softmax_says_at_even_odds() -> None:
    parent = digit_parent()
    pixels, _ = pixels_of(digits("012345", "test"))
    classifier = compose(parts_of(_blind(parent))[3:4])
    with torch.inference_mode():
        logits = Runner(parent.head.join(parent.trunk))(classifier.trunk_passes[0].preprocess(pixels))
        share = logits.double().softmax(1)[:, 3].clamp(max=1 - 1e-6)
        expected = (share / (1 - share)).log() + np.log(5)
        assert torch.allclose(classifier(pixels)[:, 0].double(), expected, atol=1e-2)


def test_what_is_unknown_is_absent(tmp_path) -> None:
    modules = _blind(digit_parent(), ("3", "5"))
    write_artifact(tmp_path / "blind", modules)
    again = read_artifact(tmp_path / "blind")
    assert [module.label for module in again.modules] == ["3", "5"]
    for module in again.modules:
        assert module.manifest.measurement is None
        assert set(module.manifest.calibration.parameters) == {"temperature", "slope", "intercept"}
        assert module.manifest.method.to_dict() == {
            "name": "whole",
            "parameters": {"fit_images": 0},
            "paper": None,
        }
    assert all(entry.metrics == {} and entry.sample is None for entry in again.manifest.modules)
    assert "recall" not in (tmp_path / "blind" / "README.md").read_text()


def test_a_budget_is_fitted_on_what_batch_norms_have_seen() -> None:
    test, parts = digits("012345", "test"), parts_of(_blind(digit_parent()))
    slim = compose(parts, budget=Budget(flops=0.7), settings=QUICK)
    assert slim.trunk_passes[0].report.flops <= 0.7 * slim.trunk_passes[0].report.parent_flops
    assert evaluate(slim, test).top1 > evaluate(compose(parts), test).top1 - 0.03


def test_a_single_class_is_fitted_beside_what_it_is_not() -> None:
    slim = compose(parts_of(_blind(digit_parent()))[:1], budget=Budget(flops=0.7), settings=QUICK)
    pixels, targets = pixels_of(digits("012345", "test"))
    with torch.inference_mode():
        accepted = (slim(pixels)[:, 0] > 0).numpy()
    assert (accepted[targets == 0].mean() + (~accepted[targets != 0]).mean()) / 2 > 0.85


class _Plain(nn.Module):
    """Nothing in it has seen an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))
        return out


def _plain() -> Parent:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = import_module(_Plain().eval(), (1, 8, 8))
    return Parent.of(network, name="plain", architecture="plain", labels=("0", "1", "2", "3"), input=INPUT)


def test_without_batch_norms_a_budget_asks_for_images() -> None:
    parts = parts_of(_blind(_plain()))
    with pytest.raises(BudgetError) as error:
        compose(parts, budget=Budget(flops=0.5))
    assert error.value.message == (
        "Modules of 'plain' were made without images, and its trunk has no batch norms to synthesize some "
        "by: which channels can go is not known."
    )
    assert error.value.hint == "Give images of any of its classes with --tune."
    tune = digits("0123").subset(range(60))
    slim = compose(parts, budget=Budget(flops=0.5), tune=tune, settings=QUICK)
    assert slim.trunk_passes[0].report.flops <= 0.5 * slim.trunk_passes[0].report.parent_flops


def test_where_figures_are_relied_on_it_warns() -> None:
    blind = parts_of(_blind(digit_parent()))[:2]
    measured = parts_of(teach(digit_modules(), "7", digits("7").subset(range(20))))
    compose(blind, reporter=(heard := _Heard()))
    assert heard.warnings == []
    compose([*blind, *measured], reporter=heard)
    assert heard.warnings == [
        "'0' and 1 more were made without images: how their scores compare with those of other parents is "
        "not measured. Give a few labelled images of every class with --calibrate."
    ]
    heard.warnings.clear()
    compose([*blind, *measured], calibrate=digits("017").sample(8, 0), reporter=heard)
    assert heard.warnings == []
    compose(blind[:1], reject=True, reporter=heard)
    assert heard.warnings == [
        "'0' was made without images, so no threshold for 'none of these' is known: only images that their "
        "parent takes for another of its classes are rejected. Decompose these modules with images first."
    ]


def test_they_are_measured_later_by_decomposing_their_directory(tmp_path) -> None:
    parent = digit_parent()
    write_artifact(tmp_path / "blind", _blind(parent))
    measured = modhub.decompose(
        str(tmp_path / "blind"), digits("012345"), images_per_class=30, calibration_images=20
    )
    assert measured.manifest.parent == parts_of(_blind(parent))[0].module.manifest.parent
    assert measured.manifest.trunk is not None
    assert measured.manifest.trunk.sha256 == parent.trunk.sha256
    assert all(entry.metrics["recall"] > 0.5 for entry in measured.manifest.modules)
    with pytest.raises(ParentError, match="which say all of their parent: 'labels' cannot be given"):
        modhub.decompose(str(tmp_path / "blind"), None, labels=list("abcdef"))


def test_what_no_image_can_say_must_be_said() -> None:
    with pytest.raises(ParentError, match=r"The input size of '_plain' is unknown"):
        modhub.decompose(_Plain().eval(), None)
    with pytest.raises(ParentError, match=r"The classes of '_plain' are unknown"):
        modhub.decompose(_Plain().eval(), None, input_size=(1, 8, 8), mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="cannot be measured in the same step"):
        modhub.decompose(_Plain().eval(), None, measure="digits")
    modules = modhub.decompose(
        _Plain().eval(), None, input_size=(1, 8, 8), mean=(0.1,), std=(0.2,), labels=list("abcd"), name="p"
    )
    assert modules.manifest.input == InputSpec(channels=1, height=8, width=8, mean=(0.1,), std=(0.2,))
    assert modules.manifest.parent.dataset is None


@pytest.mark.parametrize("given", [{"method": "random"}, {"method_options": {"share": "0.5"}}])
def test_a_method_has_nothing_to_choose_by(given: dict[str, object]) -> None:
    with pytest.raises(DataError, match="A method chooses channels by images, and there are none"):
        modhub.decompose(nn.Linear(2, 2), None, **given)


def test_a_method_that_there_is_not_is_missed_before_the_parent() -> None:
    with pytest.raises(DataError, match="There is no method 'nosuch'"):
        modhub.decompose("hf:no/where", digits("01"), method="nosuch")
