import gc
import hashlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modhub.errors import (
    ConflictError,
    HubError,
    IntegrityError,
    NotFoundError,
    RefError,
    StaleParentError,
    StorageError,
)
from modhub.hub.directory import DirectoryHub
from modhub.integrity import git_oid
from modhub.refs import RepositoryId
from modhub.store.changes import Add, Copy, Delete, Link, Put
from modhub.store.fsck import fsck
from modhub.store.index import Query
from modhub.store.reader import Reader
from modhub.store.records import CommitRecord, RepositoryKey, Settings
from modhub.store.store import Store
from modhub.store.tree import Tree

KEY = RepositoryKey.model("Lab/net")
CARD = b"---\nlicense: mit\ntags: [modhub, 'class:cat']\n---\n# A net\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "hub")
    store.repositories.create(KEY, actor="ann")
    return store


def put(store: Store, files: dict[str, bytes], ref: str = "main", parent: str | None = None) -> str:
    changes = [Add(path, content) for path, content in files.items()]
    return store.commits.create(KEY, changes, title="t", actor="ann", ref=ref, parent=parent).id


def test_a_commit_is_a_whole_tree_and_never_changes(store: Store) -> None:
    first = put(store, {"a.txt": b"one", "b/c.bin": b"\0\1"})
    second = put(store, {"a.txt": b"two"})
    assert store.reader.read(KEY, first, "a.txt") == b"one"
    assert store.reader.read(KEY, "main", "a.txt") == b"two"
    assert list(store.reader.tree(KEY, second)) == ["a.txt", "b/c.bin"]
    assert [record.id for record in store.reader.history(KEY)][:2] == [second, first]
    text, binary = store.reader.file(KEY, first, "a.txt"), store.reader.file(KEY, first, "b/c.bin")
    assert (text.lfs, binary.lfs) == (False, True)
    assert text.git_oid == hashlib.sha1(b"blob 3\0one").hexdigest() == git_oid(b"one")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{binary.sha256}\nsize 2\n".encode()
    assert binary.git_oid == git_oid(pointer)
    assert binary.pointer_size == len(pointer)


def test_equal_bytes_are_stored_once(store: Store) -> None:
    other = RepositoryKey.model("lab/other")
    store.repositories.create(other)
    before = len(list(store.blobs.all()))
    for key in (KEY, other):
        store.commits.create(key, [Add("trunk.bin", b"\0" * 5000)], title="t")
    # The bytes once, and the one list of files they both have.
    assert len(list(store.blobs.all())) == before + 2


def test_copy_delete_link_and_put(store: Store) -> None:
    put(store, {"a/1": b"1", "a/2": b"2", "b": b"3"})
    with store.uploads.writer(size=3) as writer:
        writer.write(b"abc")
        blob = writer.finish(sha256=hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(IntegrityError, match=r"The contents of 'l' .* were never sent"):
        store.commits.create(KEY, [Link("l", blob.sha256)], title="t")
    store.uploads.add(KEY, blob)
    store.commits.create(
        KEY,
        [Copy("c", "a"), Copy("d", "b"), Delete("a"), Link("l", blob.sha256, 3, lfs=True), Put("p", blob)],
        title="t",
    )
    tree = store.reader.tree(KEY)
    assert {path: store.reader.read(KEY, "main", path) for path in tree} == {
        "b": b"3",
        "c/1": b"1",
        "c/2": b"2",
        "d": b"3",
        "l": b"abc",
        "p": b"abc",
    }
    assert (tree["l"].lfs, tree["p"].lfs) == (True, False)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (Delete("x"), NotFoundError, "There is no 'x' to delete."),
        (Copy("y", "x"), NotFoundError, "There is no 'x' in 'Lab/net' to copy."),
        (Add("A.TXT", b""), IntegrityError, "'a.txt' and 'A.TXT' differ only in case."),
        (
            Add("a.txt/b", b""),
            IntegrityError,
            "'a.txt' would be a file and, because of 'a.txt/b', a folder.",
        ),
        (
            Add("../x", b""),
            IntegrityError,
            "Invalid path '../x': it has an empty, '.' or '..' part.",
        ),
    ],
)
def test_a_commit_that_makes_no_sense_changes_nothing(
    store: Store, change: Add | Copy | Delete, kind: type[Exception], message: str
) -> None:
    head = put(store, {"a.txt": b"1"})
    with pytest.raises(kind) as caught:
        store.commits.create(KEY, [Add("fine", b"fine"), change], title="t")
    assert getattr(caught.value, "message", "") == message
    assert store.reader.resolve(KEY) == head


