"""docs/architecture.md and CONTRIBUTING.md name what there is, and all of the rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.library.test_imports import LIBRARY, ROOMS, ROOT

PAGES = (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md")
TOPS = ("cli/", "schemas/", "tests/", "docs/", "benchmarks/", "registry/")


def named(text: str) -> list[str]:
    """What stands between backticks and looks like a path, a name after its colon."""
    return [
        name
        for name in re.findall(r"`([\w./-]+(?::[A-Za-z_.]+)?)`", text)
        if re.search(r"\.(py|html)(:|$)|^[a-z][\w-]*/[\w./-]+$", name)
    ]


def path_of(name: str) -> Path:
    path, _, _ = name.partition(":")
    return ROOT / path if path.startswith(TOPS) else LIBRARY / path


def defines(path: Path, name: str) -> bool:
    """Whether a file defines a name, or a class of it a method after the dot."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split("."):
        inside = [node for node in body if part in names_of(node)]
        if not inside:
            return False
        body = getattr(inside[0], "body", [])
    return True


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize(
    ("page", "name"), [(page.name, name) for page in PAGES for name in sorted({*named(page.read_text())})]
)
def test_what_is_named_exists(page: str, name: str) -> None:
    path, _, symbol = name.partition(":")
    assert path_of(name).exists(), f"{page} names {path}"
    if symbol:
        assert defines(path_of(name), symbol), f"{page} names {name}"


def test_every_room_has_its_line() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE)
    described = {name.removesuffix(".py") for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert {room.partition(".")[0] for room in ROOMS} - {"", "__version__"} <= described


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("refs.py:Ref.parse", True),
        ("refs.py:Ref.nothing", False),
        ("nets/operators.py:OPERATORS", True),
        ("nets/operators.py:NOTHING", False),
    ],
)
def test_a_name_that_is_missing_is_seen(name: str, there: bool) -> None:
    assert named(f"see `{name}`") == [name]
    assert defines(path_of(name), name.partition(":")[2]) is there
