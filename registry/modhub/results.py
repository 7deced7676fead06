"""What public functions return: frozen dataclasses that become JSON with their attributes' names."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 1
_SHORT.maxtuple = _SHORT.maxlist = _SHORT.maxdict = 3
_SHORT.maxstring = _SHORT.maxother = 40


class Document:
    """Base of frozen dataclasses that JSON files and documents hold."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields in order: nested documents as objects, tuples as arrays, paths as strings."""
        return {name: plain(value) for name, value in self._fields().items()}

    def _fields(self) -> dict[str, Any]:
        assert dataclasses.is_dataclass(self)
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class Result(Document):
    """Base of what public functions return: `to_dict` is the document that `--json` prints.

    Subclasses are declared with `repr=False`: the base's repr shortens long values.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """`result["modules"]`, as when results were dictionaries: what `to_dict` has under `key`."""
        return self.to_dict()[key]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_short(value)}" for name, value in self._fields().items())
        return f"{type(self).__name__}({shown})"


def plain(value: Any) -> Any:
    """`value` as what JSON has: anything with `to_dict`, mappings, tuples, lists and paths are converted."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _short(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(item, Result) for item in value):
        return f"({len(value)} × {type(value[0]).__name__})"
    return _SHORT.repr(value)
