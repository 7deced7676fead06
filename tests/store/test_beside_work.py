"""Maintenance beside work, without any grace, and operations that die at every step.

`benchmarks/maintenance.py` does the same for as long as it is told to.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from modhub.store.gc import gc
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.maintenance_world import work_beside_gc

KEY = RepositoryKey.model("lab/net")


def test_no_collection_beside_writers_destroys_anything(tmp_path: Path) -> None:
    work = work_beside_gc(tmp_path, seconds=1.0, writers=2, kills=1, seed=11)
    assert work.problems == ()
    assert work.promised > 5
    assert work.collections > 2


def test_a_crash_at_any_step_loses_nothing(tmp_path: Path) -> None:
    names = ["commit", "move", "gc"]
    # A process dies, not the machine: what the disk has got does not matter, and memory is faster.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path) as folder:
        done = crashes(folder, names)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: problems for name, (_, problems) in found.items()} == {name: [] for name in names}
    assert all(steps > 5 for steps, _ in found.values())


def crashes(folder: str, names: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    command = [sys.executable, "-m", "tests.support.crashes", folder, *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_what_a_writer_at_work_holds_is_spared_and_then_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.repositories.create(KEY)
    with store.blobs.writing():
        with store.uploads.writer() as writer:
            writer.write(b"not named yet")
            blob = writer.finish()
        assert gc(Store(tmp_path), grace=0).blobs == 0
        assert store.blobs.size(blob.sha256) == 13
    store.commits.create(KEY, [Add("a", b"1")], title="t")
    assert gc(store, grace=0).blobs == 1
    assert store.blobs.size(blob.sha256) is None


def test_an_acknowledged_upload_waits_a_day_whatever_the_grace(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.repositories.create(KEY)
    with store.uploads.writer() as writer:
        writer.write(b"sent")
        blob = writer.finish()
        store.uploads.add(KEY, blob)
    folder = tmp_path / "staging" / "multipart-a"
    folder.mkdir(parents=True)
    with store.uploads.writer() as writer:
        writer.write(b"part")
        part = writer.finish()
    (folder / "1.part").write_text(part.sha256)
    done = gc(store, grace=0)
    assert (done.blobs, done.uploads) == (0, 0)
    assert [store.blobs.size(one.sha256) for one in (blob, part)] == [4, 4]
    assert (folder / "1.part").exists()
