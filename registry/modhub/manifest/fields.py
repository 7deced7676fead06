"""Typed reading of parsed JSON or TOML: every mistake is named with its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from modhub.errors import ManifestError, RefError, SchemaVersionError
from modhub.labels import slug_of
from modhub.refs import is_sha256, is_text, misleading, repeated

Value = TypeVar("Value")

AGAIN = "Pull or decompose it again."
"""What helps against a damaged artifact."""

_KINDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Fields:
    """One object of a document; `place` says where it stands, for instance `modhub.json, modules[3]`.

    Unknown keys are ignored: a later modhub may add some without a new schema version. Strings are one line
    without control characters and lone surrogates, since they end up on terminals and in file names.

    What to do about a mistake is for the reader of the whole file to say, with `modhub.errors.hinting`.
    """

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ManifestError(f"{place} should be an object, not {_named(value)}.")
        self.value: Mapping[str, Any] = value
        self.place = place

    def check_version(self, newest: int) -> None:
        """Raises `SchemaVersionError` when the document is newer than this program."""
        version = self.integer("schema_version", minimum=1)
        if version > newest:
            raise SchemaVersionError(
                f"{self.place} has schema version {version}; this modhub reads up to {newest}.",
                hint="Upgrade it with: pip install --upgrade modhub",
            )

    def string(self, key: str, *, limit: int = 10_000, lines: bool = False) -> str:
        """`lines` lets any character in, for what the one who wrote it reads, such as a commit's message."""
        text: str = self._get(key, str)
        if len(text) > limit:
            raise ManifestError(
                f"'{key}' in {self.place} has {len(text):,} characters; {limit:,} are allowed."
            )
        return text if lines else _text(text, f"'{key}' in {self.place}")

    def label(self, key: str) -> str:
        """1 to 200 characters."""
        return _label(self.string(key, limit=200), f"'{key}' in {self.place}")

    def labels(self, key: str) -> tuple[str, ...]:
        """At least one label, none twice."""
        texts = self.strings(key)
        for position, text in enumerate(texts):
            _label(text, f"'{key}[{position}]' in {self.place}")
        if twice := repeated(texts):
            raise ManifestError(f"'{key}' in {self.place} lists '{twice[0]}' twice.")
        if not texts:
            raise ManifestError(f"'{key}' in {self.place} lists 0; it should be 1 or more.")
        return texts

    def slug(self, key: str) -> str:
        """What `modhub.refs.slug_of` makes of a label: it becomes a folder's name."""
        text = self.label(key)
        try:
            fits = slug_of(text) == text
        except RefError:
            fits = False
        if not fits:
            raise ManifestError(f"'{key}' in {self.place} is '{text}', which is not a path component.")
        return text

    def optional_string(self, key: str) -> str | None:
        return None if self.value.get(key) is None else self.string(key)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        text = self.string(key)
        if text not in allowed:
            raise ManifestError(
                f"'{key}' in {self.place} is '{text}'; it should be one of {', '.join(allowed)}."
            )
        return text

    def digest(self, key: str) -> str:
        text = self.string(key)
        if not is_sha256(text):
            raise ManifestError(f"'{key}' in {self.place} is not a sha256 digest (64 hex digits).")
        return text

    def boolean(self, key: str) -> bool:
        flag: bool = self._get(key, bool)
        return flag

    def integer(self, key: str, *, minimum: int = 0, maximum: int = 2**53) -> int:
        number: int = self._get(key, int)
        if not minimum <= number <= maximum:
            raise ManifestError(
                f"'{key}' in {self.place} is {_named(number)}; it should be {minimum} to {maximum}."
            )
        return number

    def extent(self, key: str, *, maximum: int) -> tuple[int, int]:
        """[height, width] in pixels."""
        items = self._get(key, list)
        if len(items) != 2 or not all(type(item) is int and 1 <= item <= maximum for item in items):
            raise ManifestError(f"'{key}' in {self.place} should be two integers from 1 to {maximum}.")
        return items[0], items[1]

    def number(self, key: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        place = f"'{key}' in {self.place}"
        return _within(_finite(self._get(key, float), place), minimum, maximum, place)

    def strings(self, key: str) -> tuple[str, ...]:
        items = self._get(key, list)
        for position, item in enumerate(items):
            if not isinstance(item, str):
                raise ManifestError(
                    f"'{key}[{position}]' in {self.place} should be a string, not {_named(item)}."
                )
            _text(item, f"'{key}[{position}]' in {self.place}")
        return tuple(items)

    def numbers(self, key: str) -> tuple[float, ...]:
        items = self._get(key, list)
        return tuple(
            _finite(item, f"'{key}[{position}]' in {self.place}") for position, item in enumerate(items)
        )

    def number_map(
        self, key: str, *, minimum: float = -math.inf, maximum: float = math.inf
    ) -> dict[str, float]:
        numbers = {}
        for name, item in self._items(key).items():
            place = f"'{key}.{name}' in {self.place}"
            numbers[name] = _within(_finite(item, place), minimum, maximum, place)
        return numbers

    def scalar_map(self, key: str) -> dict[str, str | int | float | bool | None]:
        items = self._items(key)
        for name, item in items.items():
            if not isinstance(item, str | int | float | bool | None):
                raise ManifestError(
                    f"'{key}.{name}' in {self.place} should be a plain value, not {_named(item)}."
                )
            if isinstance(item, str):
                _text(item, f"'{key}.{name}' in {self.place}")
        return items

    def string_map(self, key: str) -> dict[str, str]:
        items = self._items(key)
        for name, item in items.items():
            if not isinstance(item, str):
                raise ManifestError(f"'{key}.{name}' in {self.place} should be a string, not {_named(item)}.")
            _text(item, f"'{key}.{name}' in {self.place}")
        return items

    def child(self, key: str) -> Fields:
        return Fields(self._get(key, dict), f"'{key}' in {self.place}")

    def optional(self, key: str, read: Callable[[Fields], Value]) -> Value | None:
        """What `read` makes of the object under `key`; None where there is none."""
        return None if self.value.get(key) is None else read(self.child(key))

    def children(self, key: str, *, minimum: int = 0) -> Iterator[Fields]:
        items = self._get(key, list)
        if len(items) < minimum:
            raise ManifestError(
                f"'{key}' in {self.place} lists {len(items)}; it should be {minimum} or more."
            )
        for position, item in enumerate(items):
            yield Fields(item, f"'{key}[{position}]' in {self.place}")

    def _items(self, key: str) -> dict[str, Any]:
        items: dict[str, Any] = dict(self._get(key, dict))
        for name in items:
            _text(name, f"A name in '{key}' in {self.place}")
        return items

    def _get(self, key: str, kind: type) -> Any:
        if key not in self.value:
            raise ManifestError(f"{self.place} has no '{key}'.")
        value = self.value[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return value
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ManifestError(f"'{key}' in {self.place} should be {_KINDS[kind]}, not {_named(value)}.")
        return value


def _finite(value: Any, place: str) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        # JSON has integers of any length; those beyond a float are no number here.
        with suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise ManifestError(f"{place} should be a finite number, not {_named(value)}.")
    return number


def _within(number: float, minimum: float, maximum: float, place: str) -> float:
    if not minimum <= number <= maximum:
        wanted = f"{minimum:g} or more" if maximum == math.inf else f"{minimum:g} to {maximum:g}"
        raise ManifestError(f"{place} is {number:g}; it should be {wanted}.")
    return number


def _label(text: str, place: str) -> str:
    if not 1 <= len(text) <= 200:
        raise ManifestError(f"{place} has {len(text):,} characters; a label has 1 to 200.")
    if (sign := misleading(text)) is not None:
        raise ManifestError(f"{place}, {text[:40]!a}, holds {sign}, which looks like something else.")
    return text


def _text(text: str, place: str) -> str:
    if not is_text(text):
        raise ManifestError(f"{place} holds a control character or a lone surrogate: {_named(text)}.")
    return text


def _named(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
