"""Releases do not move: no route of the store deletes, moves, hides or repeats one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from modhub.errors import ConflictError, NotFoundError, ReleaseError
from modhub.refs import RepositoryId, version_named
from modhub.store.changes import Add, Delete
from modhub.store.fsck import fsck
from modhub.store.gc import DAY, gc
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

KEY = RepositoryKey.model("Lab/net")


def put(store: Store, content: str, key: RepositoryKey = KEY, ref: str = "main") -> str:
    """A commit that could be released: its manifest is no good, but it has one."""
    files = [Add("modhub.json", content.encode()), Add("weights", content.encode() * 9)]
    return store.commits.create(key, files, title=content, ref=ref).id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "hub")
    store.repositories.create(KEY)
    store.tags.create(KEY, "v1.0.0", revision=put(store, "one"), actor="ann")
    return store


def aged(store: Store) -> None:
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 2 * DAY,) * 2)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("v1.0.0", "1"),
        ("v1", "1"),
        ("1.0", "1"),
        ("V1.0.0.0", "1"),
        ("v1.0.0+cpu", "1"),
        ("v1.0.0-1", "1.post1"),
        ("v1.0.0-rc.1", "1rc1"),
        ("v2", "2"),
        ("v1.0.0/x", None),
        ("main", None),
        ("version-1", None),
    ],
)
def test_which_version_a_name_spells(name: str, version: str | None) -> None:
    assert version_named(name) == version


def test_a_release_is_on_record(store: Store) -> None:
    commit = store.reader.resolve(KEY, "v1.0.0")
    (tag, release), *others = store.releases.all(KEY).items()
    assert others == []
    assert (tag, release.version, release.commit) == ("v1.0.0", "1", commit)
    assert release.manifest == store.reader.file(KEY, commit, "modhub.json").sha256
    path = store.root / "repositories" / KEY.path / "refs.json"
    assert json.loads(path.read_bytes())["releases"] == {"v1.0.0": release.to_dict()}


@pytest.mark.parametrize("name", ["v1.0", "v1", "1.0.0", "V1.0.0", "v1.0.0+x", "v1.0.0.0"])
@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_nothing_spells_the_version_of_a_release(store: Store, kind: str, name: str) -> None:
    refs = store.reader.refs(KEY)
    put(store, "two")
    with pytest.raises(ReleaseError) as caught:
        (store.tags if kind == "tag" else store.branches).create(KEY, name)
    assert caught.value.message == (
        f"'{name}' spells the same version as release v1.0.0 of 'Lab/net', which does not change."
    )
    assert (caught.value.repository, caught.value.release) == ("Lab/net", "v1.0.0")
    assert store.reader.refs(KEY).keys() == refs.keys()


def test_no_branch_hides_a_release(store: Store) -> None:
    with pytest.raises(ReleaseError):
        store.branches.create(KEY, "v1.0.0")
    # A store from before that was refused may have one.
    state = store.references.state(KEY)
    path = store.root / "repositories" / KEY.path / "refs.json"
    document = json.loads(path.read_bytes())
    document["refs"]["refs/heads/v1.0.0"] = put(store, "other")
    del document["releases"]
    path.write_text(json.dumps(document))
    assert store.reader.resolve(KEY, "v1.0.0") == state.refs["refs/tags/v1.0.0"]


def test_a_release_is_not_deleted_and_other_names_are_free(store: Store) -> None:
    with pytest.raises(ReleaseError) as caught:
        store.tags.delete(KEY, "v1.0.0")
    assert str(caught.value) == (
        "'v1.0.0' of 'Lab/net' is a release, and releases are not deleted. "
        "Yank it: modhub yank Lab/net==1.0.0"
    )
    for name in ("latest", "v1.0.0-notes", "experiment/v1"):
        for kind in (store.tags, store.branches):
            kind.create(KEY, name)
            kind.delete(KEY, name)
    # Without a manifest, a version is a name like any other.
    plain = RepositoryKey.model("lab/plain")
    store.repositories.create(plain)
    for name in ("v1.0.0", "v1"):
        store.tags.create(plain, name)
        store.branches.create(plain, name)
        store.tags.delete(plain, name)
    assert store.releases.all(plain) == {}


def test_a_release_is_not_published_over_another_name_of_its_version(store: Store) -> None:
    store.branches.create(KEY, "v2.0")
    with pytest.raises(ReleaseError, match=r"would have the same version as the branch 'v2\.0'"):
        store.tags.create(KEY, "v2.0.0")
    store.branches.delete(KEY, "v2.0")
    store.tags.create(KEY, "v2.0.0")


def test_squash_and_gc_keep_the_bytes_of_a_release(store: Store) -> None:
    store.commits.create(KEY, [Delete("weights"), Add("modhub.json", b"none")], title="t")
    store.commits.squash(KEY, title="one")
    aged(store)
    gc(store, grace=0)
    assert store.reader.read(KEY, "v1.0.0", "weights") == b"one" * 9
    assert fsck(store).clean is False  # the manifest is no JSON
    assert [finding.place for finding in fsck(store).findings] == [
        "model lab/net, refs/heads/main",
        "model lab/net, refs/tags/v1.0.0",
    ]


def again(store: Store, content: str, name: str = "v1.0.0", key: RepositoryKey = KEY) -> None:
    store.repositories.create(key)
    store.tags.create(key, name, revision=put(store, content, key))


def test_a_deleted_repository_leaves_its_releases_on_record(store: Store) -> None:
    store.repositories.delete(KEY)
    aged(store)
    gc(store, grace=0)
    for content, name in (("two", "v1.0.0"), ("one", "v1.0"), ("two", "v1.0.0+x")):
        with pytest.raises(ReleaseError) as caught:
            again(store, content, name)
        assert caught.value.message == (
            f"Release v1.0.0 of 'Lab/net' was removed; only the same files may become '{name}'."
        )
        with pytest.raises(ReleaseError):
            store.branches.create(KEY, name)
        store.repositories.delete(KEY)
    again(store, "one")
    again(store, "two", "v1.0.1", RepositoryKey.model("lab/other"))


def test_a_renamed_repository_leaves_its_releases_on_record(store: Store) -> None:
    away = RepositoryId("lab", "away")
    store.repositories.move(KEY, away)
    with pytest.raises(ReleaseError, match=r"Release v1\.0\.0 of 'Lab/net' was removed"):
        again(store, "two")
    store.repositories.delete(KEY)
    # Another that takes the name by a move is told so, and the one it belongs to may come back.
    other = RepositoryKey.model("lab/other")
    again(store, "three", key=other)
    with pytest.raises(ReleaseError) as caught:
        store.repositories.move(other, KEY.id)
    assert (
        caught.value.message == "'Lab/net' had a release v1.0.0 with other files than v1.0.0 of 'lab/other'."
    )
    store.repositories.move(RepositoryKey.model(away), KEY.id)
    assert store.reader.read(KEY, "v1.0.0", "modhub.json") == b"one"


def test_an_administrator_removes_a_release_for_good(store: Store) -> None:
    record = store.releases.all(KEY)["v1.0.0"]
    with pytest.raises(NotFoundError):
        store.releases.remove(KEY, "2.0")
    assert store.releases.remove(KEY, "1.0", actor="root") == "v1.0.0"
    assert "refs/tags/v1.0.0" not in store.reader.refs(KEY)
    assert store.releases.all(KEY) == {}
    *_, entry = store.audit.entries()
    assert entry | {"date": ""} == {
        "date": "",
        "actor": "root",
        "action": "remove-release",
        "subject": "model/Lab/net",
        "ref": "refs/tags/v1.0.0",
        **record.to_dict(),
    }
    with pytest.raises(ReleaseError):
        store.tags.create(KEY, "v1.0.0", revision=put(store, "two"))
    # Not under another name either, once the repository has moved.
    moved = store.repositories.move(KEY, RepositoryId("lab", "away")).key
    with pytest.raises(ReleaseError):
        store.tags.create(moved, "v1")


def test_a_store_without_records_is_as_safe_and_gets_them(store: Store) -> None:
    path = store.root / "repositories" / KEY.path / "refs.json"
    document = json.loads(path.read_bytes())
    records = document.pop("releases")
    path.write_text(json.dumps(document))
    with pytest.raises(ReleaseError):
        store.tags.delete(KEY, "v1.0.0")
    with pytest.raises(ReleaseError):
        store.tags.create(KEY, "v1")
    store.tags.create(KEY, "latest")
    assert json.loads(path.read_bytes())["releases"] == records


def test_fsck_puts_a_moved_release_back_and_names_two_of_one_version(store: Store) -> None:
    path = store.root / "repositories" / KEY.path / "refs.json"
    document = json.loads(path.read_bytes())
    release = document["refs"]["refs/tags/v1.0.0"]
    document["refs"]["refs/tags/v1.0.0"] = other = put(store, "two")
    document["refs"]["refs/heads/main"] = other
    path.write_text(json.dumps(document))
    problem = f"it names {other[:12]}, and the release is {release[:12]}"
    assert problem in [finding.problem for finding in fsck(store).findings]
    assert "reset to the release" in [finding.repaired for finding in fsck(store, repair=True).findings]
    assert store.reader.resolve(KEY, "v1.0.0") == release
    del document["releases"]
    document["refs"]["refs/tags/v1"] = release
    path.write_text(json.dumps(document))
    assert "v1 and v1.0.0 are one version; remove one with: modhub release remove lab/net==1.0.0 --force" in [
        finding.problem for finding in fsck(store).findings
    ]


def test_the_tag_of_a_release_exists_already(store: Store) -> None:
    with pytest.raises(ConflictError, match=r"Reference refs/tags/v1\.0\.0 already exists"):
        store.tags.create(KEY, "v1.0.0", revision=put(store, "two"))
