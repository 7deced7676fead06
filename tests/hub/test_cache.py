import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from modhub.errors import IntegrityError, OfflineError, StorageError
from modhub.files import sha256_of_bytes
from modhub.hub.cache import CACHE_VARIABLE, Cache, CacheUsage, default_cache
from modhub.integrity import git_oid, matches
from modhub.refs import RepositoryId
from modhub.store.model import FileEntry, Refs

CONTENT = bytes(range(256)) * 400
ENTRY = FileEntry(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Source:
    """A download that may break off, and remembers where it was asked to begin."""

    def __init__(self, content: bytes = CONTENT, breaks_after: int | None = None) -> None:
        self.content = content
        self.breaks_after = breaks_after
        self.offsets: list[int] = []

    def __call__(self, stream: BinaryIO, offset: int) -> None:
        self.offsets.append(offset)
        stream.write(
            self.content[offset:] if self.breaks_after is None else self.content[offset:][: self.breaks_after]
        )
        if self.breaks_after is not None:
            raise OfflineError("The line went dead.")


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path), Source()
    assert cache.find(ENTRY) is None
    path = cache.fetch(ENTRY, "'x'", source)
    assert path.read_bytes() == CONTENT
    assert cache.fetch(ENTRY, "'x'", source) == cache.find(ENTRY) == path
    assert source.offsets == [0]
    assert list((tmp_path / "partial").iterdir()) == []


def test_what_was_not_used_for_long_is_pruned(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entries = [FileEntry(size, hashlib.sha256(CONTENT[:size]).hexdigest()) for size in (10, 20, 30, 40)]
    paths = [cache.fetch(entry, "'x'", Source(CONTENT[: entry.size])) for entry in entries]
    with pytest.raises(OfflineError):
        cache.fetch(ENTRY, "'x'", Source(breaks_after=1000))
    old, asked, _, locked = paths
    for path in (old, asked, locked, next((tmp_path / "partial").iterdir())):
        os.utime(path, (0, 0))
    assert cache.find(entries[1]) == asked
    assert cache.usage() == CacheUsage(5, 1100)
    with locked.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert cache.prune(3600, dry_run=True) == CacheUsage(2, 1010)
        assert cache.usage() == CacheUsage(5, 1100)
        assert cache.prune(3600) == CacheUsage(2, 1010)
    assert [path.exists() for path in paths] == [False, True, True, True]
    assert cache.prune(3600) == CacheUsage(1, 40)
    assert cache.usage() == CacheUsage(2, 50)
    assert cache.find(entries[0]) is None
    assert cache.fetch(entries[0], "'x'", Source(CONTENT[:10])) == old
    assert Cache(tmp_path / "nothing").prune(0) == CacheUsage(0, 0)


def test_an_interrupted_download_goes_on_where_it_ended(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(OfflineError):
        cache.fetch(ENTRY, "'x'", Source(breaks_after=1000))
    assert cache.find(ENTRY) is None
    source = Source()
    assert cache.fetch(ENTRY, "'x'", source).read_bytes() == CONTENT
    assert source.offsets == [1000]


def test_a_rotten_part_is_fetched_again_from_the_start(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(OfflineError):
        cache.fetch(ENTRY, "'x'", Source(b"rotten" * 10_000, breaks_after=1000))
    source = Source()
    assert cache.fetch(ENTRY, "'x'", source).read_bytes() == CONTENT
    assert source.offsets == [1000, 0]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (CONTENT[:-1], "'x' ended after 102,399 of 102,400 bytes."),
        (
            CONTENT[:-1] + b"?",
            f"'x' has the sha256 {sha256_of_bytes(CONTENT[:-1] + b'?')[:12]}…, "
            f"expected {sha256_of_bytes(CONTENT)[:12]}….",
        ),
        (CONTENT + b"?", "'x' is larger than the expected 102,400 bytes."),
    ],
)
def test_wrong_bytes_are_refused(tmp_path: Path, sent: bytes, message: str) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        cache.fetch(ENTRY, "'x'", Source(sent))
    assert caught.value.message == message
    assert cache.find(ENTRY) is None
    assert cache.fetch(ENTRY, "'x'", Source()).read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"?", b""])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    path = cache.fetch(ENTRY, "'x'", Source())
    path.chmod(0o644)
    path.write_bytes(damage)
    assert cache.find(ENTRY) is None
    assert cache.fetch(ENTRY, "'x'", Source()).read_bytes() == CONTENT


def test_what_others_do_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    path = cache.fetch(ENTRY, "'x'", Source())
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"?")

    def repaired_meanwhile(damaged: Path, *, size: int, sha256: str) -> bool:
        sound = matches(damaged, size=size, sha256=sha256)
        damaged.unlink()
        damaged.write_bytes(CONTENT)
        return sound

    with monkeypatch.context() as patch:
        patch.setattr("modhub.hub.cache.matches", repaired_meanwhile)
        assert cache.find(ENTRY) is None
    assert cache.find(ENTRY) == path
    with cache._partial(ENTRY, "'x'") as (_, part):
        part.rename(path)
        part.touch()
    assert part.exists()


def test_a_file_known_by_its_git_digest_only(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path), Source()
    entry = FileEntry(len(CONTENT), None, git_oid(CONTENT))
    path = cache.fetch(entry, "'x'", source)
    assert cache.find(entry) == cache.find(ENTRY) == path
    with pytest.raises(IntegrityError, match="git sha1"):
        cache.fetch(FileEntry(3, None, git_oid(b"abc")), "'y'", Source(b"abd"))


