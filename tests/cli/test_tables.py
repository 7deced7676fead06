"""Tables fit the terminal they are printed on, break no cell, and are printed in full into a pipe."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from modhub.manifest import Sample
from modhub_cli.table import fit_table
from tests.support.console import ROOT, Console
from tests.support.paper import write_paper_artifact

REPOSITORY = "a-university-laboratory/mobile-net-for-3"
LABELS = ["great white shark of the south", "northern hairy-nosed wombat"]
SAMPLE = Sample(dataset="digits", split="test", positives=1000, negatives=9000)
WIDTHS = [60, 80, 100, 200]


def cells_of(line):
    return re.split(r" {2,}", line.strip())


def assert_fits(lines, full, width):
    """Lines of a table at `width` hold cells of `full`, whole, or cut with a sign where they are text."""
    assert len(lines) == len(full)
    for line, whole in zip(lines, full, strict=True):
        assert len(line) <= width, line
        for cell, original in zip(cells_of(line), whole, strict=False):
            if "…" in cell:
                start, _, end = cell.partition("…")
                assert not original.endswith("%")
                assert original.startswith(start)
                assert original.endswith(end)
            else:
                assert cell == original


def on_a_terminal(modhub, width, *arguments):
    """What the command prints on stdout when that is a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    path = os.pathsep.join([str(ROOT / "registry"), str(ROOT / "cli")])
    environment = {**os.environ, **modhub.environment, "PYTHONPATH": path}
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-m", "modhub_cli", *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        printed = b""
        while chunk := _read(terminal):
            printed += chunk
    return printed.decode().replace("\r\n", "\n").splitlines(), done.stderr


def _read(terminal):
    """Linux reports a terminal that nobody writes to any more as an error."""
    try:
        return terminal.read(65536)
    except OSError:
        return b""


@pytest.fixture
def modhub(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    modules = dict.fromkeys(LABELS, 1.0)
    write_paper_artifact(tmp_path / "zoo", modules, licence="bsd-3-clause-clear", sample=SAMPLE)
    console.good("push", "zoo", REPOSITORY, "--version", "2026.11.30")
    for user in ("alice", "a-user-with-a-long-name"):
        token = ("token", "create", "--user", user, "--expires", "90d", "--root", "hub")
        console.good(*token, "--org", "a-university-laboratory", "--org", "vision-lab")
    return console


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("arguments", "first"),
    [(("search",), "module"), (("info", REPOSITORY), "module"), (("token", "list", "--root", "hub"), "id")],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_table_fits_the_terminal(modhub, arguments, first, width):
    printed, _ = on_a_terminal(modhub, width, *arguments)
    piped = modhub.good(*arguments).out.splitlines()
    start = next(number for number, line in enumerate(piped) if cells_of(line)[0] == first)
    assert printed[:start] == piped[:start]
    full = [cells_of(line) for line in piped[start : start + 3]]
    assert len({len(row) for row in full}) == 1, "one row a line, every cell there"
    assert_fits(printed[start : start + 3], full, width)


def test_what_is_hidden_is_said_and_a_ref_stays_whole(modhub):
    printed, said = on_a_terminal(modhub, 80, "search", LABELS[0])
    ref = f"{REPOSITORY}/{LABELS[0]}"
    assert printed == ["module", ref]
    assert said == (
        "Columns hidden at this width: measured here, claimed recall, claimed balanced accuracy, claimed on, "
        "release, licence, data set.\n"
        f"next: modhub pull '{ref}'\n"
    )


ROWS = [
    ["lab/pets/cat", "test, 1,000", "100.0 %", "a data set with a very long name"],
    ["lab/pets/dog", "–", "9.5 %", "–"],
]
COLUMNS = ["module", "measured on", "recall", "data set"]


@pytest.mark.parametrize(
    ("width", "lines", "hidden"),
    [
        (
            None,
            [
                "module        measured on   recall  data set",
                "lab/pets/cat  test, 1,000  100.0 %  a data set with a very long name",
                "lab/pets/dog  –              9.5 %  –",
            ],
            (),
        ),
        (
            60,
            [
                "module        measured on   recall  data set",
                "lab/pets/cat  test, 1,000  100.0 %  a data set…long name",
                "lab/pets/dog  –              9.5 %  –",
            ],
            (),
        ),
        (
            40,
            [
                "module        measured on   recall",
                "lab/pets/cat  test, 1,000  100.0 %",
                "lab/pets/dog  –              9.5 %",
            ],
            ("data set",),
        ),
        (12, ["module", "lab/pets/cat", "lab/pets/dog"], ("measured on", "recall", "data set")),
        (8, ["module", "lab/…cat", "lab/…dog"], ("measured on", "recall", "data set")),
    ],
)
def test_columns_go_from_the_right_and_numbers_are_never_cut(width, lines, hidden):
    fitted = fit_table(COLUMNS, ROWS, right=[2], width=width)
    assert ([fitted.header, *fitted.lines], fitted.hidden) == (lines, hidden)


def test_wide_characters_take_two_columns():
    fitted = fit_table(["module", "recall"], [["猫の写真", "80.0 %"], ["é", "9.0 %"]], right=[1])
    assert fitted.lines == ("猫の写真  80.0 %", "é          9.0 %")
    assert fit_table(["module"], [["猫の写真"]], width=6).lines == ("猫…真",)


def test_a_cell_is_one_line_whatever_it_holds():
    assert fit_table(["class"], [["a\x1b[31m\nb"]]).lines == ("a\\x1b[31m\\nb",)
