"""The commit that last changed a path: from the table, however it was filled, as from the lists of files."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from modhub.store.changes import Add, Delete, StoreChange
from modhub.store.fsck import fsck
from modhub.store.gc import gc
from modhub.store.model import MAIN
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from modhub.store.tree import Tree

KEY = RepositoryKey.model("lab/net")
PATHS = ("a", "b", "d/x", "d/y", "d/e/z", "f/g/h")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "hub")
    store.repositories.create(KEY, files={"a": b"0", "d/x": b"0"})
    return store


def commit(store: Store, changes: list[StoreChange], ref: str = MAIN) -> str:
    return store.commits.create(KEY, changes, title="t", ref=ref).id


def rows(store: Store) -> int:
    with sqlite3.connect(store.root / "index.sqlite") as table:
        return int(table.execute("SELECT count(*) FROM changes").fetchone()[0])


def expected(store: Store, revision: str) -> dict[str, str]:
    """From the lists of files of all commits: the slow way."""
    history = list(store.reader.history(KEY, revision))
    present = store.reader.tree_of(history[0]).listing(recursive=True)
    changes: dict[str, str] = {}
    for record, before in zip(history, [*history[1:], None], strict=True):
        files = store.reader.tree_of(record).listing(recursive=True)
        former = store.reader.tree_of(before) if before is not None else Tree({})
        earlier = former.listing(recursive=True)
        for path in present:
            if files.get(path) != earlier.get(path):
                changes.setdefault(path, record.id)
    return changes


def answered(store: Store, revision: str) -> dict[str, str]:
    paths = [*store.reader.tree(KEY, revision).listing(recursive=True), "missing"]
    changes = store.last_changes.of(KEY, store.reader.resolve(KEY, revision), paths)
    return {path: record.id for path, record in changes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_the_table_answers_as_the_files_do(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    store.branches.create(KEY, "side", revision=MAIN)
    for number in range(40):
        ref = rng.choice((MAIN, MAIN, "side"))
        present = list(store.reader.tree(KEY, ref))
        chosen = rng.sample(PATHS, rng.randint(1, len(PATHS)))
        changes: list[StoreChange] = [
            Delete(path) if path in present and rng.random() < 0.3 else Add(path, b"%d" % rng.randint(0, 2))
            for path in chosen
        ]
        commit(store, changes, ref)
        if number % 13 == 12:
            assert answered(store, ref) == expected(store, ref)
    wanted = {ref: expected(store, ref) for ref in (MAIN, "side")}
    assert rows(store) == 41
    assert {ref: answered(store, ref) for ref in wanted} == wanted
    # Lost, as in a store from before the table was: filled on the first use, or by fsck.
    store.last_changes.forget(KEY)
    assert {ref: answered(store, ref) for ref in wanted} == wanted
    assert rows(store) == 41
    store.last_changes.forget(KEY)
    assert fsck(store).clean
    assert rows(store) == 41
    # And what is new goes on from what was there.
    commit(store, [Add("a", b"new")])
    assert rows(store) == 42
    assert answered(store, MAIN) == expected(store, MAIN)


def test_rows_go_with_their_commits(store: Store) -> None:
    commit(store, [Add("a", b"1")])
    commit(store, [Add("a", b"2")])
    assert rows(store) == 3
    head = store.commits.squash(KEY, title="one")
    gc(store, grace=0)
    assert rows(store) == 1
    assert set(answered(store, MAIN).values()) == {head.id}
    store.repositories.delete(KEY)
    assert rows(store) == 0


def test_what_a_question_reads_does_not_grow_with_the_history(store: Store) -> None:
    commit(store, [Add(f"files/{number}", b"0") for number in range(40)])
    for number in range(60):
        commit(store, [Add(f"files/{index}", b"%d" % (number + 1)) for index in range(12)])
    with sqlite3.connect(store.root / "index.sqlite") as table:
        (complete,) = table.execute("SELECT count(*) FROM changes WHERE complete").fetchone()
        (size,) = table.execute("SELECT sum(length(paths)) FROM changes").fetchone()
    # One in four: four times 12 are more than the 42 files and folders.
    assert complete > 60 // 4
    assert size < 60 * 400
    assert answered(store, MAIN) == expected(store, MAIN)
