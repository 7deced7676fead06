"""A server in front of another: passes on, keeps, and goes on when the other is gone."""

from __future__ import annotations

import hashlib
import http.client
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from modhub.integrity import git_oid
from modhub.server.http.state import Options
from modhub.server.protocol import mirror as mirror_module
from modhub.store.gc import gc
from modhub.store.store import Store
from tests.support.hub_server import TOKENS, Server, serving

BIG = os.urandom(1_500_000)


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz").status == 200
    except OSError:
        return False


def test_a_mirror_passes_on_keeps_and_survives_its_upstream(tmp_path: Path) -> None:
    with serving(tmp_path / "up") as upstream:
        upstream.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        upstream.ask("POST", "/api/repos/create", "alice", {"name": "hidden", "private": True})
        upstream.commit("models/alice/net", {"README.md": b"# Hi\n", "w.bin": BIG, "dir/a.txt": b"a"})
        head = upstream.ask("GET", "/api/models/alice/net").json()["sha"]
        with serving(tmp_path / "here", Options(upstream=upstream.address)) as mirror:
            mirror.ask("POST", "/api/repos/create", "bob", {"name": "own"})
            mirror.ask("POST", "/api/repos/create", "bob", {"name": "hidden2", "private": True})
            api = HfApi(endpoint=mirror.address, token=False)
            assert api.model_info("alice/net").sha == head
            assert api.model_info("bob/own").id == "bob/own"
            path = Path(
                snapshot_download(
                    "alice/net", endpoint=mirror.address, cache_dir=tmp_path / "c1", token=False
                )
            )
            assert (path / "w.bin").read_bytes() == BIG
            assert (path / "dir" / "a.txt").read_bytes() == b"a"
            for repository in ("alice/none", "alice/hidden", "bob/hidden2"):
                assert mirror.ask("GET", f"/api/models/{repository}", "reader").error == "404 RepoNotFound"
            missing = mirror.ask("GET", "/alice/net/resolve/main/none.txt")
            assert missing.error == "404 EntryNotFound"
            assert missing.headers["x-repo-commit"] == head
            part = mirror.ask("GET", "/alice/net/resolve/main/w.bin", headers={"Range": "bytes=5-9"})
            assert (part.status, part.body) == (206, BIG[5:10])
            assert upstream.listening is not None
            upstream.listening.stop()
            while _answers(upstream):
                pass
            again = hf_hub_download(
                "alice/net", "w.bin", endpoint=mirror.address, cache_dir=tmp_path / "c2", token=False
            )
            assert Path(again).read_bytes() == BIG
            assert mirror.ask("GET", "/api/models/alice/other", TOKENS["bob"]).status == 504


HEAD = b"HTTP/1.1 200 OK\r\nX-Repo-Commit: " + b"a" * 40 + b'\r\nETag: "' + b"b" * 40 + b'"\r\n'


@pytest.mark.parametrize(
    "said",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: /api/models/alice/net\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        HEAD + b"X-Linked-Size: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"\r\n".join(b"X%d: 1" % number for number in range(200)) + b"\r\n\r\n",
        HEAD.replace(b"a" * 40, b"../main") + b"Content-Length: 3\r\n\r\nabc",
    ],
)
def test_an_upstream_that_makes_no_sense_is_named_as_what_fails(tmp_path: Path, said: bytes) -> None:
    with _saying(said) as address, serving(tmp_path, Options(upstream=address)) as mirror:
        for path in ("/api/models/alice/net", "/alice/net/resolve/main/a"):
            answer = mirror.ask("GET", path)
            assert (answer.status in (502, 504), "The upstream" in answer.json()["error"]) == (True, True)


def test_an_answer_that_breaks_off_does_not_take_the_place_of_a_kept_one(tmp_path: Path) -> None:
    path, whole = "/api/models/alice/net", b'{"id": "alice/net"}'
    start = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole)
    for said in (start + whole, start + whole[:9]):
        with _saying(said) as address, serving(tmp_path, Options(upstream=address)) as mirror:
            assert mirror.ask("GET", path).body == whole


