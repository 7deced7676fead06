import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modhub.errors import ConflictError, IntegrityError, NotFoundError
from modhub.refs import RepositoryId
from modhub.reporter import Reporter
from modhub.store.fsck import Report, fsck
from modhub.store.gc import DAY, gc
from modhub.store.index import Query
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store

KEY = RepositoryKey.model("lab/net")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "hub")
    store.repositories.create(KEY)
    for number in range(3):
        store.commits.create(
            KEY, [Add("a", b"%d" % number), Add("big", b"\0%d" % number * 500)], title=f"{number}"
        )
    store.tags.create(KEY, "v1", revision=list(store.reader.history(KEY))[1].id)
    return store


def age(store: Store, seconds: float) -> None:
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


def blob(store: Store, revision: str, path: str) -> Path:
    found = store.blobs.path(store.reader.file(KEY, revision, path).sha256)
    assert found is not None
    return found


def test_gc_takes_what_nothing_names_and_nothing_else(store: Store) -> None:
    kept = store.reader.resolve(KEY, "v1")
    lost = list(store.reader.history(KEY))[2].id
    head = store.commits.squash(KEY, title="one").id
    with store.uploads.writer() as writer:
        writer.write(b"nobody noted me")
        forgotten = writer.finish()
    with store.uploads.writer() as writer:
        writer.write(b"noted")
        noted = writer.finish()
    store.uploads.add(KEY, noted)
    (store.root / "staging" / "blob-left").write_bytes(b"x" * 10)
    before = sorted(store.blobs.all())
    assert gc(store).blobs == 0
    age(store, 2 * DAY)
    store.uploads.add(KEY, noted)
    planned = gc(store, dry_run=True)
    assert sorted(store.blobs.all()) == before
    done = gc(store)
    assert (done.blobs, done.commits) == (planned.blobs, planned.commits)
    # The tag keeps its own commit and those before it, one of which is the lost branch's.
    assert store.reader.read(KEY, kept, "a") == b"1"
    assert store.reader.read(KEY, lost, "a") == b"0"
    assert store.reader.read(KEY, head, "a") == b"2"
    assert store.blobs.size(forgotten.sha256) is None
    assert store.blobs.size(noted.sha256) == 5
    assert list((store.root / "staging").iterdir()) == []
    store.tags.delete(KEY, "v1")
    age(store, 2 * DAY)
    assert gc(store).commits == 3
    for gone in (kept, lost):
        with pytest.raises(NotFoundError):
            store.reader.resolve(KEY, gone)
    assert fsck(store).findings == ()


def test_gc_spares_what_a_writer_is_about_to_use_again(store: Store) -> None:
    path = blob(store, "main", "a")
    store.repositories.delete(KEY)
    age(store, 2 * DAY)
    with store.uploads.writer() as writer:
        writer.write(b"2")
        again = writer.finish()
    gc(store)
    assert path.exists()
    assert store.blobs.size(again.sha256) == 1