def test_a_stale_parent_is_refused(store: Store) -> None:
    first = put(store, {"a": b"1"})
    put(store, {"a": b"2"}, parent=first)
    with pytest.raises(StaleParentError, match="The branch 'main' of 'Lab/net' has moved on"):
        put(store, {"a": b"3"}, parent=first)


def test_references(store: Store) -> None:
    first = put(store, {"a": b"1"})
    assert store.tags.create(KEY, "v1.0.0") == first
    store.branches.create(KEY, "dev", revision="v1.0.0")
    second = put(store, {"a": b"2"}, ref="dev")
    assert store.reader.refs(KEY) == {
        "refs/heads/main": first,
        "refs/tags/v1.0.0": first,
        "refs/heads/dev": second,
    }
    for name in ("dev", "refs/heads/dev", second):
        assert store.reader.resolve(KEY, name) == second
    assert store.reader.resolve(KEY, "HEAD") == first
    with pytest.raises(ConflictError, match=r"Reference refs/tags/v1\.0\.0 already exists"):
        store.tags.create(KEY, "v1.0.0", revision="dev")
    with pytest.raises(ConflictError, match="'main' cannot be deleted"):
        store.branches.delete(KEY, "main")
    store.branches.delete(KEY, "dev")
    for missing in ("dev", "refs/heads/dev", "f" * 40, "refs/tags/x"):
        with pytest.raises(NotFoundError, match="There is no revision") as caught:
            store.reader.resolve(KEY, missing)
        assert caught.value.missing == "revision"
    with pytest.raises(RefError):
        put(store, {"a": b"3"}, ref="refs/tags/v1.0.0")


def test_squash_keeps_files_and_tags(store: Store) -> None:
    put(store, {"a": b"1"})
    store.tags.create(KEY, "v1")
    head = put(store, {"b": b"2"})
    squashed = store.commits.squash(KEY, title="one")
    assert [record.id for record in store.reader.history(KEY)] == [squashed.id]
    assert dict(store.reader.tree(KEY)) == dict(store.reader.tree(KEY, head))
    assert list(store.reader.tree(KEY, "v1")) == ["a"]


def test_listing_has_folders(store: Store) -> None:
    put(store, {"a/b/c": b"1", "a/d": b"2", "e": b"3"})
    tree = store.reader.tree(KEY)
    assert list(tree.listing()) == ["a", "e"]
    assert list(tree.listing("a")) == ["a/b", "a/d"]
    assert list(tree.listing(recursive=True)) == ["a", "a/b", "a/b/c", "a/d", "e"]
    assert tree.listing("nothing") == {}


def test_case_move_and_delete(store: Store) -> None:
    head = put(store, {"README.md": CARD})
    with pytest.raises(ConflictError, match="A model repository called 'LAB/Net' exists already"):
        store.repositories.create(RepositoryKey.model("LAB/Net"))
    moved = store.repositories.move(KEY, RepositoryId("New", "Home"))
    assert not store.repositories.exists(KEY)
    assert store.repositories.moved_to(RepositoryKey.model("lab/NET")) == RepositoryId("New", "Home")
    assert store.reader.resolve(moved.key) == head
    assert store.repositories.get(RepositoryKey.model("new/home")).id == RepositoryId("New", "Home")
    assert [entry.id for entry in store.index.search()] == [RepositoryId("New", "Home")]
    store.repositories.create(KEY)
    assert store.repositories.moved_to(KEY) is None
    with pytest.raises(NotFoundError):
        store.reader.resolve(KEY, head)
    store.repositories.delete(moved.key)
    with pytest.raises(NotFoundError) as caught:
        store.reader.resolve(moved.key)
    assert caught.value.missing == "repository"


