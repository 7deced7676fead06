"""The rules of `.gitignore` files (gitignore(5)), without git."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["IgnoreRules"]

LINES_LIMIT = 1000
DOUBLE_STARS_LIMIT = 2


class IgnoreRules:
    """The rules of a `.gitignore` at the top of a repository."""

    def __init__(self, text: str) -> None:
        self._rules = tuple(rule for line in text.splitlines()[:LINES_LIMIT] if (rule := _rule(line)))

    def ignores(self, path: str) -> bool:
        """Whether the file at `path` is left out. A file in an ignored folder cannot be included again."""
        parts = path.split("/")
        return any(
            self._decides("/".join(parts[:depth]), folder=depth < len(parts))
            for depth in range(1, len(parts) + 1)
        )

    def _decides(self, path: str, *, folder: bool) -> bool:
        ignored = False
        for expression, negated, folders_only in self._rules:
            if (folder or not folders_only) and expression.match(path):
                ignored = not negated
        return ignored

    @classmethod
    def of(cls, text: str) -> IgnoreRules:
        """The rules of `text`, cached."""
        return _cached(text)


@lru_cache(maxsize=64)
def _cached(text: str) -> IgnoreRules:
    return IgnoreRules(text)


def _rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    line = line.rstrip("\r\n")
    stripped = line.rstrip(" ")
    if stripped.endswith("\\") and len(stripped) < len(line):
        stripped += " "
    if not stripped or stripped.startswith("#") or len(stripped) > 1000:
        return None
    negated = stripped.startswith("!")
    pattern = stripped[1:] if negated else stripped
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/") if folders_only else pattern
    anchored = "/" in pattern
    body = _translate(pattern.removeprefix("/").split("/"))
    if not pattern or body is None:
        return None
    try:
        expression = re.compile(f"{'' if anchored else '(?:.*/)?'}{body}\\Z", re.DOTALL)
    except re.error:
        # A range such as [z-a]: git matches nothing with it.
        return None
    return expression, negated, folders_only


def _translate(parts: list[str]) -> str | None:
    if parts.count("**") > DOUBLE_STARS_LIMIT:
        return None
    text = ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            text += ".+" if last else "(?:.*/)?"
            continue
        if (piece := _part(part)) is None:
            return None
        text += piece if last else piece + "/"
    return text


def _part(part: str) -> str | None:
    """One part of a path. A star takes as little as it can and gives nothing back (an atomic group), which
    finds the same matches as backtracking would, in linear time."""
    pieces, index = [""], 0
    while index < len(part):
        sign = part[index]
        index += 1
        if sign == "*":
            pieces.append("")
        elif sign == "?":
            pieces[-1] += "[^/]"
        elif sign == "\\" and index < len(part):
            pieces[-1] += re.escape(part[index])
            index += 1
        elif sign == "[":
            end = part.find("]", index + (2 if part[index : index + 1] in ("!", "^") else 1))
            if end < 0:
                return None
            inside, index = part[index:end], end + 1
            negated = inside[0] in "!^"
            signs = re.sub(r"([\\\[^&|~])", r"\\\1", inside[1:] if negated else inside)
            pieces[-1] += f"(?!/)[{'^' if negated else ''}{signs}]"
        else:
            pieces[-1] += re.escape(sign)
    first, *middle = pieces
    if not middle:
        return first
    *middle, final = middle
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle if piece) + f"[^/]*{final}"
