import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modhub import files
from modhub.errors import StorageError
from modhub.files import new_directory


def build(path: Path, content: str) -> None:
    with new_directory(path, replace=True) as scratch:
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
    with pytest.raises(KeyError), new_directory(tmp_path / "build", replace=True):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
    assert (tmp_path / "build" / "what").read_text() == "newer"


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
with files.new_directory(Path(sys.argv[1]), replace=True) as scratch:
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
