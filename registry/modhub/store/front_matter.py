"""The YAML front matter of a card (README.md), and the tags made of it."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["read_front_matter", "tags_of"]

HEAD_LIMIT = 1 << 18
DEPTH_LIMIT = 20
TAG_LIMIT = 200
TAGS_LIMIT = 5000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_front_matter(card: bytes) -> dict[str, Any]:
    """The mapping between the first two `---` lines; empty when there is none or it is not valid.

    Cards are untrusted: only plain values and lists of plain values are kept.
    """
    text = card[:HEAD_LIMIT].decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}
    head, marker, _ = text[4:].partition("\n---")
    if not marker:
        return {}
    try:
        if not _is_safe(head):
            return {}
        # Either loader is a safe one.
        document = yaml.load(head, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        str(key): list(filter(_is_plain, value)) if isinstance(value, list) else value
        for key, value in document.items()
        if isinstance(value, list) or _is_plain(value)
    }


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
    return tuple(dict.fromkeys(tag for tag in tags if 0 < len(tag) <= TAG_LIMIT))[:TAGS_LIMIT]


def _is_safe(text: str) -> bool:
    """Whether it has little nesting and no aliases, so that loading it is safe.

    Building deeply nested values ends the process in the C loader; reading its events does not.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_LIMIT or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _strings(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item not in (None, "")]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)
