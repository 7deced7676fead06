"""What is printed stays whole, whatever stdout is and wherever it is read."""

import ast
import json
import os
import re
import subprocess
import sys

import click
import pytest

from modhub_cli.failures import report
from modhub_cli.output import Out
from modhub_cli.terminal import printable, styled
from tests.support.console import ROOT, Console
from tests.support.paper import write_paper_artifact


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    write_paper_artifact(tmp_path / "pets", {"mountain lion": 0.8})
    console.good("push", "pets", "a-lab-with-a-name/and-a-repository", "--version", "1.0.0")
    return console


REF = "a-lab-with-a-name/and-a-repository/mountain lion"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_will_do(modhub, encoding):
    modhub.environment["PYTHONIOENCODING"] = encoding
    code = "import sys; from modhub_cli.main import main; sys.argv[0] = 'modhub'; main()"
    path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
    done = subprocess.run(
        [sys.executable, "-c", code, "search"],
        capture_output=True,
        check=False,
        env={**os.environ, **modhub.environment, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert REF.encode() in done.stdout


@pytest.mark.parametrize("command", ["search", "info a-lab-with-a-name/and-a-repository"])
@pytest.mark.parametrize("where", [">&-", "| true"])
def test_nobody_has_to_read_it(modhub, command, where):
    path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"'{sys.executable}' -m modhub_cli.main {command} {where}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **modhub.environment, "PYTHONPATH": path},
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr


def in_bash(modhub, line):
    """The result of a line in which $MODHUB is the command; a pipe fails where one of its parts does."""
    path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
    environment = {**os.environ, **modhub.environment, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""}
    environment["MODHUB"] = f"{sys.executable} -m modhub_cli.main"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2>&1 | true"])
def test_work_is_done_whether_or_not_anybody_listens(modhub, where):
    done = in_bash(modhub, f"$MODHUB push pets lab/pets --version 1.0.0 {where}")
    assert done.returncode == 0
    assert modhub.good("versions", "lab/pets", "-q").out == "1.0.0\n"


@pytest.mark.parametrize("command", ["search", "search --json", "--help"])
def test_output_that_cannot_be_written_is_named(modhub, command):
    done = in_bash(modhub, f"$MODHUB {command} >/dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: Cannot write to stdout: No space left on device.\n"
        "Free some space, or redirect it elsewhere.\n",
    )


def test_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert styled("no", fg="red") == "\x1b[31mno\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("no", fg="red") == "no"


def test_a_name_that_is_no_text_is_valid_json(capsys):
    Out("json").emit({"path": "b\udcffd.png"})
    printed = capsys.readouterr().out
    assert json.loads(printed.encode()) == {"path": "b\udcffd.png"}


def test_a_project_takes_no_name_that_is_no_text(modhub):
    told = modhub("init", "work", "--name", "b\udcffd")
    assert (told.code, told.err) == (
        1,
        "Error: 'b\\udcffd' is no name that a file can hold.\nGive another with --name.\n",
    )
    assert not (modhub.home / "work").exists()


def test_a_directory_that_is_gone(modhub):
    gone = modhub.home / "gone"
    modhub.go(gone)
    gone.rmdir()
    told = modhub("compose", "-o", "build")
    assert (told.code, told.err) == (
        1,
        "Error: The current directory no longer exists.\nChange to an existing directory.\n",
    )
    modhub.go(modhub.home)


def test_what_is_no_number_is_null(capsys):
    Out("json").emit({"a": float("nan"), "b": [1.5, (float("-inf"),)], "c": "NaN"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, [None]], "c": "NaN"}


def test_the_name_of_a_file_writes_nothing_on_the_screen():
    assert printable("a\x1b[31m\nb\x9bü\t.png") == "a\\x1b[31m\\nb\\x9bü\\t.png"


def test_scripts_get_a_name_as_it_is(capsys):
    Out("quiet").emit(None, quiet=["\x1b[31m.png"])
    assert capsys.readouterr().out == "\x1b[31m.png\n"


def test_the_files_of_the_command_line_import_one_another_in_no_circle():
    root = ROOT / "cli" / "modhub_cli"
    imports = {}
    for path in root.rglob("*.py"):
        name = ".".join(["modhub_cli", *path.relative_to(root).with_suffix("").parts])
        imports[name] = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("modhub_cli.")
        }
    left = dict(imports)
    while free := [name for name, imported in left.items() if not imported & set(left)]:
        for name in free:
            del left[name]
    assert not left, "these import one another"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comopse", "No such command 'comopse'. Did you mean 'compose'?"),
        ("serach", "No such command 'serach'. Did you mean 'search'?"),
        ("xyz", "No such command 'xyz'."),
    ],
)
def test_a_mistyped_command_suggests_the_nearest(modhub, name, message):
    result = modhub(name, "-o", "build")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"Usage: modhub [OPTIONS] COMMAND [ARGS]...\nTry 'modhub --help' for help.\n\nError: {message}\n"
    )


def test_an_internal_error_asks_to_be_reported(capsys):
    assert report(TypeError("unsupported operand")) == 1
    assert report(TypeError()) == 1
    hint = "For a traceback, run it again with MODHUB_DEBUG=1.\n"
    assert click.unstyle(capsys.readouterr().err) == (
        f"Internal error: TypeError: unsupported operand (please report it).\n{hint}"
        f"Internal error: TypeError (please report it).\n{hint}"
    )


def test_a_pull_says_what_was_cached(modhub):
    first = modhub.good("pull", REF, "-q")
    again = modhub.good("pull", REF).err.splitlines()[-1]
    assert first.err == ""
    assert re.fullmatch(r"0 B downloaded, .+ kB cached", again), again
