"""Killed servers and crowds of writers: every acknowledged commit is whole, no other is visible."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modhub.store.fsck import fsck
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.console import ROOT
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.hub_world import push
from tests.support.killed_servers import kill_servers

KILLS = int(os.environ.get("MODHUB_KILLS", "25"))
"""How often the server is killed; the release is tried with 200."""


def test_a_client_is_asked_for_contents_that_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import HfApi

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "out" / "weights.safetensors").write_bytes(b"\0" * 100)
    with serving(tmp_path / "hub") as server:
        assert server.listening is not None
        store, key = Store(tmp_path / "hub"), RepositoryKey.model("lab/net")
        store.repositories.create(key)
        api = HfApi(server.address, TOKENS["alice"])
        before = api.upload_folder(repo_id="lab/net", folder_path=tmp_path / "out").oid
        for file in store.reader.tree(key).values():
            place = store.blobs.path(file.sha256)
            assert place is not None
            place.unlink()
        assert server.ask("GET", "/api/models/lab/net").status == 200
        lost = server.ask("GET", "/lab/net/resolve/main/weights.safetensors")
        assert (lost.status, lost.json()["error"].partition(" ")[0]) == (422, "The")
        assert "are missing from the store" in lost.json()["error"]
        # No 5xx: stock clients would ask again for half a minute. The log has it all the same.
        assert "are missing from the store" in caplog.text
        assert api.upload_folder(repo_id="lab/net", folder_path=tmp_path / "out").oid == before
        assert server.ask("GET", "/lab/net/resolve/main/weights.safetensors").status == 200
    assert fsck(Store(tmp_path / "hub")).findings == ()


def test_a_disk_that_refuses_tells_clients_what_and_the_log_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        assert server.commit("models/alice/net", {"a": b"1"}).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            answer = server.commit("models/alice/net", {"a": b"2"})
        said = "The hub's storage failed (No space left on device); the server's log has the details."
        assert (answer.status, answer.json()["error"], answer.headers["x-error-message"]) == (507, said, said)
        assert f"'{tmp_path}/staging' cannot be used: No space left on device" in caplog.text
        accounts = (tmp_path / "accounts.json").read_bytes()
        (tmp_path / "accounts.json").write_bytes(accounts[:-9])
        answer = server.ask("GET", "/api/whoami-v2", "alice")
        assert (answer.status, answer.json()["error"].partition(" (")[0]) == (
            500,
            "'accounts.json' is not valid JSON",
        )
        (tmp_path / "accounts.json").write_bytes(accounts)
        # Another error that names a file, and one of the disk's own.
        refs = tmp_path / "repositories" / "model" / "alice" / "net" / "refs.json"
        whole = refs.read_bytes()
        refs.write_bytes(b"{")
        answer = server.ask("GET", "/api/models/alice/net")
        assert answer.json()["error"].startswith("'repositories/model/alice/net/refs.json' is not valid JSON")
        refs.write_bytes(whole)
        blob = Store(tmp_path).blobs.path(hashlib.sha256(b"1").hexdigest())
        assert blob is not None
        blob.unlink()
        blob.mkdir()
        answer = server.ask("GET", "/alice/net/resolve/main/a")
        assert (answer.status, str(tmp_path) in answer.json()["error"]) == (500, False)


CARD = "/lab/net/resolve/main/README.md"
READS = """
import sys
from pathlib import Path
from modhub.api.fsck import fsck
from modhub.errors import StorageError
from modhub.store.model import Add
from modhub.hub.directory import DirectoryHub
from modhub.server.launch import first_token
from modhub.server.http.state import Options
from modhub.refs import RepositoryId
from tests.support.hub_server import serving
root = Path(sys.argv[1])
net = RepositoryId.parse("lab/net")
try:
    DirectoryHub(root).commit(net, [Add("a", b"1")], "no")
except StorageError as error:
    print(error.message)
print(first_token(root, read_only=True), fsck(root).findings)
hub = DirectoryHub(root)
print([str(one.id) for one in hub.find(["class:cat"])])
with serving(root, Options(read_only=True), accounts=False) as server:
    for path in ("/healthz", "/metrics", "/", "/api/models?search=net", "/api/models/lab/net", "/lab/net",
                 "/lab/net/modules/cat", "/compose?q=cat", "/lab/net/resolve/main/README.md"):
        answer = server.ask("GET", path, headers={"X-HF-Download-Counter": "1"})
        print(path, answer.status, b"lab/net" in answer.body)
