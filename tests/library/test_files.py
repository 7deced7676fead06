import codecs
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modhub import files
from modhub.errors import ManifestError, StorageError
from modhub.files import claimed, new_directory, new_file
from modhub.store.disk import file_lock
from modhub.text import check_no_conflict, read_text


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


@pytest.mark.parametrize("force", [False, True])
def test_a_linked_folder_is_written_through(tmp_path: Path, force: bool) -> None:
    (tmp_path / "disk" / "big").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "build"
    link.symlink_to(tmp_path / "disk" / "big")
    if force:
        (link / "old").write_text("")
    with new_directory(link, force=force) as scratch:
        (scratch / "what").write_text("new")
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "disk" / "big").iterdir()] == ["what"]
    for folder, name in (("disk", "big"), ("here", "build")):
        assert [path.name for path in (tmp_path / folder).iterdir()] == [name]


def test_a_link_to_nothing_yet_is_made(tmp_path: Path) -> None:
    (tmp_path / "build").symlink_to(tmp_path / "disk" / "big")
    (tmp_path / "lock").symlink_to("elsewhere")
    build(tmp_path / "build", "new")
    files.write_text(tmp_path / "lock", "text")
    assert (tmp_path / "disk" / "big" / "what").read_text() == "new"
    assert (tmp_path / "build").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "text"


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_that_cannot_be_replaced_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The current one stands for the top of a disk, which a test cannot have."""
    top = tmp_path / "top"
    for name in ("old", "lost+found", "sub/older"):
        (top / name).mkdir(parents=True)
    monkeypatch.chdir(top)
    with pytest.raises(StorageError, match="exists already"):
        new_directory(Path()).__enter__()
    if fails:
        with pytest.raises(KeyError), new_directory(Path(), force=True) as scratch:
            raise KeyError
        assert sorted(path.name for path in top.iterdir()) == ["lost+found", "old", "sub"]
        return
    before = top.stat().st_ino
    with new_directory(Path(), force=True) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "new").write_text("")
    assert sorted(path.name for path in top.rglob("*")) == ["lost+found", "new", "sub"]
    assert top.stat().st_ino == before


def test_a_written_file_keeps_mode_and_link(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_a_file_that_is_mounted_is_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "file"
    path.write_text("something long")

    def busy(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", busy)
    files.write_text(path, "short")
    assert path.read_text() == "short"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM])
def test_a_disk_without_modes_locks_or_sync_of_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "chmod", unknown)
    monkeypatch.setattr(os, "chmod", unknown)
    monkeypatch.setattr(fcntl, "flock", unknown)
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: unknown() if stat.S_ISDIR(os.fstat(handle).st_mode) else sync(handle)
    )
    files.write_text(tmp_path / "file", "text")
    build(tmp_path / "build", "new")
    with claimed(tmp_path / "claimed", tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "text"
    if code != errno.EPERM:
        with file_lock(tmp_path / "lock") as locked:
            assert locked


def test_a_real_refusal_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        files.write_text(tmp_path / "file", "text")


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        files.check_vacant(tmp_path / "file" / "below")
    assert str(caught.value) == (
        f"'{tmp_path}/file/below' cannot be written: '{tmp_path}/file' is a file. "
        "Choose a place with room that you may write to."
    )
    files.check_new_file(tmp_path / "file", force=True)
    with pytest.raises(StorageError) as caught:
        files.check_new_file(tmp_path / "file")
    assert str(caught.value) == (
        f"'{tmp_path}/file' exists already. Choose another file, or replace it: --force, or force=True from "
        "Python."
    )


MARKS = [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_text_is_read_without_mark_and_rewritten_with_it(tmp_path: Path, mark: bytes, ends: str) -> None:
    path = tmp_path / "text"
    encoding = {
        b"": "utf-8",
        codecs.BOM_UTF8: "utf-8",
        codecs.BOM_UTF16_LE: "utf-16-le",
        codecs.BOM_UTF16_BE: "utf-16-be",
        codecs.BOM_UTF32_LE: "utf-32-le",
    }[mark]
    path.write_bytes(mark + f"naïve{ends}猫{ends}".encode(encoding))
    assert read_text(path) == "naïve\n猫\n"
    files.rewrite(path, "naïve\n猫\ndog\n")
    assert path.read_bytes() == mark + f"naïve{ends}猫{ends}dog{ends}".encode(encoding)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n", 2),
        ("<<<<<<< HEAD\nb\n||||||| base\n=======\n", 1),
        ("=======\n", None),
        ("a <<<<<<< HEAD\n >>>>>>> b\n", None),
    ],
)
def test_marks_of_a_merge_conflict(text: str, line: int | None) -> None:
    if line is None:
        check_no_conflict(text, "modhub.lock")
        return
    with pytest.raises(ManifestError) as caught:
        check_no_conflict(text, "modhub.lock")
    assert str(caught.value) == f"modhub.lock has the marks of a merge conflict, the first in line {line}."


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
