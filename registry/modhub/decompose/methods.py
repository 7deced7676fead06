"""The ways to decompose that there are, and the one place where they are looked up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from modhub.decompose.base import Method
from modhub.decompose.concern import Concern
from modhub.decompose.relevance import Relevance
from modhub.errors import DataError
from modhub.nets.sources import callable_of, parsed_arguments

__all__ = ["METHODS", "method_of"]

METHODS: dict[str, type[Method]] = {"relevance": Relevance, "concern": Concern}


def method_of(name: str | Method, options: Mapping[str, str] | None = None) -> Method:
    """A method by its name or as FILE.py:CLASS, made with `options` as text; one that was made stays.

    Raises `DataError` for a name or an option that there is not, and `ParentError` for a file without it.
    """
    if not isinstance(name, str):
        return name
    path, colon, called = name.rpartition(":")
    own = bool(colon) and path.endswith(".py")
    if not own and name not in METHODS:
        raise DataError(
            f"There is no method '{name}'.",
            hint=f"There are: {', '.join(sorted(METHODS))}; one of your own is FILE.py:CLASS.",
        )
    kind = callable_of(Path(path), called, "A method is FILE.py:CLASS.") if own else METHODS[name]
    options, known = options or {}, inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise DataError(
                f"The method '{name}' has no option '{key}'.",
                hint=f"It has: {', '.join(known) or 'none'}.",
            )
    method: Method = kind(**parsed_arguments(options))
    if own and not (callable(getattr(method, "decompose", None)) and isinstance(method.name, str)):
        raise DataError(
            f"'{called}' in '{path}' is no method.", hint="What it needs is in docs/writing-a-method.md."
        )
    return method
