"""What is printed stays whole, whatever stdout is and wherever it is read."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console as Screen

from modhub_cli.output import Out, printable, styled
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
        "Error: The output cannot be written: No space left on device.\n"
        "Make room there, or send it to another place.\n",
    )


def test_a_ref_stays_whole_on_a_narrow_screen_and_is_quoted_for_the_shell(modhub, monkeypatch):
    monkeypatch.setattr(Out, "console", lambda _: Screen(width=80, markup=False, highlight=False))
    told = modhub.good("search")
    assert REF in told.out
    assert told.err == f"next: modhub pull '{REF}'\n"


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
        "Error: The current directory is gone.\nChange to one that is there.\n",
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
