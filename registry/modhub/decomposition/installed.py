"""Methods of installed packages: entry points of the group `modhub.methods`, each the class of one.

A package whose method does not load, or takes a name that is taken, is no hindrance to the others: it is
named where methods are listed, and where its method is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from modhub.decomposition.method import Method
from modhub.decomposition.methods import METHODS
from modhub.errors import DataError, MethodError

GROUP = "modhub.methods"


def installed_methods() -> Iterator[tuple[EntryPoint, type[Method] | MethodError]]:
    """Every entry point of the group by name, with its class, or with what is wrong."""
    points = _points()
    for point in points:
        try:
            yield point, _loaded(point, points)
        except MethodError as error:
            yield point, error


def installed_method(name: str) -> type[Method]:
    """The class of a method that a package brings. Raises `DataError` where none has the name, and
    `MethodError` for one that does not load."""
    points = _points()
    named = [point for point in points if point.name == name]
    if not named:
        names = sorted({*METHODS, *(point.name for point in points)})
        raise DataError(
            f"There is no method '{name}'.",
            hint=f"There are: {', '.join(names)}; one of your own is FILE.py:CLASS.",
        )
    return _loaded(named[0], points)


def package_of(point: EntryPoint) -> str:
    """Name and version of the package that brings it."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, package_of(point)))


def _loaded(point: EntryPoint, points: list[EntryPoint]) -> type[Method]:
    """Raises `MethodError` that names the package."""
    said = f"The method '{point.name}' of the package '{package_of(point)}'"
    if point.name in METHODS:
        raise MethodError(f"{said} has the name of modhub's own.", hint="Ask its authors to rename it.")
    if others := [other for other in points if other.name == point.name and other is not point]:
        raise MethodError(
            f"{said} has the name of one of the package '{package_of(others[0])}'.",
            hint="Uninstall one of them.",
        )
    try:
        kind: object = point.load()
    except (Exception, SystemExit) as error:
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise MethodError(
            f"{said} cannot be imported: {type(error).__name__}{': ' if first else ''}{first}.",
            hint=f"Reinstall or uninstall the package; it is imported as {point.value}.",
        ) from error
    if not isinstance(kind, type) or not callable(getattr(kind, "decompose", None)):
        raise MethodError(f"{said} is no class with a decompose().", hint=_HINT)
    if getattr(kind, "name", None) != point.name:
        raise MethodError(
            f"{said} calls itself {getattr(kind, 'name', None)!r}.",
            hint="Its entry point and its attribute 'name' must be the same.",
        )
    return kind


_HINT = "What a method needs is in docs/writing-a-method.md."
