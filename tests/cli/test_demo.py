import json
import re
import shlex

import pytest

from tests.support.console import Console
from tests.support.determined import determined_bytes


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """One demo for all tests: it takes half a minute."""
    home = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        console = Console(home, patch)
        result = console.good("demo")
        again = console("demo", "-o", home)
    return home, result, again


def test_the_path_is_printed_last(told):
    home, result, _ = told
    last = result.out.rstrip().splitlines()[-1]
    assert last == "demo-out/report.html"
    assert (home / last).is_file()


def test_every_step_shows_its_command(told):
    _, result, _ = told
    titles = re.findall(r"^(\d+)\. ", result.out, re.MULTILINE)
    assert titles == [str(number) for number in range(1, 9)]
    for name in (
        "decompose",
        "push",
        "search",
        "pull",
        "init",
        "add",
        "lock",
        "compose",
        "evaluate",
        "replace",
    ):
        assert f"modhub {name}" in result.out, name


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    return Console(tmp_path, monkeypatch, capsys)


def test_the_command_that_is_shown_makes_what_the_demo_made(told, tmp_path, modhub):
    home, result, _ = told
    command = re.search(r"modhub (decompose modhub:digits-plain .+) -o (\S+)", result.out)
    modhub.go(home / "demo-out")
    modhub.good(*shlex.split(command[1]), "-o", tmp_path / "plain")
    shown = home / "demo-out" / command[2] / "modhub.json"
    assert determined_bytes(tmp_path / "plain" / "modhub.json") == determined_bytes(shown)


def test_the_commands_that_are_shown_can_be_typed_one_after_the_other(told, tmp_path, modhub):
    home, result, _ = told
    shown = re.findall(
        r"^   \$ (modhub init .+|cd .+|modhub (?:lock|compose|replace|evaluate) .+)$", result.out, re.M
    )
    assert len(shown) == 9
    modhub.monkeypatch.setenv("MODHUB_HUB", str(home / "demo-out" / "hub"))
    for program, *arguments in (shlex.split(typed) for line in shown for typed in line.split(" && ")):
        if program == "cd":
            modhub.monkeypatch.chdir(*arguments)
        else:
            assert program == "modhub"
            modhub.good(*arguments)
    for build in ("few/build", "all/build", "all/mended"):
        made = json.loads((tmp_path / build / "build.json").read_text())
        assert made["labels"] == json.loads((home / "demo-out" / build / "build.json").read_text())["labels"]
    assert json.loads((tmp_path / "plain/build/build.json").read_text())["labels"] == list("012345")


def test_nothing_outside_its_folder(told):
    home, _, _ = told
    assert [path.name for path in home.iterdir()] == ["demo-out"]
    assert {path.name for path in (home / "demo-out").iterdir()} == {
        "all",
        "cache",
        "few",
        "hub",
        "modules",
        "parents",
        "report.html",
    }


def test_the_report_stands_alone(told):
    home, _, _ = told
    page = (home / "demo-out" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<svg") == 3
    assert page.count('<table class="confusion">') == 3
    assert page.count("data:image/png;base64,") == 20
    assert "restricted logits" in page
    assert "random" in page


def test_ten_digits_of_two_parents(told):
    home, _, _ = told
    build = json.loads((home / "demo-out/all/build/build.json").read_text())
    assert build["labels"] == [str(digit) for digit in range(10)]
    assert len(build["passes"]) == 2
    page = (home / "demo-out" / "report.html").read_text()
    figures = [float(text) for text in re.findall(r"</td><td>([\d.]+) %</td><td>[\d.]+ %</td><td>", page)]
    assert len(figures) == 3
    assert figures[0] > 97, "0, 1 and 2 at a quarter of the work"
    assert min(figures[1:]) > 88, "neither parent could get above 60 %"


def test_a_folder_of_somebody_else_is_left_alone(told):
    home, _, again = told
    assert again.code == 1
    assert "exists already." in again.err
    assert (home / "demo-out" / "report.html").is_file()
