"""Text files and JSON documents as bytes."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

from modhub.errors import ManifestError

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks, longer ones before those that they begin with."""
_CONFLICT = re.compile(r"^(?:<{7} |={7}$|>{7} )", re.MULTILINE)


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for `value`: sorted keys, no spaces, UTF-8. For digests."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def pretty_json(value: Any) -> bytes:
    """What is written for people and machines alike: insertion order, two spaces, a final newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(content: bytes, place: str, *, limit: int = 64 << 20) -> Any:
    """JSON from outside: bounded in size and depth. Raises `ManifestError` naming `place`."""
    if len(content) > limit:
        raise ManifestError(f"{place} is {len(content):,} bytes long; at most {limit:,} are read.")
    try:
        return json.loads(content)
    except RecursionError:
        raise ManifestError(f"{place} is nested too deeply to be read.") from None
    except (ValueError, UnicodeDecodeError) as error:
        check_no_conflict(content.decode("utf-8", "replace"), place)
        raise ManifestError(
            f"{place} is not valid JSON ({error}).", hint="Fetch or build it again; it may be truncated."
        ) from None


def text_of(content: bytes) -> str:
    """Text that somebody wrote: UTF-8, or what its byte order mark says, which is no part of the text.

    Raises `UnicodeDecodeError`.
    """
    mark, encoding = encoding_of(content)
    return content[len(mark) :].decode(encoding)


def encoding_of(content: bytes) -> tuple[bytes, str]:
    """The byte order mark that `content` begins with, if any, and the encoding."""
    return next(((mark, name) for mark, name in _BOMS.items() if content.startswith(mark)), (b"", "utf-8"))


def read_text(path: Path) -> str:
    """`text_of` a file, its lines ended by \\n. Raises `OSError` and `UnicodeDecodeError`."""
    return text_of(path.read_bytes()).replace("\r\n", "\n")


def check_no_conflict(text: str, place: str) -> None:
    """Raises `ManifestError` where `text` holds the marks of a merge conflict."""
    if (marks := _CONFLICT.findall(text)) and len({mark[0] for mark in marks}) > 1:
        line = text.count("\n", 0, _CONFLICT.search(text).start()) + 1  # type: ignore[union-attr]
        raise ManifestError(f"{place} has the marks of a merge conflict, the first in line {line}.")
