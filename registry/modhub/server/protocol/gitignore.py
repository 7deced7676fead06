"""The rules of `.gitignore` files (gitignore(5)), without git."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from modhub.server.errors import HTTPError

LINES_LIMIT = 1000
STEPS = 1_000_000
"""Comparisons of a part of a path with a rule in one request: about a second."""
DOUBLE_STARS_LIMIT = 2


class IgnoreRules:
    """The rules of a `.gitignore` at the top of a repository."""

    def __init__(self, text: str) -> None:
        self._rules = tuple(rule for line in text.splitlines()[:LINES_LIMIT] if (rule := _rule(line)))

    def ignored(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that are left out. A file in an ignored folder cannot be included again.

        Raises `HTTPError` 400 where that takes more than `STEPS` comparisons.
        """
        decided: dict[tuple[str, bool], bool] = {}
        ignored: set[str] = set()
        steps = 0
        for path in paths:
            parts = path.split("/")
            for depth in range(1, len(parts) + 1):
                place = "/".join(parts[:depth]), depth < len(parts)
                if place not in decided:
                    steps += sum(depth**rule.stars for rule in self._rules)
                    if steps > STEPS:
                        raise HTTPError(
                            400,
                            f"{len(self._rules):,} rules to ignore files are too many for these paths. "
                            "Send fewer files at once, or fewer rules.",
                        )
                    decided[place] = self._decides(*place)
                if decided[place]:
                    ignored.add(path)
                    break
        return ignored

    def _decides(self, path: str, folder: bool) -> bool:
        name = path.rpartition("/")[2]
        # The last rule that matches decides.
        for rule in reversed(self._rules):
            if (folder or not rule.folders_only) and rule.expression.match(path if rule.anchored else name):
                return not rule.negated
        return False

    @classmethod
    def of(cls, text: str) -> IgnoreRules:
        """The rules of `text`, cached."""
        return _cached(text)


@lru_cache(maxsize=64)
def _cached(text: str) -> IgnoreRules:
    return IgnoreRules(text)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line. An `anchored` one is compared with the path, others with its last part.

    `stars` counts its `**`.
    """

    expression: re.Pattern[str]
    negated: bool
    folders_only: bool
    anchored: bool
    stars: int


def _rule(line: str) -> _Rule | None:
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
    parts = pattern.removeprefix("/").split("/")
    body = _translate(parts)
    if not pattern or body is None:
        return None
    try:
        expression = re.compile(f"{body}\\Z", re.DOTALL)
    except re.error:
        # A range such as [z-a]: git matches nothing with it.
        return None
    return _Rule(expression, negated, folders_only, anchored, parts.count("**"))


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
