from __future__ import annotations

import numpy as np
import pytest
import torch

from modhub.artifact import read_artifact, write_artifact
from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, compose, parts_of
from modhub.composition.interference import estimate_interference, measure_interference
from modhub.decomposition.teaching import steadied, teach
from modhub.errors import CompositionError, DataError
from modhub.evaluation.evaluate import evaluate
from modhub.pruning.statistics import Moments
from tests.support.digit_parents import digit_modules, digits, pixels_of
from tests.support.pico import pico_set


def _taught(label: str = "7", count: int = 40) -> ModuleSet:
    return teach(digit_modules(), label, digits(label).subset(range(count)))


def test_a_taught_class_stands_beside_the_known_ones() -> None:
    test = digits("0123457", "test")
    before = evaluate(compose(parts_of(digit_modules())), test)
    after = evaluate(compose([*parts_of(digit_modules()), *parts_of(_taught())]), test)
    assert after.labels == tuple("0123457")
    recalls = [score.recall or 0.0 for score in after.per_class.values()]
    assert recalls[-1] > 0.6
    # The old classes hardly suffer.
    old = np.mean([score.recall or 0.0 for score in before.per_class.values()])
    assert np.mean(recalls[:-1]) > old - 0.06


def test_what_is_taken_from_known_classes_is_what_a_composition_takes() -> None:
    known, (taught,) = parts_of(digit_modules()), parts_of(_taught())
    test = digits("012345", "test")
    counted, count = measure_interference(known, taught, test)
    assert count == len(test)
    pixels, targets = pixels_of(test)
    for parts, which in ((known, "share"), (known[3:4], "alone")):
        with torch.inference_mode():
            scores = compose([*parts, taught], budget=Budget(flops=1.0))(pixels)
        right = scores[:, :-1].argmax(1).numpy() == (targets if which == "share" else 0)
        lost = right & (scores.argmax(1).numpy() == len(parts))
        for part in parts:
            expected = lost[targets == known.index(part)].mean()
            assert getattr(counted[part.name], which) == pytest.approx(float(expected))


def test_what_is_taken_is_guessed_without_images() -> None:
    known = parts_of(digit_modules())
    (near,), (far,) = (
        parts_of(_taught("7")),
        parts_of(teach(digit_modules(), "zero", digits("0").subset(range(40)))),
    )
    guessed = estimate_interference(known, far)
    assert next(iter(guessed)) == "0", "who looks like a known class takes its images"
    assert guessed["0"].share > 0.2 > estimate_interference(known, near)["0"].share
    assert estimate_interference(known, near) == estimate_interference(known, near)
    assert all(each.alone is not None and 0 <= each.share <= 1 for each in guessed.values())


def test_more_images_do_not_harm() -> None:
    test = digits("0123457", "test")

    def top1(count: int) -> float:
        return evaluate(compose([*parts_of(digit_modules()), *parts_of(_taught(count=count))]), test).top1

    assert top1(80) > top1(2) - 0.02


def test_taught_classes_are_told_apart_by_what_their_modules_say_of_features() -> None:
    """Rows alone, fitted one without the other, mistake taught classes for each other."""
    taught = [*parts_of(_taught("7", 80)), *parts_of(_taught("8", 80))]
    classifier = compose([*parts_of(digit_modules()), *taught])
    (each,) = classifier.trunk_passes
    assert [head.classes for head in each.heads].count(1) == 2
    assert all(head.density is not None for head in each.heads)
    pixels, targets = pixels_of(digits("01234578", "test"))
    with torch.inference_mode():
        scores, alone = classifier(pixels), classifier.margins(pixels)
    # Those that the parent knows keep their order.
    assert torch.equal(scores[:, :6].argmax(1), alone[:, :6].argmax(1))
    right, before = (float(np.mean(each.argmax(1).numpy() == targets)) for each in (scores, alone))
    assert right > before + 0.01


def test_the_covariance_of_few_images_leans_on_known_classes() -> None:
    known = [Moments(np.zeros(2), np.diag([1.0, 3.0])), Moments(np.ones(2), np.array([3.0, 1.0]))]
    own = Moments(np.array([5.0, 6.0]), np.array([[1.0, 1.0], [1.0, 1.0]]))
    found = steadied(own, known, 20)
    assert np.array_equal(found.mean, own.mean)
    assert np.allclose(found.covariance, [[1.5, 0.5], [0.5, 1.5]])
    assert np.allclose(steadied(own, known, 10**9).covariance, own.covariance)
    flat = steadied(Moments(own.mean, np.array([1.0, 1.0])), known, 20)
    assert np.allclose(flat.covariance, [1.5, 1.5])


def test_a_taught_module_is_written_and_read_like_any_other(tmp_path) -> None:
    taught = _taught()
    write_artifact(tmp_path / "seven", taught)
    read = read_artifact(tmp_path / "seven")
    (part,), (again,) = parts_of(taught), parts_of(read)
    assert read.manifest.trunk == digit_modules().manifest.trunk
    pixels = torch.zeros(1, 1, 8, 8)
    assert torch.equal(compose([part])(pixels), compose([again])(pixels))
    assert part.parent == parts_of(digit_modules())[0].parent
    again_ = _taught()
    assert [module.manifest for module in again_.modules] == [module.manifest for module in taught.modules]


def test_what_cannot_be_taught_is_said() -> None:
    with pytest.raises(CompositionError, match="'digits-012345-12' knows the class '3' already"):
        _taught("3")
    with pytest.raises(DataError, match="There are 1 images of '7'; at least 2 are needed"):
        _taught(count=1)
    with pytest.raises(CompositionError, match="do not carry what teaching a class needs"):
        teach(pico_set(), "zebra", digits("7"))
