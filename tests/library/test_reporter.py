"""What long work tells."""

from __future__ import annotations

import logging

import pytest

import modhub
from modhub.reporter import Lines


class _Told:
    """Lines at a time that the test sets."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.time = 0.0
        self.reporter = Lines(
            self.lines.append, lambda text: self.lines.append(f"! {text}"), lambda: self.time
        )


def test_stages_are_told_once_and_then_rarely() -> None:
    told = _Told()
    with told.reporter.step("budgets", 3):
        for number in range(3):
            with told.reporter.step("distil", 5):
                for _ in range(5):
                    told.time += 4
                    told.reporter.advance()
            told.reporter.note(f"found {number}")
            told.reporter.advance()
    assert told.lines == [
        *("budgets …", "  distil …", "budgets 0/3 › distil 4/5", "found 0"),
        *("budgets 1/3 › distil 4/5", "found 1", "budgets 2/3 › distil 4/5", "found 2"),
    ]


def test_many_titles_are_not_all_told() -> None:
    told = _Told()
    with told.reporter.step("fetch", 1000):
        for number in range(1000):
            with told.reporter.step(f"file {number}"):
                told.time += 0.1
            told.reporter.advance()
    assert 12 < len(told.lines) < 20
    assert told.lines[-1].startswith("fetch ")
    assert "%" in told.lines[-1]


def test_every_outermost_step_is_told() -> None:
    told = _Told()
    for _ in range(2):
        for _ in told.reporter.track("ab", "resolve"):
            pass
    told.reporter.warn("old")
    assert told.lines == ["resolve …", "resolve …", "! old"]


def test_progress_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    mine = logging.getLogger("mine")
    caplog.set_level(logging.INFO, "mine")
    for reporter, name in ((modhub.progress(mine), "mine"), (modhub.progress(), "modhub")):
        caplog.clear()
        with reporter.step("resolve"):
            reporter.warn("old")
        assert caplog.record_tuples == [(name, logging.INFO, "resolve …"), (name, logging.WARNING, "old")]
    assert isinstance(reporter, modhub.Reporter)