def test_a_hub_in_a_folder_follows_every_move(store: Store) -> None:
    head, key = put(store, {"README.md": CARD}), KEY
    for name in ("first", "second"):
        key = store.repositories.move(key, RepositoryId("lab", name)).key
    hub = DirectoryHub(store.root)
    assert [hub.refs(RepositoryId("lab", one)).branches["main"] for one in ("net", "first")] == [
        head,
        head,
    ]


def test_a_recreated_repository_shows_nothing_of_the_old_one(store: Store) -> None:
    head = put(store, {"secret": b"1"})
    store.repositories.delete(KEY)
    store.repositories.create(KEY)
    with pytest.raises(NotFoundError):
        store.reader.tree(KEY, head)


def test_search(store: Store) -> None:
    put(store, {"README.md": CARD})
    secret = RepositoryKey.model("other/secret")
    store.repositories.create(secret, settings=Settings(private=True, gated="manual", readers=("bob",)))
    store.commits.create(secret, [Add("README.md", CARD.replace(b"cat", b"dog"))], title="t")
    names = lambda **query: [str(entry.id) for entry in store.index.search(Query(**query), sort="name")]  # noqa: E731
    assert names() == ["Lab/net", "other/secret"]
    assert names(visible=()) == ["Lab/net"]
    assert names(visible={"other"}) == ["Lab/net", "other/secret"]
    assert names(tags=["class:CAT", "license:mit"]) == ["Lab/net"]
    assert names(text="SEC other") == ["other/secret"]
    assert names(text="%") == []
    assert names(author="LAB") == ["Lab/net"]
    assert names(gated=True) == ["other/secret"]
    assert names(kind="dataset") == []
    assert store.index.facets("class:") == [("cat", 1), ("dog", 1)]
    assert store.index.facets("class:", Query(visible=())) == [("cat", 1)]
    assert store.index.count() == 2
    store.repositories.count_download(secret)
    assert store.repositories.count_download(secret) == 2
    assert [entry.downloads for entry in store.index.search(sort="downloads")] == [2, 0]
    with pytest.raises(HubError, match="Unknown sort order 'likes'"):
        store.index.search(sort="likes")


def test_the_index_is_made_anew_from_the_files(store: Store) -> None:
    put(store, {"README.md": CARD})
    path = store.root / "index.sqlite"
    wanted = store.index.search()
    store.close()
    for damage in (b"not a database at all" * 100, None):
        for left in store.root.glob("index.sqlite*"):
            left.unlink()
        if damage:
            path.write_bytes(damage)
        assert Store(store.root).index.search() == wanted
    # A writer that died between its commit and the index leaves a mark, and the next search catches up.
    late = Store(store.root)
    late.index.mark(KEY)
    state = late.references.state(KEY)
    with late.references.locked(KEY):
        late.commits.append(
            KEY, state, "refs/heads/main", (late.reader.resolve(KEY),), late.reader.tree(KEY), title="t"
        )
    assert late.index.search()[0].head == late.reader.resolve(KEY)
    assert late.index.refresh() == 0


@pytest.mark.parametrize(
    "card",
    [
        b"---\n" + b"[" * 100_000 + b"\n---\n",
        b"---\na: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n",
        b"---\ntags: {a: 1}\n---\n",
        b"---\n!!python/object/apply:os.system [echo]\n---\n",
        b"\xff\xfe\x00---",
        b"---\ntags: [\n---\n",
    ],
)
def test_a_hostile_card_is_indexed_as_having_no_tags(store: Store, card: bytes) -> None:
    put(store, {"README.md": card})
    assert store.index.search()[0].tags == ()