def test_an_endless_answer_fills_no_disk(tmp_path: Path) -> None:
    cache, sent = Cache(tmp_path), 0

    def endless(stream: BinaryIO, offset: int) -> None:
        nonlocal sent
        # Ten times what was promised stands for an end that never comes.
        while sent < 10 * ENTRY.size:
            stream.write(b"x" * 1000)
            sent += 1000

    with pytest.raises(IntegrityError, match="is larger than the expected 102,400 bytes"):
        cache.fetch(ENTRY, "'x'", endless)
    assert sent <= ENTRY.size
    assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.parametrize("text", ["../../victim", "/tmp/victim", "A" * 64, "a" * 63, ""])
def test_no_digest_or_commit_leads_out_of_the_cache(tmp_path: Path, text: str) -> None:
    cache, repository = Cache(tmp_path / "a" / "b"), RepositoryId("lab", "net")
    for ask in (
        lambda: cache.find(FileEntry(1, text or "x")),
        lambda: cache.fetch(FileEntry(1, text or "x"), "'x'", Source(b"?")),
        lambda: cache.find(FileEntry(1, None, text)),
        lambda: cache.fetch(FileEntry(1, None, text), "'x'", Source(b"?")),
        lambda: cache.tree("https://hub", repository, text),
        lambda: cache.remember_tree("https://hub", repository, text, {}),
    ):
        with pytest.raises(IntegrityError, match=r"is not a (sha256 digest|git sha1)"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "partial").write_text("")
    (tmp_path / "hubs").write_text("")
    cache = Cache(tmp_path)
    with pytest.raises(StorageError, match=r"cannot be used.*modhub cache --prune .* MODHUB_CACHE"):
        cache.fetch(ENTRY, "'x'", Source())
    # What a hub said is kept for working offline; that it cannot be stops nobody who asks it.
    cache.remember_refs("https://hub", RepositoryId("lab", "net"), Refs({}, {}))
    cache.remember_tree("https://hub", RepositoryId("lab", "net"), "a" * 40, {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    # So few bytes that they wait until the file is closed.
    small = FileEntry(3, hashlib.sha256(b"few").hexdigest())
    partial = tmp_path / "partial" / str(small.sha256)
    partial.parent.mkdir()
    partial.symlink_to("/dev/full")
    with pytest.raises(StorageError, match=rf"'{tmp_path}.*' cannot be used: No space left on device"):
        Cache(tmp_path).fetch(small, "'x'", Source(b"few"))


def test_what_a_hub_said_last(tmp_path: Path) -> None:
    cache, repository = Cache(tmp_path), RepositoryId("Lab", "net")
    assert cache.refs("https://hub", repository) is None
    commit, refs = "a" * 40, Refs({"main": "a" * 40}, {"v1": "b" * 40})
    cache.remember_refs("https://hub", repository, refs)
    cache.remember_tree("https://hub", repository, commit, {"x": ENTRY})
    assert cache.refs("https://hub", RepositoryId("lab", "NET")) == refs
    assert cache.tree("https://hub", repository, commit) == {"x": ENTRY}
    assert cache.repositories("https://hub") == [repository]
    assert cache.repositories("https://other") == []
    for path in tmp_path.rglob("refs.json"):
        path.write_text("{")
    assert cache.refs("https://hub", repository) is None


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert default_cache() == Cache().root == tmp_path


PULLER = """
import hashlib, sys, time
from modhub.store.model import FileEntry
from modhub.hub.cache import Cache
content = bytes(range(256)) * 400
def slowly(stream, offset):
    print("download", flush=True)
    time.sleep(0.3)
    stream.write(content[offset:])
path = Cache(sys.argv[1]).fetch(FileEntry(len(content), hashlib.sha256(content).hexdigest()), "x", slowly)
assert path.read_bytes() == content
"""


def test_processes_that_want_one_file_fetch_it_once(tmp_path: Path) -> None:
    pullers = [
        subprocess.Popen(
            [sys.executable, "-c", PULLER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(4)
    ]
    assert [puller.communicate(timeout=60)[0] for puller in pullers].count("download\n") == 1
    assert [puller.returncode for puller in pullers] == [0] * 4


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "5",
        '{"x": 5}',
        '{"x": [5]}',
        '{"x": ["5", null, null]}',
        '{"x": [5, "../../x", null]}',
        '{"id": 5, "branches": 5, "tags": {}}',
        '{"id": "x", "branches": {"main": 5}, "tags": {}}',
        '{"id": "x", "branches": {}, "tags": {"v1": "../x"}}',
    ],
)
def test_what_a_hub_said_counts_as_unsaid_once_it_makes_no_sense(tmp_path: Path, text: str) -> None:
    cache, repository, commit = Cache(tmp_path), RepositoryId("lab", "net"), "a" * 40
    cache.remember_refs("https://hub", repository, Refs({"main": commit}, {}))
    cache.remember_tree("https://hub", repository, commit, {"x": ENTRY})
    for path in tmp_path.rglob("*.json"):
        path.write_text(text)
    assert cache.refs("https://hub", repository) is None
    assert cache.tree("https://hub", repository, commit) is None
    assert cache.repositories("https://hub") == []
