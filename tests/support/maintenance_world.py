"""Writers, garbage collection, squashes and deletions on one store, by real processes that may be killed.

`python -m tests.support.maintenance_world ROOT ROLE SEED` is one of the processes. It works until its input
ends, and says what it was promised: path and number of the content in a repository of its own.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modhub.errors import ConflictError, NotFoundError
from modhub.store.changes import Add, Link
from modhub.store.fsck import fsck
from modhub.store.gc import gc
from modhub.store.leases import is_lease
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

SHARED = RepositoryKey.model("all/shared")


@dataclass(frozen=True)
class Work:
    """What happened: commits promised, collections run, kills, and what went wrong."""

    promised: int
    collections: int
    kills: int
    problems: tuple[str, ...]


def work_beside_gc(root: Path, *, seconds: float, writers: int, kills: int, seed: int) -> Work:
    """Let `writers` and two collectors without grace work at once; kill `kills` of the writers."""
    Store(root).repositories.create(SHARED)
    generator = random.Random(seed)
    roles = ["write"] * (writers + kills) + ["collect"] * 2
    processes = [_start(root, role, seed + number) for number, role in enumerate(roles)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for number in range(kills):
        time.sleep(seconds * generator.uniform(0.2, 0.8) / max(kills, 1))
        os.kill(processes[writers + number].pid, signal.SIGKILL)
    time.sleep(seconds / 2)
    problems, promises = [], []
    for number, (process, role) in enumerate(zip(processes, roles, strict=True)):
        told, complaints = process.communicate(timeout=120)
        killed = role == "write" and number >= writers
        if process.returncode != 0 and not killed:
            problems.append(f"{role} {number} failed: {complaints.strip().splitlines()[-1:]}")
        lines = told.splitlines(keepends=True)
        promises.append([line.split() for line in lines if line.endswith("\n") and " " in line])
    store = Store(root)
    for number, role in enumerate(roles):
        if role == "write":
            problems += _kept(store, _own(seed + number), promises[number])
    # A search settles the marks of dead writers.
    store.index.search()
    problems += [f"fsck: {finding}" for finding in fsck(store).findings]
    fsck(store, repair=True)
    problems += [f"left: {path}" for path in root.rglob("*.part*")]
    problems += [f"left: {path}" for path in (root / "staging").iterdir() if not is_lease(path)]
    return Work(
        promised=sum(len(said) for said, role in zip(promises, roles, strict=True) if role == "write"),
        collections=sum(len(said) for said, role in zip(promises, roles, strict=True) if role != "write"),
        kills=kills,
        problems=tuple(problems),
    )


def _kept(store: Store, key: RepositoryKey, promises: list[list[str]]) -> list[str]:
    """What is missing of what a writer was promised; the last promise for a path counts, or a later one."""
    problems = []
    for path, number in {path: int(number) for path, number in promises}.items():
        try:
            content = store.reader.read(key, "main", path)
        except Exception as error:
            problems.append(f"{key} {path}: {error}")
            continue
        if int(content.split(b" ")[0]) < number:
            problems.append(f"{key} {path} has {content[:10]!r}, and {number} was promised")
    return problems


def _own(seed: int) -> RepositoryKey:
    return RepositoryKey.model(f"w{seed}/own")


def _start(root: Path, role: str, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.maintenance_world", str(root), role, str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )


def _ended() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not sys.stdin.readline()


def _collect(store: Store) -> None:
    while not _ended():
        gc(store, grace=0)
        _say("collected 1")


def _write(store: Store, seed: int) -> None:
    generator, key = random.Random(seed), _own(seed)
    store.repositories.create(key)
    number = 0
    while not _ended():
        number += 1
        path = f"f{generator.randrange(4)}"
        content = f"{number} ".encode() + b"x" * generator.choice([1, 1000, 100_000])
        if generator.random() < 0.3:
            with store.uploads.writer(size=len(content)) as writer:
                writer.write(content)
                blob = writer.finish()
                store.uploads.add(key, blob)
            # Acknowledged: whatever is collected now, the commit that names it succeeds.
            time.sleep(generator.uniform(0, 0.02))
            store.commits.create(key, [Link(path, blob.sha256, len(content))], title="t")
        else:
            store.commits.create(key, [Add(path, content)], title="t")
        _say(f"{path} {number}")
        with suppress(ConflictError, NotFoundError):
            _work_on(store, key, content, seed, generator.randrange(9))


def _work_on(store: Store, key: RepositoryKey, content: bytes, seed: int, choice: int) -> None:
    other, third = (RepositoryKey.model(f"w{seed}/{name}") for name in ("other", "third"))
    acts: list[Callable[[], object]] = [
        lambda: store.commits.squash(key, title="one"),
        lambda: store.commits.create(SHARED, [Add(f"{seed}", content)], title="t"),
        lambda: store.branches.create(key, f"b{len(content)}"),
        lambda: store.repositories.create(other),
        lambda: store.repositories.delete(other),
        lambda: store.commits.copy_files(key, other, title="copy"),
        lambda: store.repositories.move(other, third.id),
        lambda: store.repositories.move(third, other.id),
        lambda: store.pull_requests.propose(key, [Add("p", content)], title="p"),
    ]
    acts[choice]()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    place, role, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    _say("ready")
    sys.stdin.readline()
    if role == "collect":
        _collect(Store(place))
    else:
        _write(Store(place), seed)