def test_an_upload_is_checked_before_it_is_visible(store: Store) -> None:
    before = sorted(store.blobs.all())
    with (
        pytest.raises(IntegrityError, match="The upload is larger than the announced 2"),
        store.uploads.writer(size=2) as writer,
    ):
        writer.write(b"abc")
    with store.uploads.writer(size=3) as writer:
        writer.write(b"ab")
        with pytest.raises(IntegrityError, match="The upload has 2 bytes, expected 3"):
            writer.finish()
    with store.uploads.writer() as writer:
        writer.write(b"abc")
        with pytest.raises(IntegrityError, match="has the sha256"):
            writer.finish(sha256="0" * 64)
    assert sorted(store.blobs.all()) == before
    assert list((store.root / "staging").iterdir()) == []


def test_an_upload_belongs_to_the_repository_it_was_sent_to(store: Store) -> None:
    other = RepositoryKey.model("lab/other")
    store.repositories.create(other, settings=Settings(private=True))
    record = store.commits.create(other, [Add("secret.bin", b"\0secret")], title="t")
    sha256 = store.reader.file(other, record.id, "secret.bin").sha256
    with pytest.raises(IntegrityError, match="were never sent"):
        store.commits.create(KEY, [Link("mine", sha256)], title="t")
    assert store.uploads.find(KEY, sha256) is None
    assert store.uploads.find(other, sha256) is not None


def test_pull_requests(store: Store) -> None:
    pulls = store.pull_requests
    put(store, {"a": b"1", "b": b"1"})
    one, _two = (pulls.open(KEY, title=f"p{n}", actor="bob") for n in (1, 2))
    put(store, {"a": b"2", "c": b"new"}, ref=one.ref)
    put(store, {"a": b"3"}, ref="refs/pr/2")
    merged = pulls.merge(KEY, 1, actor="ann")
    assert merged.title == "p1 (#1)"
    assert {path: store.reader.read(KEY, "main", path) for path in store.reader.tree(KEY)} == {
        "a": b"2",
        "b": b"1",
        "c": b"new",
    }
    assert pulls.get(KEY, 1).status == "merged"
    assert pulls.conflicts(KEY, 2) == ["a"]
    with pytest.raises(
        ConflictError, match="Pull request 2 of 'Lab/net' and 'main' changed the same files: a"
    ):
        pulls.merge(KEY, 2)
    assert pulls.change_status(KEY, 2, "closed", actor="ann").events[-1]["content"] == "closed"
    with pytest.raises(ConflictError, match="Pull request 2 of 'Lab/net' is closed"):
        pulls.merge(KEY, 2)
    assert [pull.number for pull in pulls.all(KEY)] == [1, 2]
    assert pulls.comment(KEY, 2, "hm", actor="eve").events[-1]["type"] == "comment"
    with pytest.raises(NotFoundError, match="no pull request 9"):
        pulls.get(KEY, 9)


def test_copy_files_takes_everything(store: Store) -> None:
    put(store, {"a": b"1", "b/c": b"\0"})
    other = RepositoryKey.model("lab/copy")
    store.repositories.create(other)
    store.commits.copy_files(KEY, other, title="copy")
    assert dict(store.reader.tree(other)) == dict(store.reader.tree(KEY))


def test_the_audit_log_names_every_change_and_survives_a_torn_line(store: Store) -> None:
    put(store, {"a": b"1"})
    (path,) = (store.root / "audit").iterdir()
    with path.open("ab") as stream:
        stream.write(b'{"torn')
    store.tags.create(KEY, "v1", actor="ann")
    actions = [(entry["action"], entry["subject"], entry["actor"]) for entry in store.audit.entries()]
    assert actions == [
        ("create-repository", "model/Lab/net", "ann"),
        ("commit", "model/Lab/net", "ann"),
        ("create-ref", "model/Lab/net", "ann"),
    ]
    assert len(path.read_bytes().splitlines()) == 4
    assert json.loads(path.read_bytes().splitlines()[-1])["ref"] == "refs/tags/v1"


