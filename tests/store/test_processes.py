"""Many processes on one store, and writers that die at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modhub.store.fsck import fsck
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

KEY = RepositoryKey.model("lab/net")

COMMITTER = """
import sys
from modhub.errors import StaleParentError
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
root, name, rounds, pinned = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "pinned"
store, key = Store(root), RepositoryKey.model("lab/net")
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    parent = store.reader.resolve(key) if pinned else None
    try:
        change = Add(f"{name}/{number}", f"{name} {number}".encode())
        done = store.commits.create(key, [change], title=name, parent=parent)
        print("done", done.id, f"{name}/{number}", flush=True)
    except StaleParentError:
        print("refused", flush=True)
"""

# Commits of three files that must be seen together, each told only once it is promised.
PUSHER = """
import sys
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
store, key, start = Store(sys.argv[1]), RepositoryKey.model("lab/net"), int(sys.argv[2])
for number in range(start, start + 100_000):
    text = str(number).encode()
    contents = {"a": text, "b": text + b"!" * 50_000, "README.md": text + b"?"}
    files = [Add(name, content) for name, content in contents.items()]
    print("done", store.commits.create(key, files, title=str(number)).id, number, flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(("mode", "processes"), [("pinned", 16), ("free", 4)])
def test_processes_on_one_branch_lose_no_commit(tmp_path: Path, mode: str, processes: int) -> None:
    store = Store(tmp_path)
    store.repositories.create(KEY)
    writers = [start(COMMITTER, str(tmp_path), f"w{number}", "5", mode) for number in range(processes)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    outputs = []
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        outputs += writer.communicate(timeout=120)[0].splitlines()
        assert writer.returncode == 0
    done = [line.split()[1:] for line in outputs if line.startswith("done")]
    assert len(done) + outputs.count("refused") == 5 * processes
    assert len(done) == 5 * processes if mode == "free" else done
    history = [record.id for record in store.reader.history(KEY)]
    assert sorted(history[:-1]) == sorted(commit for commit, _ in done)
    assert sorted(store.reader.tree(KEY)) == sorted(path for _, path in done)
    assert fsck(store).findings == ()


def test_another_repository_does_not_wait(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = RepositoryKey.model("lab/other")
    for key in (KEY, other):
        store.repositories.create(key)
    with store.references.locked(KEY):
        before = time.monotonic()
        store.commits.create(other, [Add("a", b"1")], title="t")
        assert time.monotonic() - before < 5


@pytest.mark.timeout(1200)
def test_a_commit_survives_kill_at_any_moment(tmp_path: Path) -> None:
    kills = int(os.environ.get("MODHUB_TEST_KILLS", "25"))
    seed = int(os.environ.get("MODHUB_TEST_SEED", "7"))
    generator = random.Random(seed)
    store = Store(tmp_path)
    store.repositories.create(KEY)
    promised: dict[str, int] = {}
    started = 0
    for _ in range(kills):
        writer = start(PUSHER, str(tmp_path), str(started))
        assert writer.stdout is not None
        told = [writer.stdout.readline()]
        time.sleep(generator.uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        assert writer.stdin is not None
        writer.stdin.close()
        for line in told:
            if line.endswith("\n"):
                _, commit, number = line.split()
                promised[commit] = int(number)
        started = max(promised.values()) + 2
        # The reader sees whole commits only, and the index agrees with the files.
        head = store.reader.resolve(KEY)
        number = int(store.reader.read(KEY, head, "a"))
        assert store.reader.read(KEY, head, "b") == str(number).encode() + b"!" * 50_000
        assert store.index.search()[0].head == head
    history = {record.id: record.title for record in store.reader.history(KEY)}
    assert promised.keys() <= history.keys()
    assert all(history[commit] == str(number) for commit, number in promised.items())
    # At most the one commit under way at each kill landed without having been told.
    assert len(history) - 1 - len(promised) <= kills
    entered = {entry.get("commit") for entry in store.audit.entries()}
    assert set(history) - entered == {record.id for record in store.reader.history(KEY) if not record.parents}
    report = fsck(Store(tmp_path))
    assert report.findings == ()
    assert report.commits >= len(history)