def test_a_list_goes_on_at_the_mirror_or_nowhere(tmp_path: Path) -> None:
    said = b'HTTP/1.1 200 OK\r\nLink: <http://elsewhere/next>; rel="next"\r\nContent-Length: 2\r\n\r\n[]'
    with _saying(said) as address, serving(tmp_path, Options(upstream=address)) as mirror:
        answer = mirror.ask("GET", "/api/models/alice/net/tree/main")
        assert (answer.body, answer.headers.get("link")) == (b"[]", None)


NET = "/api/models/alice/net"


def said(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_redirects_lead_to_allowed_hosts(tmp_path: Path) -> None:
    asked: list[bytes] = []
    with _saying(said(b'{"secret": 1}'), asked) as inside:
        for target in (inside, f"{inside}/admin", "http://169.254.169.254/latest", "file:///etc/passwd"):
            with (
                _saying(said(b"", "302 Found", f"Location: {target}")) as address,
                serving(tmp_path, Options(upstream=address)) as mirror,
            ):
                for path in (NET, "/alice/net/resolve/main/a"):
                    answer = mirror.ask("GET", path)
                    assert (answer.status, b"secret" in answer.body) == (504, False)
        assert asked == []
        with _saying(said(b"", "302 Found", f"Location: {inside}")) as address:
            options = Options(upstream=address, upstream_hosts=(urlsplit(inside).netloc,))
            with serving(tmp_path, options) as mirror:
                assert mirror.ask("GET", NET).json() == {"secret": 1}


def test_a_digest_is_no_key_to_what_is_here(tmp_path: Path) -> None:
    """The upstream names the digest of a private file of this hub, and sends something else."""
    secret = os.urandom(2000)
    digest = hashlib.sha256(secret).hexdigest()
    headers = (f"X-Repo-Commit: {'a' * 40}", f'X-Linked-Etag: "{digest}"', "X-Linked-Size: 2000")
    address_of = _saying(said(b"x" * 2000, "200 OK", *headers))
    with address_of as address, serving(tmp_path, Options(upstream=address)) as mirror:
        mirror.ask("POST", "/api/repos/create", "bob", {"name": "own", "private": True})
        assert mirror.commit("models/bob/own", {"w.bin": secret}, "bob").status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            mirror.ask("GET", "/alice/net/resolve/main/w.bin")
        assert secret[:100] not in broken.value.partial
        answer = mirror.ask("GET", "/bob/own/resolve/main/w.bin", "bob")
        assert answer.body == secret


@pytest.mark.parametrize("created", ["own", "hidden"])
def test_a_namespace_that_is_here_is_not_asked_for(tmp_path: Path, created: str) -> None:
    asked: list[bytes] = []
    with _saying(said(), asked) as address, serving(tmp_path, Options(upstream=address)) as mirror:
        private = created == "hidden"
        mirror.ask("POST", "/api/repos/create", "bob", {"name": created, "private": private})
        for who in (None, "alice", "bob"):
            for name in ("bob/other", "BOB/other", "bob/hidden2"):
                error = mirror.ask("GET", f"/api/models/{name}", who).error
                assert error == ("401 RepoNotFound" if who is None else "404 RepoNotFound")
        mirror.ask("DELETE", "/api/repos/delete", "bob", {"name": created})
        assert mirror.ask("GET", f"/api/models/bob/{created}", "alice").status == 404
    assert asked == []


def test_only_what_is_listed_is_mirrored_and_no_path_leads_elsewhere(tmp_path: Path) -> None:
    asked: list[bytes] = []
    listed = ("Vision-Lab/*", "*/net")
    with (
        _saying(said(), asked) as address,
        serving(tmp_path, Options(upstream=address, mirrored=listed)) as mirror,
    ):
        for path in (
            "/api/models/carol/other",
            "/alice/net/resolve/main/../../../secret",
            "/alice/net/resolve/main/%2e%2e/%2E%2e/secret",
            "/alice/net/resolve/main/..%2f..%2fsecret",
            "/alice/net/resolve/main/a%5c..%5csecret",
            "/alice/net/resolve/main/a%0d%0aX: 1",
            "/api/models/alice/net/tree/main/..%2F..",
        ):
            assert mirror.ask("GET", path.replace(" ", "%20"), "reader").status in (400, 404), path
        assert asked == []
        assert mirror.ask("GET", NET).status == 200
        assert mirror.ask("GET", "/api/models/vision-lab/x").status == 200
    assert len(asked) == 2


def test_what_is_gone_or_yanked_stays_so_when_offline(tmp_path: Path) -> None:
    yanked = b'{"1.0.0": "wrong weights"}'
    path = "/alice/net/resolve/main/yanked.json"
    headers = (f"X-Repo-Commit: {'a' * 40}", f'ETag: "{git_oid(yanked)}"')
    gone = said(b"{}", "404 Not Found", "X-Error-Code: RepoNotFound")
    for answers in ([(NET, said(b'{"id": 1}')), (path, said(yanked, "200 OK", *headers))], [(NET, gone)]):
        for place, answer in answers:
            with _saying(answer) as address, serving(tmp_path, Options(upstream=address)) as mirror:
                expected = (404, None) if answer is gone else (200, answer.partition(b"\r\n\r\n")[2])
                got = mirror.ask("GET", place, "reader")
                assert (got.status, None if answer is gone else got.body) == expected
        gc(Store(tmp_path), grace=0)
        # Closed: nothing answers there.
        with serving(tmp_path, Options(upstream=address)) as mirror:
            assert mirror.ask("GET", path, "reader").body == yanked
            assert mirror.ask("GET", NET, "reader").status == (404 if answer is gone else 200)


def test_a_hanging_upstream_delays_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modhub.server.protocol.mirror.SECONDS", 0.3)
    asked: list[bytes] = []
    with _saying(b"", asked, hang=1.0) as address, serving(tmp_path, Options(upstream=address)) as mirror:
        for _ in range(6):
            assert mirror.ask("GET", NET).status == 504
        began = time.monotonic()
        answer = mirror.ask("GET", NET)
        assert time.monotonic() - began < 0.3
        assert answer.json()["error"] == "The upstream cannot be reached: it did not answer a moment ago"
    assert len(asked) == 3


@contextmanager
def _saying(answer: bytes, asked: list[bytes] | None = None, *, hang: float = 0) -> Iterator[str]:
    """A server that says the same to everybody, and notes what it is `asked`."""

    class Same(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            question = self.request.recv(65536)
            if asked is not None:
                asked.append(question)
            time.sleep(hang)
            # Nothing has a body that answers HEAD.
            head = question.startswith(b"HEAD") and b"X-Linked" in answer
            self.request.sendall(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head else answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_kept_answers_have_a_bound_and_yanks_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "ANSWERS", 5)
    monkeypatch.setattr(mirror_module, "FORGETTING", 1)
    yanked = b'{"1.0.0": "bad"}'
    with serving(tmp_path / "up") as upstream:
        upstream.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        upstream.commit("models/alice/net", {"yanked.json": yanked})
        with serving(tmp_path / "here", Options(upstream=upstream.address)) as mirror:
            assert mirror.ask("GET", "/alice/net/resolve/main/yanked.json").body == yanked
            for number in range(30):
                assert mirror.ask("GET", f"{NET}?x={number}").status == 200
            assert len(list((tmp_path / "here" / "mirror" / "answers").iterdir())) == 5
            upstream.listening.stop() if upstream.listening else None
            while _answers(upstream):
                pass
            assert mirror.ask("GET", "/alice/net/resolve/main/yanked.json").body == yanked
            assert mirror.ask("GET", f"{NET}?x=29").status == 200
            assert mirror.ask("GET", f"{NET}?x=2").status == 504