class Between(Reporter):
    """Does something of another process after the first repository is marked."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def track(self, items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            yield item
            if what == "mark" and number == 0:
                self.act()


def move(store: Store, name: str, to: str) -> None:
    store.repositories.move(RepositoryKey.model(name), RepositoryId.parse(to))


def moved_earlier(store: Store) -> None:
    move(store, "z/two", "a/two")


def moved_to_a_name_that_was_marked(store: Store) -> None:
    move(store, "m/one", "zz/one")
    move(store, "z/two", "m/one")


def moved_after_a_deletion(store: Store) -> None:
    store.repositories.delete(RepositoryKey.model("m/one"))
    move(store, "z/two", "m/one")


def moved_twice_and_copied(store: Store) -> None:
    move(store, "z/two", "a/two")
    move(store, "a/two", "b/two")
    store.repositories.create(RepositoryKey.model("a/copy"))
    store.commits.copy_files(RepositoryKey.model("b/two"), RepositoryKey.model("a/copy"), title="copy")


@pytest.mark.parametrize(
    "act", [moved_earlier, moved_to_a_name_that_was_marked, moved_after_a_deletion, moved_twice_and_copied]
)
def test_gc_loses_nothing_of_a_repository_that_moves_meanwhile(
    tmp_path: Path, act: Callable[[Store], None]
) -> None:
    store = Store(tmp_path)
    for name in ("m/one", "z/two"):
        key = RepositoryKey.model(name)
        store.repositories.create(key)
        store.commits.create(key, [Add("a", name.encode())], title="1")
        store.commits.create(key, [Add("a", name.encode() * 2)], title="2")
    with store.uploads.writer() as writer:
        writer.write(b"noted")
        noted = writer.finish()
    store.uploads.add(key, noted)
    age(store, 2 * DAY)
    store.uploads.add(key, noted)
    other = Store(tmp_path)
    gc(store, reporter=Between(lambda: act(other)))
    again = Store(tmp_path)
    assert fsck(again).findings == ()
    found = [one for one in again.repositories.all() if again.reader.read(one, "main", "a") == b"z/twoz/two"]
    assert found
    assert any(again.uploads.find(one, noted.sha256) for one in found)


def test_gc_refuses_a_damaged_store(store: Store) -> None:
    (store.root / "repositories" / KEY.path / "commits" / store.reader.resolve(KEY, "v1")).unlink()
    age(store, 2 * DAY)
    before = sorted(store.blobs.all())
    with pytest.raises(IntegrityError, match="is missing; no blob was removed"):
        gc(store)
    assert sorted(store.blobs.all()) == before


def test_fsck_of_a_sound_store_finds_nothing(store: Store) -> None:
    report = fsck(store)
    assert report.findings == ()
    assert (report.repositories, report.commits) == (1, 4)
    assert report.clean


def damage_flipped(store: Store) -> None:
    path = blob(store, "main", "big")
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def damage_truncated(store: Store) -> None:
    path = blob(store, "main", "big")
    path.chmod(0o644)
    path.write_bytes(b"")


def damage_missing_blob(store: Store) -> None:
    blob(store, "main", "big").unlink()


def damage_missing_tree(store: Store) -> None:
    path = store.blobs.path(store.reader.commit(KEY, store.reader.resolve(KEY)).tree)
    assert path is not None
    path.unlink()


def damage_missing_commit(store: Store) -> None:
    (store.root / "repositories" / KEY.path / "commits" / store.reader.resolve(KEY)).unlink()


def damage_commit(store: Store) -> None:
    path = store.root / "repositories" / KEY.path / "commits" / store.reader.resolve(KEY)
    path.write_bytes(path.read_bytes().replace(b'"title":"2"', b'"title":"3"'))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_missing_tree, "its list of files is missing or damaged"),
        (damage_missing_commit, "it is missing"),
        (damage_commit, "it is missing"),
    ],
)
def test_fsck_names_the_damage_and_goes_back_to_the_newest_commit_it_can_read(
    store: Store, damage: Callable[[Store], None], problem: str
) -> None:
    head = store.reader.resolve(KEY)
    before = list(store.reader.history(KEY))[1].id
    damage(store)
    found = fsck(Store(store.root))
    assert f"model lab/net, refs/heads/main: commit {head[:12]}: {problem}" in [
        str(one) for one in found.findings
    ]
    assert not found.clean
    assert Store(store.root).reader.refs(KEY)["refs/heads/main"] == head
    mended = fsck(Store(store.root), repair=True)
    assert f"commit {head[:12]}: {problem} (reset to {before[:12]})" in " ".join(map(str, mended.findings))
    again = Store(store.root)
    assert again.reader.resolve(KEY) == before
    assert again.reader.read(KEY, "main", "a") == b"1"
    # What was lost can be pushed again.
    again.commits.create(KEY, [Add("big", b"\x002" * 500)], title="again")
    assert again.reader.read(KEY, "main", "big") == b"\x002" * 500
    assert [one for one in fsck(again).findings if "refs/heads/main" in one.place] == []


def text_of(report: Report) -> list[str]:
    return [str(finding) for finding in report.findings]


@pytest.mark.parametrize(
    ("damage", "state", "removed"),
    [
        (damage_flipped, "damaged", True),
        (damage_truncated, "damaged", True),
        (damage_missing_blob, "missing", False),
    ],
)
@pytest.mark.parametrize("back", ["file", "push"])
def test_damaged_contents_move_no_reference_and_come_back(
    store: Store, damage: Callable[[Store], None], state: str, removed: bool, back: str
) -> None:
    store.tags.create(KEY, "v2")
    path = blob(store, "main", "big")
    good, refs = path.read_bytes(), store.reader.refs(KEY)
    damage(store)
    head = refs["refs/heads/main"]
    wrong = [
        f"model lab/net, {ref}: commit {head[:12]}: the contents of 'big' are {{}} (blob {path.name})"
        for ref in ("refs/heads/main", "refs/tags/v2")
    ]
    assert {text.format(state) for text in wrong} <= set(text_of(fsck(Store(store.root))))
    mended = fsck(Store(store.root), repair=True)
    assert not mended.clean
    assert {text.format("missing") for text in wrong} <= set(text_of(mended))
    assert (f"blob {path.name}: its bytes have another digest (removed)" in text_of(mended)) == removed
    again = fsck(Store(store.root), repair=True)
    assert text_of(again) == [text.format("missing") for text in wrong]
    assert not again.clean
    hub = Store(store.root)
    assert hub.reader.refs(KEY) == refs
    assert hub.reader.read(KEY, "v2", "a") == b"2"
    with pytest.raises(IntegrityError, match=f"The file contents {path.name} are missing from the store"):
        hub.reader.read(KEY, "v2", "big")
    with pytest.raises(ConflictError):
        hub.tags.create(KEY, "v2", revision="v1")
    age(hub, 2 * DAY)
    gc(hub)
    if back == "file":
        path.write_bytes(good)
    else:
        hub.commits.create(KEY, [Add("again", good)], title="the same bytes at another place")
    hub = Store(store.root)
    assert hub.reader.read(KEY, "v2", "big") == good
    assert fsck(hub, repair=True).findings == ()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_missing_tree, "its list of files is missing or damaged"),
        (damage_missing_commit, "it is missing"),
        (damage_commit, "it is missing"),
    ],
)
def test_a_tag_whose_commit_is_lost_stays_until_it_is_back(
    store: Store, damage: Callable[[Store], None], problem: str
) -> None:
    store.tags.create(KEY, "v2")
    head = store.reader.resolve(KEY)
    backup = store.root.parent / "backup"
    shutil.copytree(store.root, backup)
    damage(store)
    text = f"model lab/net, refs/tags/v2: commit {head[:12]}: {problem}; the tag stays, so that nothing else "
    for _ in range(2):
        report = fsck(Store(store.root), repair=True)
        assert not report.clean
        assert text + "takes its name" in text_of(report)
    hub = Store(store.root)
    assert hub.reader.refs(KEY)["refs/tags/v2"] == head
    with pytest.raises(ConflictError):
        hub.tags.create(KEY, "v2")
    # All else goes on as it should: what was sent is taken, and gc removes nothing that may be missed.
    with hub.uploads.writer() as writer:
        writer.write(b"sent")
        sent = writer.finish()
    hub.uploads.add(KEY, sent)
    assert hub.uploads.find(KEY, sent.sha256) is not None
    assert hub.uploads.find(KEY, "0" * 64) is None
    age(hub, 2 * DAY)
    gc(hub)
    shutil.copytree(backup / "blobs", hub.root / "blobs", dirs_exist_ok=True)
    commits = hub.root / "repositories" / KEY.path / "commits"
    shutil.copytree(backup / commits.relative_to(hub.root), commits, dirs_exist_ok=True)
    hub = Store(store.root)
    assert hub.reader.read(KEY, "v2", "big") == b"\x002" * 500
    assert fsck(hub, repair=True).clean


def commit_file(store: Store, commit: str) -> Path:
    return store.root / "repositories" / KEY.path / "commits" / commit


def lose_record(store: Store, commit: str) -> None:
    commit_file(store, commit).unlink()


def flip_record(store: Store, commit: str) -> None:
    path = commit_file(store, commit)
    path.write_bytes(path.read_bytes().replace(b'"title"', b'"titel"'))


def lose_list(store: Store, commit: str) -> None:
    path = store.blobs.path(store.reader.commit(KEY, commit).tree)
    assert path is not None
    path.unlink()


@pytest.mark.parametrize(
    ("lose", "problem"),
    [
        (lose_record, "it is missing"),
        (flip_record, "it is missing"),
        (lose_list, "its list of files is missing or damaged"),
    ],
)
def test_a_lost_older_commit_ends_the_history_and_gc_goes_on_without_losing_what_came_before(
    store: Store, lose: Callable[[Store, str], None], problem: str
) -> None:
    other = RepositoryKey.model("lab/other")
    store.repositories.create(other)
    pull = store.pull_requests.open(KEY, title="of what is lost")
    for number in range(3, 6):
        store.commits.create(KEY, [Add("a", b"%d" % number)], title=f"{number}")
    five, four, three, lost, one, zero, empty = (record.id for record in store.reader.history(KEY))
    store.tags.delete(KEY, "v1")
    lose(store, lost)
    with store.uploads.writer() as writer:
        writer.write(b"nobody wants me")
        unused = writer.finish().sha256
    age(store, 2 * DAY)
    with pytest.raises(IntegrityError):
        gc(Store(store.root))
    text = f"model lab/net, refs/heads/main: older commit {lost[:12]}: {problem}"
    assert text in [str(each) for each in fsck(Store(store.root)).findings]
    mended = fsck(Store(store.root), repair=True)
    assert f"{text} (the history ends there now)" in [str(each) for each in mended.findings]
    assert mended.clean
    again = Store(store.root)
    assert again.blobs.size(unused) is not None
    done = gc(again)
    assert done.commits == 0
    assert again.blobs.size(unused) is None
    # Everything that is whole is still there, whether or not the history leads to it.
    for commit, content in ((five, b"5"), (four, b"4"), (three, b"3"), (one, b"1"), (zero, b"0")):
        assert again.reader.read(KEY, commit, "a") == content
    assert again.reader.tree(KEY, empty) == {}
    assert [record.id for record in again.reader.history(KEY)] == [five, four, three]
    assert again.last_changes.of(KEY, five, ["a", "big"])["a"].id == five
    later = fsck(again)
    assert [str(each) for each in later.findings] == [f"{text} (the history ends there since a repair)"]
    assert later.clean
    assert again.pull_requests.get(KEY, pull.number).base == lost
    head = again.commits.create(KEY, [Add("a", b"6")], title="6").id
    again.tags.create(KEY, "v6")
    again.pull_requests.open(KEY, title="another")
    assert [record.id for record in Store(store.root).reader.history(KEY)] == [head, five, four, three]
    gc(Store(store.root))
    assert again.reader.read(KEY, zero, "a") == b"0"


def test_a_lost_commit_that_comes_back_is_no_end_any_more(store: Store) -> None:
    commits = [record.id for record in store.reader.history(KEY)]
    path = commit_file(store, commits[2])
    backup = path.read_bytes()
    path.unlink()
    fsck(Store(store.root), repair=True)
    assert [record.id for record in Store(store.root).reader.history(KEY)] == commits[:2]
    path.write_bytes(backup)
    assert fsck(Store(store.root), repair=True).clean
    assert [record.id for record in Store(store.root).reader.history(KEY)] == commits
    assert "lost" not in (store.root / "repositories" / KEY.path / "refs.json").read_text()


def test_fsck_mends_references_and_settings(store: Store) -> None:
    folder = store.root / "repositories" / KEY.path
    head = store.reader.resolve(KEY)
    (folder / "refs.json").write_text("{")
    (folder / "repository.json").unlink()
    report = fsck(Store(store.root), repair=True)
    assert report.clean
    again = Store(store.root)
    assert again.reader.refs(KEY) == {"refs/heads/main": head}
    assert again.repositories.get(KEY).settings.private


def test_a_backup_copied_while_somebody_pushes_is_mended(store: Store, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    # The order in which a copy may see things: blobs first, then a commit lands, then the references.
    shutil.copytree(store.root / "blobs", backup / "blobs")
    whole = store.reader.resolve(KEY)
    late = store.commits.create(KEY, [Add("a", b"late")], title="late").id
    shutil.copytree(store.root / "repositories", backup / "repositories")
    copy = Store(backup)
    assert copy.reader.resolve(KEY) == late
    assert not fsck(copy).clean
    assert fsck(copy, repair=True).clean
    copy = Store(backup)
    assert copy.reader.resolve(KEY) == whole
    assert copy.reader.read(KEY, "main", "a") == b"2"
    assert copy.index.search()[0].head == whole
    assert fsck(copy).findings == ()


def test_the_backup_of_the_page_loses_nothing_that_a_reference_names(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")
    commands = page.partition("cd /srv/hub\n")[2].partition("```")[0].splitlines()
    root, copy, archive = tmp_path / "hub", tmp_path / "copy", tmp_path / "hub.tar"
    store, name = Store(root), RepositoryId("lab", "refs.json")
    key = RepositoryKey.model(name)
    store.repositories.create(key)
    for number, command in enumerate(commands):
        made = store.commits.create(key, [Add("a", str(number).encode())], title="more")
        store.tags.create(key, f"v{number}")
        shell = ["sh", "-ec", command.replace("/backup/hub.tar", str(archive))]
        subprocess.run(shell, cwd=root, check=True)
        if not number:
            first = made
    copy.mkdir()
    subprocess.run(["tar", "-xf", archive], cwd=copy, check=True)
    restored = Store(copy)
    assert [finding.place for finding in fsck(restored).findings] == []
    assert restored.reader.refs(key) == {"refs/heads/main": first.id, "refs/tags/v0": first.id}
    assert restored.reader.read(key, "v0", "a") == b"0"
    assert [entry.id for entry in restored.index.search(Query())] == [name]


def test_fsck_reads_manifests(store: Store) -> None:
    store.commits.create(KEY, [Add("modhub.json", b'{"schema_version": 1}')], title="t")
    assert "modhub.json has no 'parent'." in [one.problem for one in fsck(store).findings]
