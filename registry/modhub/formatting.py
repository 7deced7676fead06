"""Numbers as people read them: the same on the command line, on cards and on a hub's pages."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes: 12.3 kB."""
    return _scaled(count, (" B", " kB", " MB", " GB"))


def count(number: float) -> str:
    """A large number: 40.8 M."""
    return _scaled(number, ("", " k", " M", " G"))


def percent(share: float | None) -> str:
    """A share, or a dash where nobody knows it."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    unit, *larger = units
    # As it is shown: 999.97 kB are 1.0 MB.
    while larger and round(value, 1) >= 1000:
        value, (unit, *larger) = value / 1000, larger
    return f"{value:.0f}{unit}" if unit == units[0] else f"{value:.1f}{unit}"
