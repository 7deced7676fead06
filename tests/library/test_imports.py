"""Imports run downhill, and what needs no torch runs without it."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import modhub
from modhub import push
from modhub_cli.main import COMMANDS
from tests.support.console import Console
from tests.support.paper import write_paper_artifact

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "registry" / "modhub"

# From the ground up: each room imports itself and the rooms before it in this list, none after it.
# A file belongs to the longest entry that its module name starts with.
GROUND = [
    "__version__",
    "errors",
    "results",
    "formatting",
    "text",
    "files",
    "labels",
    "licences",
    "refs",
    "reporter",
    "images",
    "schemas",
]
GROUND += ["integrity", "devices", "workers", "energy"]
PAPER = ["manifest", "catalog.releases", "store", "hub", "catalog", "project"]
TENSOR = [
    "nets",
    "training",
    "importing",
    "data",
    "artifact",
    "parents",
    "calibration",
    "pruning",
    "decomposition",
    "composition",
]
TENSOR += ["runtimes", "evaluation"]
ROOMS = [
    *GROUND,
    "manifest",
    "catalog.releases",
    "nets",
    "training",
    "importing",
    "data",
    "store",
    "hub",
    "parents",
    "artifact",
]
ROOMS += [
    "calibration",
    "pruning",
    "catalog",
    "decomposition",
    "composition",
    "project",
    "runtimes",
    "evaluation",
]
ROOMS += ["server.errors", "server.auth", "server.http", "server.protocol", "server.web", "server", "api"]
ROOMS += ["", "demo", "decompose"]


def room_of(module: str) -> str:
    """The room of a module, both without the leading `modhub.`."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}." if room else "")), key=len)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports_of(source: str) -> set[str]:
    """Modules and packages that the source imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "modhub":
            names |= {f"modhub.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def violations(module: str, source: str) -> list[str]:
    """What the imports of a module of the library do that they may not."""
    room, imported = room_of(module), imports_of(source)
    rooms = {room_of(name.removeprefix("modhub.")) for name in imported if name.startswith("modhub.")}
    packages = {name.partition(".")[0] for name in imported}
    uphill = rooms - {*ROOMS[: ROOMS.index(room) + 1]}
    sentences = [f"{module} imports {above} uphill" for above in sorted(uphill)]
    outside = packages & {"modhub_cli", "click", "rich"}
    if room in PAPER:
        outside |= rooms & {*TENSOR} | packages & {"torch", "torchvision"}
    if room in TENSOR:
        outside |= rooms & {*PAPER} - {"manifest"}
    return sentences + [f"{module} must not know {name}" for name in sorted(outside)]


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_run_downhill(path):
    assert violations(module_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "sentences"),
    [
        ("nets.graph", "from modhub.errors import RefError\nfrom modhub.nets import runner", []),
        ("errors", "import modhub.refs", ["errors imports refs uphill"]),
        ("composition.heads", "from modhub.api import using", ["composition.heads imports api uphill"]),
        (
            "composition.heads",
            "def fit():\n    from modhub import project",
            ["composition.heads imports project uphill", "composition.heads must not know project"],
        ),
        ("catalog.search", "import torch.nn", ["catalog.search must not know torch"]),
        ("catalog.search", "import modhub.nets.graph", ["catalog.search must not know nets"]),
        ("decomposition.parent", "import modhub.hub", ["decomposition.parent must not know hub"]),
        ("api.sharing", "import click, modhub.hub", ["api.sharing must not know click"]),
    ],
)
def test_the_rule_sees_what_breaks_it(module, source, sentences):
    assert violations(module, source) == sentences


@pytest.mark.parametrize(
    ("package", "files"),
    [
        ("huggingface_hub", {"hub/huggingface.py"}),
        ("resolvelib", {"project/search.py"}),
    ],
)
def test_these_packages_have_one_user(package, files):
    users = {
        path.relative_to(LIBRARY).as_posix()
        for path in FILES
        if package in {name.partition(".")[0] for name in imports_of(path.read_text(encoding="utf-8"))}
    }
    assert users == files


def test_every_room_exists_and_holds_no_more_than_an_eighth():
    lines = dict.fromkeys(ROOMS, 0)
    for path in [*FILES, *sorted((ROOT / "cli").rglob("*.py"))]:
        count = len(path.read_text(encoding="utf-8").splitlines())
        if path in FILES:
            lines[room_of(module_of(path))] += count
        else:
            lines["cli"] = lines.get("cli", 0) + count
    assert [room for room, count in lines.items() if not count] == ["__version__"]
    assert {room: count for room, count in lines.items() if count > sum(lines.values()) / 8} == {}


def test_no_package_exports_a_name_that_one_of_its_modules_has():
    """Else `import modhub.x.y` and `from modhub.x import y` would take turns in naming the same thing."""
    for package in [path for path in FILES if path.name == "__init__.py" and path.parent != LIBRARY]:
        modules = {path.stem for path in package.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        tree = ast.parse(package.read_text(encoding="utf-8"))
        names = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module != f"modhub.{module_of(package)}"
            for alias in node.names
        } | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert not names & modules, f"{package.relative_to(LIBRARY)} exports names of its own modules"


def test_only_the_command_line_prints():
    for path in FILES:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls, f"{path} prints"


def sorted_as_ruff_does(names):
    """CONSTANTS, then Classes, then the rest, each without doubles and with numbers in their order."""

    def key(name):
        rank = 0 if name.isupper() else 1 if name[0].isupper() else 2
        return rank, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(set(names), key=key)


def exports_of(source):
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return ast.literal_eval(node.value)
    return []


EXPORTS = {path: names for path in FILES if (names := exports_of(path.read_text(encoding="utf-8")))}


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_exported_names_are_sorted_and_exist(path):
    names = EXPORTS[path]
    assert names == sorted_as_ruff_does(names)
    module = importlib.import_module(f"modhub.{module_of(path)}".rstrip("."))
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_order_of_exported_names_can_be_wrong():
    names = ["LIMIT", "Fields", "Graph", "read", "read_2", "read_10", "write"]
    assert sorted_as_ruff_does(reversed(names)) == names
    assert exports_of('__all__ = ["b", "a", "a"]') != sorted_as_ruff_does(["b", "a", "a"])


def test_what_modhub_exports_is_listed_by_dir():
    assert {*modhub.__all__} <= {*dir(modhub)}


def test_functions_are_not_packages():
    import modhub.composition.budget as budget
    import modhub.decomposition.registry as registry

    assert callable(modhub.compose)
    assert callable(modhub.decompose)
    assert modhub.Budget is budget.Budget
    assert registry.METHODS
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
        ("methods", "--json"),
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


def test_help_reads_no_manifests(shop, monkeypatch, capsys):
    script = (
        WITHOUT_TORCH
        + '    print("READ", sorted({"modhub.manifest", "yaml"} & set(sys.modules)), file=sys.stderr)'
    )
    result = Console(shop, monkeypatch, capsys).process("--help", python=("-c", script))
    assert "READ []" in result.err


def test_every_command_has_help_with_an_example(tmp_path, monkeypatch, capsys):
    modhub = Console(tmp_path, monkeypatch, capsys)
    for name in COMMANDS:
        text = modhub.good(name, "--help").out
        assert "Usage: modhub " + name in text
        if "Commands:" not in text:
            assert "Example: modhub " in text, name
