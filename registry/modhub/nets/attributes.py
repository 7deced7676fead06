"""What an operator's attribute may be: the type, the range, the choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Attributes: TypeAlias = Mapping[str, Any]
"""Checked attributes of one node: int, float, bool, str, None or a tuple of ints."""


class BadAttributeError(Exception):
    """An attribute that its operator does not allow; the reader of the graph adds the place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """One attribute: its kind, and for numbers the inclusive range of each of them.

    `length` is the exact number of items of an `ints` attribute; None allows 1 to 16.
    """

    kind: Literal["int", "float", "bool", "ints", "text"]
    low: float = 0
    high: float = 1 << 24
    length: int | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False

    def read(self, value: Any) -> Any:
        """The value in its canonical type. Raises `BadAttributeError`."""
        if value is None and self.optional:
            return None
        if self.kind == "ints":
            if not isinstance(value, list | tuple):
                raise BadAttributeError("should be a list of integers")
            if len(value) != self.length if self.length is not None else not 1 <= len(value) <= 16:
                raise BadAttributeError(f"should have {self.length or '1 to 16'} items, not {len(value)}")
            return tuple(self._number(item, int) for item in value)
        if self.kind == "int":
            return self._number(value, int)
        if self.kind == "float":
            return self._number(value, float)
        if self.kind == "bool":
            if not isinstance(value, bool):
                raise BadAttributeError("should be true or false")
            return value
        if value not in self.choices:
            raise BadAttributeError(f"should be one of {', '.join(self.choices)}")
        return value

    def _number(self, value: Any, kind: type) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise BadAttributeError("should be an integer" if kind is int else "should be a number")
        # An integer beyond every float cannot be asked whether it is finite, but compared.
        if not self.low <= value <= self.high or not math.isfinite(value):
            shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}…"
            raise BadAttributeError(f"is {shown}; it should be {self.low:g} to {self.high:g}")
        return kind(value)


def check_attributes(spec: Mapping[str, Attribute], attributes: Mapping[str, Any]) -> Attributes:
    """`attributes` in canonical types and the order of `spec`. Raises `BadAttributeError`."""
    for name in attributes:
        if name not in spec:
            raise BadAttributeError(f"has no attribute '{name}'")
    checked = {}
    for name, attribute in spec.items():
        if name not in attributes and not attribute.optional:
            raise BadAttributeError(f"lacks the attribute '{name}'")
        try:
            checked[name] = attribute.read(attributes.get(name))
        except BadAttributeError as error:
            raise BadAttributeError(f"has an attribute '{name}' that {error}") from None
    return checked
