"""Operations of a store that die at every step: the process ends before each change of the disk in turn.

`python -m tests.support.crashes FOLDER OPERATION…` prints the steps and the problems of each as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from modhub.refs import RepositoryId
from modhub.store.changes import Add, Link
from modhub.store.fsck import fsck
from modhub.store.gc import gc
from modhub.store.leases import is_lease
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

KEY, OTHER = RepositoryKey.model("lab/net"), RepositoryKey.model("lab/other")
STEPS = ("fsync", "replace", "rename", "unlink", "utime", "write")


def _upload(store: Store) -> None:
    with store.uploads.writer(size=6) as writer:
        writer.write(b"\0large")
        store.uploads.add(KEY, blob := writer.finish())
    store.commits.create(KEY, [Link("large", blob.sha256, 6)], title="t")


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.repositories.create(RepositoryKey.model("lab/new"), files={"a": b"1"}),
    "commit": lambda store: store.commits.create(KEY, [Add("a", b"new"), Add("b", b"new")], title="t"),
    "upload": _upload,
    "release": lambda store: store.tags.create(KEY, "v2.0.0"),
    "remove release": lambda store: store.releases.remove(KEY, "1.0.0"),
    "squash": lambda store: store.commits.squash(KEY, title="t"),
    "merge": lambda store: store.pull_requests.merge(KEY, 1),
    "delete": lambda store: store.repositories.delete(OTHER),
    "move": lambda store: store.repositories.move(OTHER, RepositoryId("lab", "away")),
    "gc": lambda store: gc(store, grace=0),
    "repair": lambda store: fsck(store, repair=True),
}


def crash_everywhere(folder: Path, name: str) -> tuple[int, list[str]]:
    """How many steps the operation has, and what was lost or could not be repaired after a crash at one."""
    origin = folder / "origin"
    problems: list[str] = []
    _prepare(origin)
    promised = _contents(Store(origin))
    step = 0
    while True:
        step += 1
        root = folder / f"{step}"
        shutil.copytree(origin, root)
        finished = _crashed(root, OPERATIONS[name], step)
        problems += [f"step {step}: {problem}" for problem in _problems(root, name, promised)]
        shutil.rmtree(root)
        if finished:
            return step - 1, problems


def _prepare(root: Path) -> None:
    store = Store(root)
    for key in (KEY, OTHER):
        store.repositories.create(key)
        for content in (b"one", b"two"):
            store.commits.create(key, [Add("modhub.json", content), Add("a", content * 3)], title="t")
        store.tags.create(key, "v1.0.0")
        store.commits.create(key, [Add("a", b"main")], title="t")
    pulls = store.pull_requests
    pulls.propose(KEY, [Add("p", b"proposed")], title="p")
    # Garbage for the collection: a repository that was deleted, and a squashed branch.
    gone = RepositoryKey.model("lab/gone")
    store.repositories.create(gone)
    store.commits.create(gone, [Add("a", b"gone"), Add("b", b"gone too")], title="t")
    store.repositories.delete(gone)
    store.branches.create(OTHER, "side")
    store.commits.create(OTHER, [Add("a", b"side")], title="t", ref="side")
    store.commits.squash(OTHER, "side", title="t")
    store.close()


def _contents(store: Store) -> dict[tuple[str, str, str], bytes]:
    """The bytes of every file of main and of the release of both repositories."""
    return {
        (str(key), revision, path): store.reader.read(key, revision, path)
        for key in (KEY, OTHER)
        for revision in ("main", "v1.0.0")
        for path in store.reader.tree(key, revision)
    }


def _crashed(root: Path, operation: Callable[[Store], object], step: int) -> bool:
    """Run the operation in a process of its own, which ends before its change number `step` of the disk."""
    process = os.fork()
    if process == 0:
        left = [step]

        def counted(change: Callable[..., object]) -> Callable[..., object]:
            def run(*given: object, **named: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return change(*given, **named)

            return run

        # The process dies, not the machine: nothing need reach the disk.
        os.fsync = lambda handle: None  # type: ignore[assignment]
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            operation(Store(root))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), code
    return code == 0


def _problems(root: Path, name: str, promised: dict[tuple[str, str, str], bytes]) -> list[str]:
    store, problems = Store(root), []
    gc(store, grace=0)
    for (repository, revision, path), content in promised.items():
        key = RepositoryKey.model(repository)
        if name == "delete" and not store.repositories.exists(key):
            continue
        if name == "move" and not store.repositories.exists(key):
            key = RepositoryKey.model("lab/away")
        if name == "remove release" and key == KEY and revision == "v1.0.0":
            continue
        try:
            read = store.reader.read(key, revision, path)
        except Exception as error:
            problems.append(f"{repository} {revision} {path}: {error}")
            continue
        if read != content and not (name in ("commit", "upload") and read == b"new"):
            problems.append(f"{repository} {revision} {path} has other bytes")
    # A search settles the marks of dead writers.
    store.index.search()
    # The manifests are made up; whatever else fsck finds is damage.
    problems += [
        f"fsck: {finding}" for finding in fsck(store).findings if "not valid JSON" not in finding.problem
    ]
    fsck(store, repair=True)
    left = (*root.rglob("*.part*"), *(root / "staging").iterdir())
    # A writer that died before it could be seen at work is forgotten after a minute.
    problems += [f"left: {path}" for path in left if not is_lease(path)]
    store.close()
    return problems


if __name__ == "__main__":
    os.fsync = lambda handle: None  # type: ignore[assignment]
    found = {name: crash_everywhere(Path(sys.argv[1], name), name) for name in sys.argv[2:]}
    sys.stdout.write(json.dumps(found))
