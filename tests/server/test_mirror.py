"""A server in front of another: passes on, keeps, and goes on when the other is gone."""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from modhub.server.http.state import Options
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
            mirror.ask("POST", "/api/repos/create", "alice", {"name": "hidden2", "private": True})
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
            for repository in ("alice/none", "alice/hidden", "alice/hidden2"):
                assert mirror.ask("GET", f"/api/models/{repository}", "bob").error == "404 RepoNotFound"
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


@contextmanager
def _saying(answer: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Same(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
