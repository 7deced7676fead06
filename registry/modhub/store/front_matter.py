"""The YAML front matter of a card (README.md), read into JSON values, and the tags made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from modhub.errors import ManifestError, hinting
from modhub.refs import is_text

HEAD_LIMIT = 1 << 18
DEPTH_LIMIT = 20
SIZE_LIMIT = 1 << 19
"""Of all values together, aliases written out: characters, and `NODE_SIZE` for each."""
NODE_SIZE = 8
TAG_LIMIT = 200
TAGS_LIMIT = 5000
# huggingface_hub passes a card's fields as keyword arguments beside these.
_ARGUMENTS = ("self", "ignore_metadata_errors")
_CORE = "tag:yaml.org,2002:"
# What YAML 1.1 and 1.2 both read as a number, and JSON readers keep exactly; everything else is text.
_INTEGER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]{0,14})|0x[0-9a-fA-F]{1,13})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+][0-9]{1,3})?")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TYPES: dict[str, type] = {"null": type(None), "bool": bool, "int": int, "float": float}
_CORRECT = "Correct the metadata at the top of README.md."
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@hinting(_CORRECT)
def split_card(card: str) -> tuple[str | None, str]:
    """What stands between the first two `---` lines, None without them, and the text after it.

    Raises `ManifestError` where the second is missing.
    """
    text = card.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return None, text
    head, marker, rest = text[3:].partition("\n---")
    if not marker:
        raise ManifestError("The metadata block is not closed by a '---' line.")
    return head[1:], rest.partition("\n")[2]


@hinting(_CORRECT)
def parse_front_matter(card: str) -> dict[str, Any]:
    """The front matter as a JSON object; empty when there is none.

    Cards are untrusted. Numbers are finite and exact in every JSON reader; dates, `yes` and whatever else
    YAML's core schema knows no type for stays text, as it is written. Merge keys have no meaning. Raises
    `ManifestError` for what is not YAML or no mapping, for types other than JSON's, and beyond `HEAD_LIMIT`
    characters, `DEPTH_LIMIT` levels or `SIZE_LIMIT`.
    """
    head, _ = split_card(card)
    if head is None:
        return {}
    if len(head) > HEAD_LIMIT:
        raise ManifestError(
            f"The metadata block has {len(head):,} characters; at most {HEAD_LIMIT:,} are read."
        )
    try:
        document = _Builder(head).document()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        message = " ".join(str(error).split())[:300]
        raise ManifestError(f"The metadata is not valid YAML: {message}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ManifestError("The metadata must be a mapping.")
    return document


def read_front_matter(card: bytes) -> dict[str, Any]:
    """What lists show of the front matter: plain values and lists of them; nothing where it is not valid."""
    try:
        # With the marker after the longest head.
        document = parse_front_matter(card[: 4 * HEAD_LIMIT].decode("utf-8", errors="replace"))
    except ManifestError:
        return {}
    fields = {
        key: list(filter(_is_plain, value)) if isinstance(value, list) else value
        for key, value in document.items()
        if key not in _ARGUMENTS and (isinstance(value, list) or _is_plain(value))
    }
    if not isinstance(fields.get("tags"), list | str | None):
        del fields["tags"]
    return fields


def tags_of(front_matter: dict[str, Any]) -> tuple[str, ...]:
    """Search tags: tags, library, pipeline, languages, `license:…`, `dataset:…`, …"""
    tags = [
        *_strings(front_matter.get("library_name")),
        *_strings(front_matter.get("pipeline_tag")),
        *_strings(front_matter.get("tags")),
        *_strings(front_matter.get("language")),
        *(f"dataset:{name}" for name in _strings(front_matter.get("datasets"))),
        *(f"base_model:{name}" for name in _strings(front_matter.get("base_model"))),
        *(f"license:{name}" for name in _strings(front_matter.get("license"))),
    ]
    fitting = (tag for tag in tags if 0 < len(tag) <= TAG_LIMIT and is_text(tag))
    return tuple(dict.fromkeys(fitting))[:TAGS_LIMIT]


class _Builder:
    """Builds JSON values from a parser's events.

    YAML's own constructors write aliases out and end the process on deep nesting; events do neither.
    """

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.size = 0

    def document(self) -> Any:
        value = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ValueError("it holds a second document")
                value = self.value(next(self.events), 1)
        return value

    def value(self, event: Any, depth: int) -> Any:
        if depth > DEPTH_LIMIT:
            raise ValueError(f"it is nested more than {DEPTH_LIMIT} levels deep")
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in self.anchors:
                raise ValueError(f"the alias '*{name[:50]}' stands before or inside its anchor")
            value, size = self.anchors[name]
            self.count(size)
            return value
        before = self.size
        self.count(NODE_SIZE)
        if isinstance(event, yaml.ScalarEvent):
            self.count(len(event.value))
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            value = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                value.append(self.value(item, depth + 1))
        else:
            _check_tag(event, "map")
            value = {}
            while not isinstance(key := next(self.events), yaml.MappingEndEvent):
                name = self.key(key, depth + 1)
                value[name] = self.value(next(self.events), depth + 1)
        if event.anchor:
            self.anchors[event.anchor] = value, self.size - before
        return value

    def key(self, event: Any, depth: int) -> str:
        value = self.value(event, depth)
        if isinstance(value, list | dict):
            raise ValueError("a list or mapping is used as a key")
        return event.value if isinstance(event, yaml.ScalarEvent) else str(value)

    def count(self, size: int) -> None:
        self.size += size
        if self.size > SIZE_LIMIT:
            raise ValueError("its values are too many")


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    text.encode()  # lone surrogates, which no file and no answer takes
    kind = _kind(event)
    if kind == "str" or (not kind and not event.implicit[0]):
        return text
    value = _plain(text)
    if not kind:
        return value
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES.get(kind):
        raise ValueError(f"'{text[:50]}' is no value of the type {kind[:50]}")
    return value


def _plain(text: str) -> str | int | float | bool | None:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 16 if "x" in text else 10)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _check_tag(event: Any, expected: str) -> None:
    if (kind := _kind(event)) not in ("", "str", expected):
        raise ValueError(f"a {expected} has the type {kind[:50]}")


def _kind(event: Any) -> str:
    """The type a tag asks for, empty where there is none."""
    tag: str | None = event.tag
    return "" if tag is None else "str" if tag == "!" else tag.removeprefix(_CORE)


def _strings(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item not in (None, "")]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)