def test_a_disk_that_refuses_is_a_clear_error_and_nothing_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = put(store, {"a": b"1"})
    real, calls, refused = os.fsync, [0], []

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] == fail_at:
            raise OSError(28, "No space left on device")
        real(handle)

    for fail_at in range(1, 12):
        calls[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                put(store, {"a": b"%d" % fail_at, "b": b"x%d" % fail_at})
            except StorageError as error:
                refused.append(error.message)
        # The reference either moved whole or not at all.
        assert store.reader.read(KEY, "main", "a") in (b"%d" % fail_at, store.reader.read(KEY, head, "a"))
        head = store.reader.resolve(KEY)
    assert len(refused) >= 8
    assert all(message.endswith(": No space left on device.") for message in refused)
    assert [
        path for path in store.root.rglob("*") if path.suffix == ".part" or path.parent.name == "staging"
    ] == []
    put(store, {"a": b"last"})
    assert store.reader.read(KEY, "main", "a") == b"last"


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be used"):
        Store(tmp_path / "file" / "hub")


def test_many_blobs_are_looked_for_in_one_reading_of_the_references(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        store.tags.create(KEY, f"v{number}", revision=put(store, {"a": b"\0%d" % number}))
    digests = [hashlib.sha256(b"\0%d" % number).hexdigest() for number in range(10)]
    read, real = [], Reader.tree_of

    def counted(self: Reader, record: CommitRecord) -> Tree:
        read.append(record.id)
        return real(self, record)

    monkeypatch.setattr(Reader, "tree_of", counted)
    found = store.uploads.find_all(KEY, [*digests, "no digest"])
    assert {digest: file.sha256 for digest, file in found.items()} == {one: one for one in digests[:5]}
    assert len(read) == len(set(read)) == 5
    read.clear()
    changes = [Link(f"l{number}", digests[number], 2) for number in range(5)]
    store.commits.create(KEY, changes, title="t", actor="ann")
    assert len(read) < 12


def test_a_store_that_nobody_holds_any_more_leaves_no_connection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People make a hub, ask it and let it go: `close` is for those who cannot wait."""
    opened, connect = [], sqlite3.connect

    def counted(*given: Any, **named: Any) -> sqlite3.Connection:
        opened.append(connect(*given, **named))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", counted)
    hub = DirectoryHub(tmp_path / "hub", create=True)
    assert hub.find(["class:cat"]) == []
    assert len(opened) == 1
    del hub
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")


def test_an_index_that_no_disk_takes_is_held_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    for left in store.root.glob("index.sqlite*"):
        left.unlink()
    # What a read-only disk does, root or not.
    (store.root / "index.sqlite").mkdir()
    for left in (store.root / "locks").rglob("*.lock"):
        left.unlink()
        left.mkdir()
    assert [entry.id for entry in store.index.search()] == [KEY.id]
    assert fsck(store).findings == ()
    with pytest.raises(StorageError, match="cannot be used"):
        put(store, {"a": b"1"})
    # Somebody else writes there; this one looks again after a while.
    shutil.rmtree(store.root / "repositories" / KEY.path)
    assert [entry.id for entry in store.index.search()] == [KEY.id]
    monkeypatch.setattr("modhub.store.index.MEMORY_SECONDS", 0.0)
    assert store.index.search() == []
    store.close()


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o022, 0o755, 0o444), (0o077, 0o700, 0o400)])
def test_files_are_readable_for_those_whom_the_umask_allows(
    tmp_path: Path, mask: int, folder: int, file: int
) -> None:
    before = os.umask(mask)
    try:
        store = Store(tmp_path / "hub")
        store.repositories.create(KEY)
        put(store, {"a": b"1"})
    finally:
        os.umask(before)
    blob = store.blobs.path(store.reader.file(KEY, "main", "a").sha256)
    assert blob is not None
    assert blob.stat().st_mode & 0o777 == file
    place = store.root / "repositories" / KEY.path
    assert [path.stat().st_mode & 0o777 for path in (place, place / "commits", blob.parent)] == [folder] * 3
    assert (place / "refs.json").stat().st_mode & 0o077 == 0o044 & ~mask
