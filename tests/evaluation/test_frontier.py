"""A row of budgets, measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import modhub
from modhub.api.frontier_page import frontier_page
from modhub.composition import Budget, compose, parts_of
from modhub.errors import BudgetError, StorageError
from modhub.evaluation import frontier as frontiers
from modhub.evaluation.evaluate import evaluate
from modhub.evaluation.frontier import NOISY_NOTE, Frontier
from modhub.evaluation.timing import Ratio, side_by_side, time_ratio
from modhub.reporter import Lines
from tests.support.digit_parents import digit_modules, digits
from tests.support.quick import QUICK

Run = Callable[[], object]
TINY = Path(__file__).parents[1] / "golden" / "0.1.0" / "modules" / "relevance"
frontier = partial(frontiers.frontier, seconds=0.02, settings=QUICK)


@pytest.fixture(scope="module")
def timed() -> list[float]:
    """For how many seconds each latency was asked to be measured."""
    return []


@pytest.fixture(scope="module")
def measured(timed: list[float]) -> Frontier:
    def noted(
        first: Callable[[], object], second: Callable[[], object], seconds: float, most: float
    ) -> Ratio:
        timed.append(seconds)
        return time_ratio(first, second, seconds, most=most)

    parts = parts_of(digit_modules(), ["0", "1", "3"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontiers, "time_ratio", noted)
        return frontier(parts, budgets=(0.5, 0.8), data=digits("012345", "test"))


def test_each_latency_takes_the_seconds_that_were_asked_for(measured: Frontier, timed: list[float]) -> None:
    assert timed == [0.02] * sum(len(point.latency) for point in measured.points)


def test_points_fall_and_meet_their_budgets(measured: Frontier) -> None:
    assert [point.budget for point in measured.points] == [0.8, 0.5]
    for point in measured.points:
        assert 0 < point.flops <= point.budget
        assert 0 < point.params < 1
        assert 0 < point.time < 1
        assert set(point.latency) == {1, 128}
        assert all(share > 0 for share in point.latency.values())
        assert set(point.to_dict()["latency_spread"]) == {1, 128}
    assert measured.smallest is None


def test_a_trunk_without_weights_has_a_frontier() -> None:
    torch.manual_seed(0)
    images = digits("012", "test")
    modules = modhub.decompose(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images)
    (point,) = frontier(parts_of(modules), budgets=(0.5,), data=images, control=False).points
    assert (point.flops, point.params) == (0, 0)
    assert point.agreement == 1


def test_what_is_suggested_loses_at_most_a_point(measured: Frontier) -> None:
    wide, slim = measured.points
    for accuracies, expected in (((0.95, 0.945), slim), ((0.95, 0.9), wide), ((0.9, 0.95), slim)):
        points = tuple(
            replace(point, top1=top1) for point, top1 in zip(measured.points, accuracies, strict=True)
        )
        assert replace(measured, points=points).suggested.budget == expected.budget
    shares = zip((wide, slim), (0.99, 0.8), strict=True)
    untold = tuple(replace(point, top1=None, agreement=share) for point, share in shares)
    assert replace(measured, points=untold).suggested.budget == wide.budget


def test_accuracies_are_those_of_evaluate(measured: Frontier) -> None:
    """A point says what somebody who composes with that budget will measure; other classes are left out."""
    parts, test = parts_of(digit_modules(), ["0", "1", "3"]), digits("012345", "test")
    whole = evaluate(compose(parts, budget=Budget(flops=1.0)), test)
    assert (measured.restricted_top1, measured.images) == (whole.top1, whole.count)
    slim = evaluate(compose(parts, budget=Budget(flops=0.5), settings=QUICK), test)
    twin = evaluate(compose(parts, budget=Budget(flops=0.5), control=0, settings=QUICK), test)
    last = measured.points[-1]
    assert (last.top1, last.random_top1) == (slim.top1, twin.top1)
    assert abs(last.agreement - 1) >= abs(whole.top1 - slim.top1) - 1e-9


def test_every_finished_budget_is_told(measured: Frontier) -> None:
    told: list[str] = []
    reporter = Lines(told.append, told.append)
    found = frontier(
        parts_of(digit_modules(), ["0", "1", "3"]),
        budgets=(0.8, 0.5, 0.0001),
        control=False,
        reporter=reporter,
    )
    assert [line for line in told if "=" in line] == [
        *(f"flops={point.budget:g}: {point}" for point in found.points),
        found.smallest,
    ]
    stages = ("synthesize images", "measure budgets", "refit layers", "distil", "measure latency")
    assert {
        "  " * told_at + f"{stage} …" for stage, told_at in zip(stages, (0, 0, 2, 2, 1), strict=True)
    } <= set(told)
    assert str(measured.points[0]).startswith(f"{100 * measured.points[0].flops:.1f} % of the multiply-adds")


def test_without_images_only_agreement_is_told() -> None:
    found = frontier(parts_of(digit_modules(), ["0", "1"]), budgets=(1.0, 0.6))
    assert found.restricted_top1 is None
    assert [point.top1 for point in found.points] == [None, None]
    assert found.points[0].agreement == 1.0, "the whole network agrees with itself"
    assert 0.5 < found.points[1].agreement <= 1
    assert found.images == QUICK.synthetic_images
    assert "no accuracy without labelled ones" in frontier_page(found)


def test_one_class_alone_is_judged_by_its_balanced_accuracy() -> None:
    images = digits("0123", "test")
    found = frontier(parts_of(digit_modules(), ["0"]), budgets=(1.0, 0.4), data=images)
    whole, slim = found.points
    assert found.images == len(images)
    assert found.restricted_top1 == whole.top1
    assert whole.agreement == 1.0
    assert slim.top1 is not None
    assert found.restricted_top1 is not None
    assert 0.5 < slim.top1 <= found.restricted_top1 + 0.05
    assert slim.random_top1 is not None


def test_what_cannot_be_met_is_said() -> None:
    parts = parts_of(digit_modules(), ["0", "1"])
    found = frontier(parts, budgets=(0.9, 0.0001), data=digits("01", "test"), control=False)
    assert [point.budget for point in found.points] == [0.9]
    assert found.points[0].random_top1 is None
    assert found.smallest is not None
    assert found.smallest.startswith("No choice of channels meets flops=0.0001")
    with pytest.raises(BudgetError):
        frontier(parts, budgets=(0.0001,))


def test_page_and_json_appear_together(tmp_path: Path) -> None:
    target = tmp_path / "trade"
    measured = modhub.frontier_to(
        target,
        TINY,
        budgets=(0.8,),
        seconds=0.02,
        data=digits("012", "test"),
        tune=digits("012").sample(7, 0),
    )
    assert json.loads((target / "frontier.json").read_text()) == json.loads(json.dumps(measured.to_dict()))
    page = (target / "frontier.html").read_text()
    assert page.count("<polyline") == 3, "composed, random channels, restricted logits"
    assert "http" not in page.replace("http://www.w3.org", "")
    with pytest.raises(StorageError):
        modhub.frontier_to(target, tmp_path / "nothing")


def test_noisy_times_are_marked(measured: Frontier) -> None:
    calm, loud = (
        replace(
            measured,
            points=tuple(
                replace(point, latency={1: 0.5}, latency_spread={1: spread}) for point in measured.points
            ),
        )
        for spread in (0.04, 0.2)
    )
    assert [point.shown_latency(1) for point in calm.points] == ["0.50", "0.50"]
    assert [point.shown_latency(1) for point in loud.points] == ["0.50 ± 0.20", "0.50 ± 0.20"]
    assert NOISY_NOTE not in frontier_page(calm)
    assert NOISY_NOTE in frontier_page(loud)


@pytest.mark.parametrize(
    ("rounds", "value", "spread"),
    [
        ((0.5, 0.6, 0.52), 0.52, 0.05),
        ((0.5, 0.5, 3.0, 0.5, 0.1), 0.5, 0.0),
        ((0.3, 1.0, 0.4, 1.1, 0.9), 0.9, 0.3),
    ],
)
def test_a_ratio_of_rounds(rounds: tuple[float, ...], value: float, spread: float) -> None:
    found = Ratio.of(rounds)
    assert (found.value, found.spread) == pytest.approx((value, spread))


def test_times_are_taken_again_while_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds have three turns, after one to warm up; the clock is the test's own."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def worked(factors: list[float]) -> tuple[float, int]:
        turns: list[float] = []

        def take(seconds: float) -> None:
            nonlocal now
            now += seconds

        def ours() -> None:
            turns.append(factors[min(len(turns), len(factors) - 1)])
            take(0.01 * turns[-1])

        return time_ratio(ours, lambda: take(0.01), 0.0).value, (len(turns) - 1) // 3

    assert worked([0.3, *[0.3] * 3, 1.0]) == (pytest.approx(1), 5)
    assert worked([1.0, *[1.0, 1.0, 3.0] * 9]) == (pytest.approx(1), 3)
    assert worked([1.0, *[1.0] * 3, *[2.0] * 3] * 9)[1] == 9


def test_side_by_side_takes_turns() -> None:
    turns: list[str] = []
    medians = side_by_side([lambda: turns.append("a"), lambda: turns.append("b")], 0.0, least=3)
    assert turns == ["a", "b"] * 4
    assert len(medians) == 2
