import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modhub import files
from modhub.errors import StorageError
from modhub.files import new_directory


def build(path: Path, content: str) -> None:
    with new_directory(path, force=True) as scratch:
        (scratch / "what").write_text(content)


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_directory_is_replaced_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for content in ("old", "new", "newer"):
        build(tmp_path / "build", content)
        assert [path.name for path in tmp_path.iterdir()] == ["build"]
        assert (tmp_path / "build" / "what").read_text() == content
    with pytest.raises(StorageError, match="exists already"), new_directory(tmp_path / "build"):
        pass
    with pytest.raises(KeyError), new_directory(tmp_path / "build", force=True):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
    assert (tmp_path / "build" / "what").read_text() == "newer"


STOPPED = """
import os, signal, sys
from pathlib import Path
from modhub.files import new_directory

with new_directory(Path(sys.argv[1])) as scratch:
    (scratch / "what").write_text("half")
    print(scratch, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    target = tmp_path / "build"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", STOPPED, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(3)
    ]
    scratches = []
    for run in runs:
        assert run.stdout is not None
        scratches.append(Path(run.stdout.readline().strip()))
    dead, young, living = scratches
    other = tmp_path / ".build.more.abcdefgh.part"
    other.mkdir()
    for run in runs[:2]:
        run.communicate("")
    for old in (dead, living, other):
        os.utime(old, (0, 0))
    build(target, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"build", young.name, living.name, other.name}
    assert (living / "what").read_text() == "half"
    runs[2].communicate("")
    assert [run.returncode for run in runs] == [-signal.SIGKILL] * 3


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from modhub import files

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def and_die(act):
    return lambda *given: (act(*given), die())

os.replace = and_die(os.replace)
# With both names exchanged at once, removing the old directory is all that is left to be killed in.
shutil.rmtree = die
with files.new_directory(Path(sys.argv[1]), force=True) as scratch:
    (scratch / "what").write_text("new")
"""


def test_a_kill_in_the_middle_leaves_the_old_or_the_new_directory(tmp_path: Path) -> None:
    build(tmp_path / "build", "old")
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    if not files._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this system or file system cannot exchange two directories")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "build")],
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "build" / "what").read_text() == "new"
