"""Cards, which are untrusted, as safe HTML."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

_MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
_TAGS = frozenset(
    [
        "a",
        "b",
        "blockquote",
        "br",
        "code",
        "dd",
        "del",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}


@lru_cache(maxsize=256)
def card_html(text: str, files: str) -> Markup:
    """`text` in Markdown; relative images and links are resolved against the address `files`.

    Raw HTML is shown as text. Images of other hosts are replaced by their alternative text: loading them
    would track readers.
    """

    def keep(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "src"):
            return _below(files, value) if _is_relative(value) else None
        if (tag, name) == ("a", "href") and _is_relative(value):
            return value if value.startswith("#") else _below(files, value)
        return value

    cleaned = nh3.clean(
        _MARKDOWN.render(text),
        tags=set(_TAGS),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=keep,
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer",
    )
    return Markup(_headings_below(re.sub("<img [^>]*>", _image_or_text, cleaned)))


def _image_or_text(image: re.Match[str]) -> str:
    """An image, or the alternative text of one that was removed."""
    text = re.search(' alt="([^"]*)"', image[0])
    return image[0] if ' src="' in image[0] else text[1] if text else ""


def _headings_below(cleaned: str) -> str:
    """The card's headings on levels below the page's, none skipping a level."""
    above: list[int] = []

    def level(tag: re.Match[str]) -> str:
        if not tag[1]:
            original = int(tag[2])
            while above and above[-1] >= original:
                above.pop()
            above.append(original)
        return f"<{tag[1]}h{len(above) + 1}>"

    return re.sub("<(/?)h([1-6])>", level, cleaned)


def _is_relative(address: str) -> bool:
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc and not address.startswith(("/", "\\"))


def _below(files: str, address: str) -> str:
    path = urlsplit(address).path
    if ".." in path.split("/"):
        return "#"
    return f"{files}/{quote(path.removeprefix('./'), safe='/%')}"
