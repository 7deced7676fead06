import importlib
import importlib.util
import inspect
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import click
import pytest
from PIL import Image

from modhub.nets.architectures import ARCHITECTURES
from modhub.parents import load_parent
from modhub_cli.main import COMMANDS, cli
from modhub_cli.pages import index_page, page_of

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "commands"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_page(name):
    page = PAGES / f"{name}.md"
    assert page.read_text(encoding="utf-8") == page_of(name), "python -m modhub_cli.pages docs/commands"


def test_no_page_without_a_command():
    assert {page.stem for page in PAGES.glob("*.md")} == {*COMMANDS, "README"}
    assert (PAGES / "README.md").read_text(encoding="utf-8") == index_page()


def documents():
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_container_has_what_the_server_needs():
    page = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
    words = page.partition("--no-cache-dir ")[2].partition("\nCOPY")[0].replace("\\", " ").split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    assert set(words) == {re.split("[><=]", one)[0] for one in needed} - {"torch", "torchvision"}


def shell_lines(text):
    """The lines of shell that a page shows: in blocks, indented or fenced, and between backticks."""
    fenced = re.findall(r"^```(?:sh|dockerfile)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (\S.*(?:\\\n.*)*)", text, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [
        line
        for block in [*fenced, *indented, *inline]
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def words_of(line):
    """The commands of a line of shell, each as words; a line that is no shell has none."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        return []
    commands = [[]]
    for token in tokens:
        if set(token) <= {*";&|"}:
            commands.append([])
        else:
            commands[-1].append(token)
    return [words for words in commands if words]


def complaint(words):
    """What click says of `modhub WORDS`, None where it would run; `…` stands for what is left out."""
    context = click.Context(cli, info_name="modhub")
    command, rest = cli, words
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        if (command := command.get_command(context, name)) is None:
            return f"no command {name}"
        context = click.Context(command, info_name=name, parent=context)
    try:
        _, left, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return error.message
    left = [word for word in left if word != "…"]
    return f"too much: {left}" if left and not isinstance(command, click.Group) else None


CONTAINERS = (["podman", "run"], ["podman", "exec"])
PAGE = pytest.mark.parametrize(
    # What a changelog speaks of may be gone.
    "path",
    [path for path in documents() if path.name != "CHANGELOG.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)


@PAGE
def test_commands_shown_can_be_typed(path):
    text = path.read_text(encoding="utf-8")
    for line in shell_lines(text):
        for words in words_of(line):
            if "modhub" in words and (at := words.index("modhub")) + 1 < len(words):
                before, rest = words[:at], words[at + 1 :]
                # Only what runs modhub: alone, with variables set, or in a container.
                if all("=" in word for word in before) or before[:2] in CONTAINERS:
                    assert complaint(rest) is None, line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("modhub lock --upgrade", None),
        ("modhub token create --user ann --org lab", None),
        ("modhub frobnicate", "no command frobnicate"),
        ("modhub token frobnicate", "no command frobnicate"),
        ("modhub compose --frob", "No such option '--frob'."),
        ("modhub versions a/b c/d", "too much: ['c/d']"),
        ("modhub compose -o", "Option '-o' requires an argument."),
    ],
)
def test_what_cannot_be_typed_is_seen(line, said):
    (words,) = words_of(line)
    assert complaint(words[1:]) == said


def options_of(command):
    names = {name for param in command.params for name in param.opts if name.startswith("--")}
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            names |= options_of(command.get_command(click.Context(command), name))
    return names


@PAGE
def test_options_and_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    known = options_of(cli) | {"--help"}
    for line in shell_lines(text):
        scripts = re.findall(r"\b(?:benchmarks|tests|docs)/[\w/.-]+\.\w+", line)
        for script in scripts:
            assert (ROOT / script).is_file(), line
        sources = [(ROOT / script).read_text(encoding="utf-8") for script in scripts]
        if line.startswith(("--", "modhub ")) or sources:
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
                benchmarks = BENCHMARK_OPTIONS if not sources else set()
                assert option in known | benchmarks or any(option in source for source in sources), line


BENCHMARK_OPTIONS = {
    option
    for script in (ROOT / "benchmarks").glob("*.py")
    for option in re.findall(r'"(--[a-z][a-z-]*)"', script.read_text(encoding="utf-8"))
}


@PAGE
def test_names_of_the_library_exist(path):
    for name in re.findall(r"\bmodhub(?:_cli)?(?:\.[A-Za-z_]\w*)+", path.read_text(encoding="utf-8")):
        if name not in ("modhub.json", "modhub.toml", "modhub.lock"):
            assert resolves(name), name


def resolves(name):
    """Whether a dotted name leads to a module, or to something in one."""
    path, *rest = name.split(".")
    thing = importlib.import_module(path)
    for part in rest:
        path += f".{part}"
        # Attributes first: `modhub.decompose` is the function, and importing the module would hide it.
        if hasattr(thing, part):
            thing = getattr(thing, part)
        elif inspect.ismodule(thing) and importlib.util.find_spec(path) is not None:
            thing = importlib.import_module(path)
        else:
            return False
    return True


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("modhub.nets.Cost.time", True),
        ("modhub.project.resolver", True),
        ("modhub.nets.Cost.price", False),
        ("modhub.nothing.at.all", False),
    ],
)
def test_a_name_that_is_missing_is_seen(name, there):
    assert resolves(name) is there


@PAGE
def test_targets_of_make_exist(path):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in shell_lines(path.read_text(encoding="utf-8")):
        if line.startswith("make "):
            words = line.partition("#")[0].split()[1:]
            assert {word for word in words if "=" not in word} <= targets, line


def test_a_parent_is_written_as_the_page_says(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {"model": ARCHITECTURES["resnet20"].build(2)})
    assert load_parent("parent").labels == ("cat", "dog")


def test_an_exported_file_runs_as_the_page_says(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    shutil.copy(ROOT / "tests" / "golden" / "0.1.0" / "digits.onnx", tmp_path / "build.onnx")
    Image.new("RGB", (20, 20), (200, 30, 30)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.strip() in ("0", "1", "eight")
