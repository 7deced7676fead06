import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modhub import files
from modhub.errors import StorageError
from modhub.files import claimed, new_directory, new_file


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


def test_what_cannot_be_written_inside_is_named_as_the_place_where_it_is_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(
            StorageError, match=rf"^'{tmp_path}/build/{'x' * 300}' cannot be written: File name too"
        ),
        new_directory(tmp_path / "build") as scratch,
    ):
        files.write_bytes(scratch / ("x" * 300), b"")
    assert not list(tmp_path.iterdir())


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    slow = new_directory(tmp_path / "build")
    (slow.__enter__() / "what").write_text("mine")
    build(tmp_path / "build", "theirs")
    with pytest.raises(StorageError, match="exists already"):
        slow.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
    assert (tmp_path / "build" / "what").read_text() == "theirs"


def test_a_claim_is_one_process_s_and_leaves_nothing_empty(tmp_path: Path) -> None:
    place, target = tmp_path / "far" / "away", tmp_path / "target"
    with claimed(place, target):
        with pytest.raises(StorageError, match=rf"^Another process is at work on '{target}'"):  # noqa: SIM117
            with claimed(place, target):
                pass
        assert place.is_dir()
    assert not list(tmp_path.iterdir())
    with claimed(place, target):
        (place / "kept").write_text("")
    assert (place / "kept").exists()
    with claimed(place, target):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=rf"^'{target}' cannot be written"):  # noqa: SIM117
        with claimed(tmp_path / "file" / "below", target):
            pass


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


def test_a_large_file_that_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    program = STOPPED.replace("new_directory", "new_file").replace('(scratch / "what")', "scratch")
    target = tmp_path / "net.onnx"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target)],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as living:
        assert living.stdout is not None
        scratch = Path(living.stdout.readline().strip())
        # As old as it may be: a living process holds it.
        os.utime(scratch, (0, 0))
        with new_file(target, large=True) as mine:
            mine.write_text("whole")
        assert scratch.exists()
        living.communicate("")
    assert living.returncode == -signal.SIGKILL
    os.utime(scratch, (0, 0))
    with new_file(target, large=True) as mine:
        mine.write_text("whole")
    assert list(tmp_path.iterdir()) == [target]


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