"""


def test_accounts_that_cannot_be_read_let_nobody_in_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path) as server:
        # What a command run as root leaves to a server that is not: root itself reads everything.
        (tmp_path / "accounts.json").unlink()
        (tmp_path / "accounts.json").mkdir()
        answer = server.ask("GET", "/api/whoami-v2", "alice")
        assert answer.status == 507
        assert answer.json()["error"] == (
            "The hub's storage failed (Is a directory); the server's log has the details."
        )
    assert f"'{tmp_path}/accounts.json' cannot be read: Is a directory. Make the directory" in caplog.text


def test_a_store_on_a_disk_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    push(tmp_path / "live", "lab/net", ("cat", "dog"))
    store, hub = Store(tmp_path / "live"), tmp_path / "hub"
    # A snapshot of a store in use, with a log beside its index and a writer at work.
    store.index.mark(RepositoryKey.model("lab/net"))
    shutil.copytree(store.root, hub)
    store.close()
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    inside = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$2" -c "$3" "$1"', "sh", hub]
    try:
        subprocess.run([*inside, sys.executable, ""], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*inside, sys.executable, READS], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"'{hub}/staging' cannot be used: Read-only file system.",
        "None ()",
        "['lab/net']",
        "/healthz 200 False",
        "/metrics 200 False",
        *(f"{path} 200 True" for path in ("/", "/api/models?search=net", "/api/models/lab/net", "/lab/net")),
        *(f"{path} 200 True" for path in ("/lab/net/modules/cat", "/compose?q=cat", CARD)),
    ]


def test_a_damaged_repository_keeps_no_other_out_of_lists(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for name in ("good", "bad"):
            server.ask("POST", "/api/repos/create", "alice", {"name": name})
            assert server.commit(f"models/alice/{name}", {"a": name.encode()}).status == 200
        store, key = Store(tmp_path), RepositoryKey.model("alice/bad")
        lost = store.blobs.path(store.reader.commit(key, store.reader.resolve(key)).tree)
        assert lost is not None
        lost.unlink()
    # Another server, that has nothing in its memory.
    with serving(tmp_path) as server:
        listed = server.ask("GET", "/api/models?full=true").json()
        found = {one["id"]: [file["rfilename"] for file in one["siblings"]] for one in listed}
        assert found == {"alice/good": [".gitattributes", "a"], "alice/bad": []}
        own = server.ask("GET", "/api/settings/repositories", "alice").json()
        assert {one["id"]: one["storage"] for one in own} == {"alice/good": 1523, "alice/bad": 0}


def test_a_killed_server_keeps_every_commit_it_acknowledged(tmp_path: Path) -> None:
    done = kill_servers(tmp_path, KILLS, seed=7)
    assert done.lost == ()
    # Commits whose answer the kill swallowed may have landed; each landed once and whole.
    assert done.acknowledged <= done.landed <= done.attempted
    assert done.acknowledged >= KILLS * 2 // 3
    assert done.clean


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_told_to_stop_has_done_its_work(tmp_path: Path, number: int) -> None:
    arguments = ["serve", "--root", str(tmp_path), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "modhub_cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("registry", "cli"))},
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert Server(address, tmp_path).ask("GET", "/api/models").status == 200
        server.send_signal(number)
        _, said = server.communicate(timeout=60)
    assert (server.returncode, said.splitlines()[-1]) == (0, "Stopped.")
    assert "Error" not in said


def test_sixteen_writers_of_one_branch_land_once_or_hear_412(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})

        def work(worker: int) -> tuple[int, int]:
            landed = refused = 0
            for number in range(4):
                head = server.ask("GET", "/api/models/alice/net").json()["sha"]
                files = {f"{worker}-{number}.txt": b"%d" % worker}
                answer = server.commit("models/alice/net", files, parent=head)
                assert answer.status in (200, 412), answer.body
                landed += answer.status == 200
                refused += answer.status == 412
            return landed, refused

        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(work, range(16)))
        landed = sum(one for one, _ in results)
        commits = server.ask("GET", "/api/models/alice/net/commits/main?limit=1000").json()
        files = server.ask("GET", "/api/models/alice/net/tree/main?recursive=true").json()
        assert landed == len(commits) - 1 == len(files) - 1
        assert landed + sum(one for _, one in results) == 64
        assert landed >= 4


def test_writers_without_a_parent_all_land(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        with ThreadPoolExecutor(16) as pool:
            answers = list(
                pool.map(lambda n: server.commit("models/alice/net", {f"{n}": b"%d" % n}).status, range(32))
            )
        assert answers == [200] * 32
        assert len(server.ask("GET", "/api/models/alice/net/tree/main").json()) == 33


def test_a_slow_upload_keeps_nobody_waiting(tmp_path: Path) -> None:
    import http.client
    from urllib.parse import urlsplit

    with serving(tmp_path) as server:
        for name in ("slow", "fast"):
            server.ask("POST", "/api/repos/create", "alice", {"name": name})
        address = urlsplit(server.address)
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        header = json.dumps({"key": "header", "value": {"summary": "s"}}).encode() + b"\n"
        line = b'{"key": "file", "value": {"path": "big", "encoding": "base64", "content": "'
        connection.putrequest("POST", "/api/models/alice/slow/commit/main")
        connection.putheader("Authorization", f"Bearer {TOKENS['alice']}")
        connection.putheader("Content-Length", str(len(header + line) + 8_000_000 + 3))
        connection.endheaders()
        connection.send(header + line + b"A" * 4_000_000)
        began = time.monotonic()
        assert server.commit("models/alice/fast", {"a": b"1"}).status == 200
        assert server.commit("models/alice/slow", {"a": b"1"}).status == 200
        assert time.monotonic() - began < 5
        connection.send(b"A" * 4_000_000 + b'"}}')
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        connection.close()
        assert server.ask("HEAD", "/alice/slow/resolve/main/big").headers["content-length"] == "6000000"


@pytest.mark.parametrize("threads", [8])
def test_downloads_and_uploads_together(tmp_path: Path, threads: int) -> None:
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        content = os.urandom(2_000_000)
        server.commit("models/alice/net", {"w.bin": content})

        def work(number: int) -> bool:
            if number % 2:
                return server.commit("models/alice/net", {f"{number}": b"x"}).status == 200
            return server.ask("GET", "/alice/net/resolve/main/w.bin").body == content

        with ThreadPoolExecutor(threads) as pool:
            assert all(pool.map(work, range(24)))
