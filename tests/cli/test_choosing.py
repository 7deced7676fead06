"""A bare label that several repositories serve: on a terminal modhub asks which."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.support.console import ROOT, Console
from tests.support.paper import write_paper_artifact

QUESTION = "'dog' is offered by 2 repositories: lab/pets/dog, zoo/big/dog."


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    for name, repository in (("pets", "lab/pets"), ("zoo", "zoo/big")):
        write_paper_artifact(tmp_path / name, {"dog": 0.9}, trunk=name)
        console.good("push", name, repository, "--version", "1.0.0")
    return console


def on_a_terminal(console, typed, *arguments):
    """Exit code, and all that the terminal shows."""
    path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "modhub_cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **console.environment, "PYTHONPATH": path},
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            # Linux says so when the other side is closed.
            pass
    os.close(ours)
    return process.returncode, shown.decode()


def test_a_terminal_is_asked_and_a_lock_keeps_the_answer(modhub):
    modhub.good("init", "project")
    modhub.go(modhub.home / "project")
    modhub.good("add", "dog")
    code, shown = on_a_terminal(modhub, "3\n2\n", "lock")
    assert code == 0, shown
    assert QUESTION in shown
    assert "1  lab/pets/dog" in shown
    assert "2  zoo/big/dog" in shown
    # 3 is none of them.
    assert shown.count("Which of them") == 2
    (module,) = json.loads((modhub.home / "project" / "modhub.lock").read_text())["modules"]
    assert (module["ref"], module["repository"]) == ("*", "zoo/big")
    modhub.good("lock", "--upgrade")


def test_elsewhere_it_is_an_error(modhub):
    refused = modhub("pull", "dog")
    assert (refused.code, refused.err) == (1, f"Error: {QUESTION}\nName one of them by its ref.\n")
    # --json is for programs, on a terminal too.
    code, shown = on_a_terminal(modhub, "1\n", "pull", "dog", "--json")
    assert code == 1
    assert "Which of them" not in shown
