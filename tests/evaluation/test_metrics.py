"""Evaluation on images whose answers are known: the classifier reads its scores off the pixels."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modhub.data import ImageSet
from modhub.errors import AmbiguousClassError, DataError
from modhub.evaluation.baselines import RestrictedParent
from modhub.evaluation.comparison import compare
from modhub.evaluation.evaluate import evaluate
from modhub.evaluation.metrics import ClassScore, Evaluation, Rejection, YesNo
from modhub.manifest import InputSpec
from modhub.refs import rows_of

LABELS = ("cat", "dog", "bird")


class Told:
    """Answers class k for an image full of k; `scores[k]` are what it then says."""

    def __init__(self, labels: tuple[str, ...], scores: list[list[float]]) -> None:
        self.labels = labels
        self.scores = torch.tensor(scores)

    def __call__(self, images: Tensor) -> Tensor:
        return self.scores[images[:, 0, 0, 0].long()]


def shown(
    pixels: list[int], targets: list[int], labels: tuple[str, ...] = LABELS, name: str = "pets"
) -> ImageSet:
    return ImageSet(
        name, "test", labels, np.array(targets), lambda i: np.full((2, 2, 1), pixels[i], dtype=np.uint8)
    )


SURE = [[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]


def test_counts() -> None:
    result = evaluate(Told(LABELS, SURE), shown([0, 0, 1, 1, 2], [0, 0, 0, 1, 2]), batch=2)
    assert (result.top1, result.top5, result.count, result.left_out) == (0.8, None, 5, 0)
    assert result.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 1))
    assert {label: (s.count, s.recall, s.precision) for label, s in result.per_class.items()} == {
        "cat": (3, pytest.approx(2 / 3), 1.0),
        "dog": (1, 1.0, 0.5),
        "bird": (1, 1.0, 1.0),
    }


def test_images_of_other_classes_are_left_out() -> None:
    images = shown([0, 1, 1, 2], [0, 1, 2, 3], ("Cat", "Puma", "Hund", "whale"))
    told = Told(("cat", "dog"), [[1.0, 0], [0, 1.0], [1.0, 1.0]])
    result = evaluate(told, images, aliases={"dog": ["hund", "cat"]})
    assert (result.count, result.left_out, result.top1) == (2, 2, 1.0)


class Wary(Told):
    """Refuses images whose first score is below its bar."""

    def __init__(self, labels: tuple[str, ...], scores: list[list[float]], reject: bool) -> None:
        super().__init__(labels, scores)
        self.reject = reject

    def assess(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self(images)
        return scores, scores[:, 0] - 2


def test_refusals_are_counted_on_own_images_and_on_strangers() -> None:
    images = shown([0, 1, 0, 2, 2, 3], [0, 0, 1, 2, 2, 3], ("cat", "dog", "whale", "worm"))
    scores = [[3.0, 0], [1.0, 0], [2.5, 0], [1.0, 0]]
    found = evaluate(Wary(("cat", "dog"), scores, reject=True), images).rejection
    assert found == Rejection(accepted=pytest.approx(2 / 3), false_accept=pytest.approx(2 / 3), strangers=3)
    alone = evaluate(Wary(("cat", "dog"), scores, reject=True), images.only(["cat", "dog"]))
    assert alone.rejection == Rejection(accepted=pytest.approx(2 / 3), false_accept=None, strangers=0)
    assert alone.to_dict()["rejection"]["false_accept"] is None
    willing = evaluate(Wary(("cat", "dog"), scores, reject=False), images)
    assert willing.rejection is None
    assert willing.top1 == alone.top1


@pytest.mark.parametrize("name", ["aquarium_fish", "Aquarium Fish", "aquarium-fish"])
def test_a_class_is_known_however_it_is_written(name: str) -> None:
    images = shown([0, 1], [0, 1], (name, "dog"))
    assert evaluate(Told(("aquarium fish", "dog"), [[1.0, 0], [0, 1.0]]), images).count == 2


def test_signs_that_tell_classes_apart_count() -> None:
    told = Told(("C", "C++"), [[1.0, 0], [0, 1.0]])
    found = evaluate(told, shown([0, 1], [0, 1], ("C", "C++")))
    assert (found.top1, found.confusion) == (1.0, ((1, 0), (0, 1)))


@pytest.mark.parametrize(
    ("names", "labels", "aliases", "expected"),
    [
        (["C++", "C"], ["C", "C++"], {}, {"C": 0, "C++": 1}),
        (["c++", "c"], ["C", "C++"], {}, {"c": 0, "c++": 1}),
        (["C", "C++", "C#"], ["C"], {}, {"C": 0}),
        (["C_"], ["C", "C++"], {}, {"C_": 0}),
        (["C", "5", "A"], ["C++", "+5", "A-"], {}, {}),
        (["a", "A"], ["A", "a"], {}, {"a": 1, "A": 0}),
        (["A", "a"], ["a"], {}, {"a": 0}),
        (["बेल"], ["बाल"], {}, {}),
        (["Aquarium-Fish", "dog"], ["aquarium fish"], {}, {"Aquarium-Fish": 0}),
        (["+", "-"], ["-", "+"], {}, {"+": 1, "-": 0}),
        # exact aliases before slugs, own names before the aliases of others
        (["C", "C++"], ["C", "plus"], {"plus": ["C++"]}, {"C": 0, "C++": 1}),
        (["hund", "cat"], ["cat", "dog"], {"dog": ["Hund", "cat"]}, {"hund": 1, "cat": 0}),
        (["cat"], ["tabby", "tiger"], {"tabby": ["cat"], "tiger": ["cat"]}, {}),
    ],
)
def test_which_class_a_name_means(
    names: list[str], labels: list[str], aliases: dict[str, list[str]], expected: dict[str, int]
) -> None:
    assert rows_of(names, labels, aliases) == expected


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (
            ["Aquarium-Fish", "aquarium_fish"],
            ["aquarium fish"],
            "'aquarium fish' is ambiguous in the data set: it may be 'Aquarium-Fish', 'aquarium_fish'. "
            "Write the name exactly as one of these.",
        ),
        (
            ["sea-lion"],
            ["sea lion", "sea_lion"],
            "'sea-lion' is ambiguous in the classifier: it may be 'sea lion', 'sea_lion'. "
            "Write the name exactly as one of these.",
        ),
    ],
)
def test_names_that_fit_equally_well_are_refused(names: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(AmbiguousClassError) as caught:
        rows_of(names, labels)
    assert str(caught.value) == message


def test_no_image_of_any_class() -> None:
    with pytest.raises(DataError) as caught:
        evaluate(Told(("whale",), [[1.0]]), shown([0], [0]))
    assert str(caught.value) == (
        "'pets' has no image of the classifier's classes (whale). The data set's classes are: cat, dog, bird."
    )


def test_a_class_without_images_or_answers_has_no_figures() -> None:
    result = evaluate(Told(LABELS, SURE), shown([0], [0]))
    assert (result.per_class["dog"].recall, result.per_class["dog"].precision) == (None, None)


def test_top5_counts_who_is_ahead() -> None:
    labels = tuple("abcdef")
    scores = [[6.0, 5, 4, 3, 2, 1], [1.0, 2, 3, 4, 5, 6]]
    result = evaluate(Told(labels, scores), shown([0, 1, 1], [5, 0, 1], labels))
    assert (result.top1, result.top5) == (0.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("logit", "right", "expected"),
    [(0.0, 1, 0.0), (100.0, 2, 0.0), (100.0, 1, 0.5), (float(np.log(3)), 2, 0.25)],
)
def test_calibration_error(logit: float, right: int, expected: float) -> None:
    """Two images, one answer of known confidence σ(logit), `right` of them right."""
    told = Told(("cat", "dog"), [[logit, 0.0]])
    result = evaluate(told, shown([0, 0], [0, 0 if right == 2 else 1], ("cat", "dog")))
    assert result.ece == pytest.approx(expected, abs=1e-6)


def test_json() -> None:
    document = evaluate(Told(LABELS, SURE), shown([0, 1], [0, 0])).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert {"top1", "top5", "count", "per_class", "left_out"} <= set(document)
    assert document["per_class"]["cat"] == {
        "count": 2,
        "recall": 0.5,
        "precision": 1.0,
        "f1": pytest.approx(2 / 3),
    }


def answered(targets: list[int], answers: list[int], labels: tuple[str, ...] = LABELS) -> Evaluation:
    return evaluate(Told(labels, np.eye(len(labels)).tolist()), shown(answers, targets, labels))


@pytest.mark.parametrize(
    ("before", "after", "better", "worse"),
    [
        # Every second of 20 cats becomes a dog: that spoils cat's recall and dog's precision.
        ([0] * 20 + [1] * 20, [0, 1] * 10 + [1] * 20, (), ("cat", "dog")),
        ([0, 1] * 10 + [1] * 20, [0] * 20 + [1] * 20, ("cat", "dog"), ()),
        # Two images more or less say nothing.
        ([0] * 20 + [1] * 20, [1] * 2 + [0] * 18 + [1] * 20, (), ()),
        # Recall was given for precision: eight cats lost, eight dogs no longer called cats.
        ([0] * 20 + [0] * 8 + [1] * 12, [1] * 8 + [0] * 12 + [1] * 20, (), ()),
    ],
)
def test_a_comparison_calls_classes_better_or_worse_beyond_noise(
    before: list[int], after: list[int], better: tuple[str, ...], worse: tuple[str, ...]
) -> None:
    targets = [0] * 20 + [1] * 20
    change = compare(answered(targets, before), answered(targets, after))
    assert (change.better, change.worse) == (better, worse)
    assert set(change.f1) == set(change.recall) == set(change.noise) == {"cat", "dog"}


def yes_or_no(targets: list[int], answers: list[int], size: float = 3.0) -> Evaluation:
    """Of a classifier that knows cats only; answer 0 is yes."""
    return evaluate(Told(("cat",), [[size], [-size]]), shown(answers, targets))


def test_a_single_class_says_yes_or_no_to_all_images() -> None:
    found = yes_or_no([0, 0, 0, 0, 1, 2, 1, 2], [0, 0, 0, 1, 0, 1, 1, 1])
    assert found.yes_no == YesNo(recall=0.75, false_yes=0.25, others=4)
    assert (found.top1, found.count, found.left_out) == (0.75, 8, 0)
    assert found.confusion == ((3, 1), (1, 3))
    assert found.per_class == {"cat": ClassScore(count=4, recall=0.75, precision=0.75)}
    assert found.ece == pytest.approx(1 / (1 + np.exp(-3.0)) - 0.75)
    assert json.loads(json.dumps(found.to_dict()))["yes_no"] == {
        "recall": 0.75,
        "false_yes": 0.25,
        "others": 4,
    }
    # Nine times as many others change nothing but precision.
    many = yes_or_no([0] * 4 + [1] * 36, [0, 0, 0, 1] + [0] * 9 + [1] * 27)
    assert (many.top1, many.ece) == (pytest.approx(found.top1), pytest.approx(found.ece))
    assert many.per_class["cat"].precision == pytest.approx(3 / 12)


def test_a_single_class_without_images_of_others() -> None:
    found = yes_or_no([0, 0], [0, 1])
    assert found.yes_no == YesNo(recall=0.5, false_yes=None, others=0)
    assert (found.top1, found.per_class["cat"].precision) == (0.5, 1.0)


def test_refusals_of_a_single_class_are_counted() -> None:
    wary = Wary(("cat",), [[3.0], [1.0]], reject=True)
    assert evaluate(wary, shown([0, 1, 0, 1], [0, 0, 1, 2])).rejection == Rejection(
        accepted=0.5, false_accept=0.5, strangers=2
    )


def test_yes_and_no_are_compared_by_balanced_accuracy() -> None:
    targets = [0] * 20 + [1] * 60
    right = [0] * 20 + [1] * 60
    change = compare(yes_or_no(targets, right), yes_or_no(targets, [0, 1] * 10 + [1] * 60))
    assert (change.top1, change.worse) == (-0.25, ("cat",))
    assert 0.1 < change.top1_noise < 0.25
    # Ten cats are half of all cats, ten others a sixth of the others.
    other = compare(yes_or_no(targets, right), yes_or_no(targets, [0] * 20 + [0] * 10 + [1] * 50))
    assert other.top1 == pytest.approx(-1 / 12)
    assert other.top1_noise < change.top1_noise


def test_a_comparison_shows_each_change() -> None:
    targets = [0] * 20 + [1] * 20
    change = compare(answered(targets, targets), answered(targets, [0, 1] * 10 + [1] * 20))
    assert (change.top1, change.top5) == (-0.25, None)
    assert change.recall == {"cat": -0.5, "dog": 0.0}
    assert change.precision == {"cat": 0.0, "dog": pytest.approx(20 / 30 - 1)}
    assert change.f1 == {"cat": pytest.approx(2 / 3 - 1), "dog": pytest.approx(0.8 - 1)}
    assert 0.15 < change.top1_noise < 0.25
    document = change.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert {"top1", "top5", "recall", "worse", "better", "precision", "f1", "noise"} <= set(document)
    same = compare(answered(targets, targets), answered(targets, targets))
    assert (same.worse, same.better, same.top1_noise, same.noise["cat"]) == ((), (), 0.0, 0.0)
    with pytest.raises(DataError) as caught:
        compare(answered([0], [0]), answered([0, 1], [0, 1]))
    assert str(caught.value) == "The evaluations are of different images. Give both the same data."
    with pytest.raises(DataError) as caught:
        compare(answered(targets, targets), dataclasses.replace(answered(targets, targets), predictions=None))
    assert str(caught.value) == (
        "The evaluation holds no predictions to compare. Compare what evaluate() returned."
    )


def test_chance_is_rarely_called_better_or_worse() -> None:
    """Two classifiers that err alike, on 300 images a time."""
    dice = np.random.default_rng(0)
    called = 0
    for _ in range(100):
        targets = dice.integers(0, 3, 300)
        shared = np.where(dice.random(300) < 0.15, dice.integers(0, 3, 300), targets)
        pair = [np.where(dice.random(300) < 0.1, dice.integers(0, 3, 300), shared) for _ in range(2)]
        before, after = (answered(targets.tolist(), answers.tolist()) for answers in pair)
        change = compare(before, after)
        called += len(change.better) + len(change.worse)
    assert 0 < called <= 15


def test_a_restricted_parent_keeps_its_logits() -> None:
    spec = InputSpec(channels=1, height=2, width=2, mean=(0.5,), std=(0.5,))
    linear = nn.Linear(4, 3)
    parent = RestrictedParent(nn.Sequential(nn.Flatten(), linear), spec, LABELS, ("bird", "cat"))
    images = torch.randint(0, 256, (5, 1, 2, 2), dtype=torch.uint8)
    with torch.no_grad():
        expected = linear((images.flatten(1) / 255 - 0.5) / 0.5)[:, [2, 0]]
        torch.testing.assert_close(parent(images), expected)
    assert parent.labels == ("bird", "cat")
    with pytest.raises(DataError) as caught:
        RestrictedParent(linear, spec, LABELS, ("whale",))
    assert str(caught.value) == "The parent has no class 'whale'. It has: cat, dog, bird."
