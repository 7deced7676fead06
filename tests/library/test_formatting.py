"""Numbers as people read them."""

from __future__ import annotations

import pytest

from modhub.formatting import count, percent, size


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (7_123_456_789, "7.1 GB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_size(number: int, shown: str) -> None:
    """A size goes over to the next unit as it is shown: nothing is 1000.0 kB."""
    assert size(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999, "999"), (999.96, "1.0 k"), (999_960, "1.0 M"), (40_800_000, "40.8 M"), (2e9, "2.0 G")],
)
def test_count(number: float, shown: str) -> None:
    assert count(number) == shown


def test_percent() -> None:
    assert [percent(share) for share in (None, 0.0, 0.98765, 1)] == ["–", "0.0 %", "98.8 %", "100.0 %"]
