"""Imports run downhill, and what needs no torch runs without it."""

import ast
from pathlib import Path

import pytest

import modhub
from modhub import push
from modhub_cli.main import COMMANDS
from tests.console import Console
from tests.paper import write_paper_artifact

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "registry" / "modhub"

# Downhill: each room imports itself and rooms above it, nothing below.
SHARED = ["__version__", "errors", "files", "refs", "reporter", "readable", "timing", "charts"]
SHARED += ["manifest", "card", "schemas", "images"]
PAPER = ["project", "resolve", "lock", "hub", "catalog", "publish", "hub.server"]
TENSOR = [
    "positions",
    "devices",
    "data",
    "preprocessing",
    "nets",
    "modules",
    "artifact",
    "decompose",
    "compose",
]
TENSOR += ["measuring", "evaluate", "runtime", "export", "frontiers"]
ORDER = [*SHARED, *PAPER, *TENSOR, "api", "demo", "__init__"]


def room_of(path: Path) -> str:
    """`hub.server` is a room of its own: it shows what the catalogue and the resolver above it say."""
    parts = path.relative_to(LIBRARY).parts
    return "hub.server" if parts[:2] == ("hub", "server") else parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Packages and rooms that the file imports, inside functions too; `modhub.x.y` as `modhub.x`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "modhub":
                names = [f"modhub.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            room = "modhub.hub.server" if f"{name}.".startswith("modhub.hub.server.") else ""
            found.add(room or ".".join(name.split(".")[: 2 if name.startswith("modhub.") else 1]))
    return found


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_rooms_are_downhill(path):
    room, imported = room_of(path), imports_of(path)
    inside = {name.removeprefix("modhub.") for name in imported if name.startswith("modhub.")} - {room}
    above = ORDER[: ORDER.index(room)]
    assert inside <= {*above}, f"{room} imports what is not above it"
    # The one door in the library: what torchrun starts hands over to the console script.
    if path.relative_to(LIBRARY).as_posix() != "decompose/__main__.py":
        assert "modhub_cli" not in imported, "the library knows no command line"
    assert "click" not in imported, "click lives in the command line"
    assert "rich" not in imported, "the library never prints"
    if room in PAPER:
        assert not inside & {*TENSOR}, "the paper tower stands without the tensor tower"
    if room in TENSOR:
        assert not inside & {*PAPER}, "the tensor tower asks no hub"
    else:
        loads = {"api", "demo", "__init__"}
        assert room in loads or not imported & {"torch", "torchvision"}, "only the tensor tower needs torch"
    if "huggingface_hub" in imported:
        assert path.relative_to(LIBRARY).as_posix() == "hub/huggingface.py"
    if "resolvelib" in imported:
        assert room == "resolve"


def test_every_room_has_its_place_in_the_order():
    assert {room_of(path) for path in FILES} | {"__version__"} == {*ORDER}
    assert len(ORDER) == len({*ORDER})


def test_only_the_command_line_prints():
    for path in FILES:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls, f"{path} prints"


def test_exported_names_are_sorted_and_exist():
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "__all__"
            ):
                names = ast.literal_eval(node.value)
                # as ruff sorts them: CONSTANTS, Classes, then the rest
                assert sorted(names) == sorted(set(names)), f"{path} exports a name twice"
    for name in modhub.__all__:
        assert getattr(modhub, name) is not None
        assert name in dir(modhub)


def test_functions_win_over_packages_of_the_same_name():
    from modhub.compose import Budget
    from modhub.decompose import METHODS

    assert callable(modhub.compose)
    assert callable(modhub.decompose)
    assert modhub.Budget is Budget
    assert METHODS
    with pytest.raises(AttributeError, match="module 'modhub' has no attribute 'frobnicate'"):
        modhub.frobnicate  # noqa: B018


WITHOUT_TORCH = """
import sys
from modhub_cli.main import main
sys.argv = ["modhub", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "torchvision", "sklearn", "matplotlib"} & set(sys.modules)
    print("HEAVY", sorted(heavy), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    home = tmp_path_factory.mktemp("shop")
    write_paper_artifact(home / "pets", {"cat": 0.8, "dog": 0.7})
    push(home / "pets", "lab/pets", version="1.0.0", hub=str(home / "hub"))
    return home


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("push", "pets", "lab/pets", "--version", "1.0.0"),
        ("search", "cat"),
        ("info", "lab/pets/cat"),
        ("versions", "lab/pets"),
        ("pull", "lab/pets/cat"),
        ("verify", "pets"),
        ("cache",),
        ("init", "work"),
        ("lock", "--help"),
        ("diff", "pets", "lab/pets"),
        ("yank", "lab/pets==1.0.0"),
        ("gc", "--dry-run", "--root", "hub"),
        ("fsck", "--root", "hub"),
        ("token", "list", "--root", "hub"),
        ("compose", "--help"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_torch(shop, monkeypatch, capsys, arguments):
    modhub = Console(shop, monkeypatch, capsys)
    result = modhub.process(*arguments, python=("-c", WITHOUT_TORCH))
    assert result.code == 0, result.err
    assert "HEAVY []" in result.err


def test_every_command_has_help_with_an_example(tmp_path, monkeypatch, capsys):
    modhub = Console(tmp_path, monkeypatch, capsys)
    for name in COMMANDS:
        text = modhub.good(name, "--help").out
        assert "Usage: modhub " + name in text
        if "Commands:" not in text:
            assert "Example: modhub " in text, name
