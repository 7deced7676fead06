"""The same results on CUDA as on the CPU, to 1e-3, where there is a GPU: decompose, compose, evaluate.

Elsewhere these tests are skipped. MODHUB_TEST_DEVICE names another device to try them on.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modhub.artifact.modules import ModuleDraft
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.decomposition import METHODS, decompose
from modhub.evaluation.evaluate import evaluate
from tests.support.digit_parents import OPTIONS, digit_modules, digit_parent, digits, pixels_of

DEVICE = torch.device(os.environ.get("MODHUB_TEST_DEVICE", "cuda"))
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"
)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pick_device` sees to for users of the package."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def drafts(method: str, device: torch.device) -> tuple[ModuleDraft, ...]:
    options = replace(OPTIONS, device=device)
    return decompose(digit_parent(), digits("012345"), method=method, options=options).modules


@pytest.mark.parametrize(
    # What is learned goes other ways after a rounding.
    "method",
    sorted(name for name, kind in METHODS.items() if "training" not in kind.needs),  # type: ignore[attr-defined]
)
def test_decomposing_finds_the_same_modules(method: str) -> None:
    for here, there in zip(drafts(method, torch.device("cpu")), drafts(method, DEVICE), strict=True):
        assert there.label == here.label
        assert there.sizes == here.sizes
        assert there.tensors.keys() == here.tensors.keys()
        for name, tensor in here.tensors.items():
            found = there.tensors[name]
            assert (found.device.type, found.dtype) == ("cpu", tensor.dtype)
            assert torch.allclose(found.double(), tensor.double(), rtol=1e-3, atol=1e-3), name
        assert there.calibration.parameters == pytest.approx(here.calibration.parameters, rel=1e-3, abs=1e-3)


def scores(parts: list[Part], device: torch.device) -> Tensor:
    with torch.inference_mode():
        found: Tensor = compose(parts, device=device)(pixels_of(digits("14", "test"))[0])
    return found


def test_what_is_not_fitted_is_the_same() -> None:
    parts = parts_of(digit_modules(), ["1", "4"])
    assert torch.allclose(scores(parts, DEVICE), scores(parts, torch.device("cpu")), atol=1e-3)


def test_a_budget_is_fitted_as_well() -> None:
    parts, images = parts_of(digit_modules(), ["1", "4"]), digits("14", "test")
    budget = Budget(flops=0.5)
    here = compose(parts, budget=budget, tune=digits("14"))
    there = compose(parts, budget=budget, tune=digits("14"), device=DEVICE)
    assert [each.report for each in there.trunk_passes] == [each.report for each in here.trunk_passes]
    assert {tensor.device.type for tensor in there.state_dict().values()} == {"cpu"}
    # Hundreds of steps of distillation drift apart by rounding; what they reach does not.
    assert evaluate(there, images).top1 == pytest.approx(evaluate(here, images).top1, abs=0.02)


def test_evaluation_counts_the_same() -> None:
    classifier: ComposedClassifier = compose(parts_of(digit_modules(), ["1", "4", "5"]))
    images = digits("145", "test")
    here, there = evaluate(classifier, images), evaluate(classifier, images, device=DEVICE)
    assert there.confusion == here.confusion
    assert there.top1 == pytest.approx(here.top1)


def test_predictions_are_the_same() -> None:
    classifier = compose(parts_of(digit_modules(), ["1", "4"]))
    images = pixels_of(digits("14", "test"))[0][:20]
    here = classifier.predict(images)
    there = classifier.to(DEVICE).predict(images)
    assert [one.label for one in there] == [one.label for one in here]
    assert [one.acceptance for one in there] == pytest.approx([one.acceptance for one in here], abs=1e-2)
