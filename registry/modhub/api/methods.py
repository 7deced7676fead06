"""Which decomposition methods there are, modhub's own and those of installed packages."""

from __future__ import annotations

from dataclasses import dataclass

from modhub import __version__
from modhub.decomposition.installed import installed_methods, package_of
from modhub.decomposition.method_options import MethodDescription, described
from modhub.decomposition.methods import METHODS
from modhub.errors import MethodError
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MethodsReport(Result):
    """The `methods`, modhub's own first, and `unusable`: a sentence for each entry point of a package that
    brings none."""

    methods: tuple[MethodDescription, ...]
    unusable: tuple[str, ...]


def methods() -> MethodsReport:
    """Every method that `decompose` takes by name, with its paper, what it needs, and its options.

    Those of installed packages (entry points of the group `modhub.methods`) are imported for it.
    """
    listed = [described(kind, f"modhub {__version__}") for kind in METHODS.values()]
    unusable = []
    for point, kind in installed_methods():
        if isinstance(kind, MethodError):
            unusable.append(kind.message)
            continue
        package = package_of(point)
        # What a class says of itself may be anything.
        try:
            listed.append(described(kind, package))
        except Exception as error:
            unusable.append(
                f"The method '{point.name}' of the package '{package}' cannot be described: "
                f"{type(error).__name__}: {error}"
            )
    return MethodsReport(methods=tuple(listed), unusable=tuple(unusable))
