"""Senders who mean harm or know no better: the right status, nothing left behind, never a 5xx."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modhub.server import serving as serving_module
from modhub.server.http import body as body_module
from modhub.server.web.markdown import card_html
from tests.support.hub_server import Server, commit_body, serving

EXAMPLES = int(os.environ.get("MODHUB_FUZZ", "600"))
"""Requests of the fuzz test; the release is tried with 10,000."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        server.commit("models/alice/net", {"README.md": b"# Hi\n", "a/b.bin": b"\0" * 10})
        server.ask("POST", "/api/models/alice/net/discussions", "alice", {"title": "t", "pullRequest": True})
        yield server


def raw(server: Server, data: bytes, *, wait: float = 10) -> bytes:
    """Send bytes as they are; what comes back until the server closes or `wait` seconds are over."""
    parts = urlsplit(server.address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received and b"HTTP/1.1 100" not in received:
                    break
        except TimeoutError:
            pass
        return received


def received(connection: socket.socket, *, pause: float = 0) -> int:
    """How many bytes come until the server closes, read a mebibyte at a time."""
    size = 0
    while piece := connection.recv(1 << 20):
        size += len(piece)
        time.sleep(pause)
    return size


def leftovers(server: Server) -> list[str]:
    """Files of interrupted uploads."""
    staging = server.root / "staging"
    return sorted(path.name for path in staging.glob("blob-*")) if staging.is_dir() else []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
        (b'{"name": "x", "name": "\\ud800"}', 400),
        (b'{"name": NaN}', 400),
        (b"\xff\xfe", 400),
        (b'"text"', 400),
        (b'{"name": 5}', 400),
        (b'{"name": "a/b/c"}', 400),
        (b'{"name": "../x"}', 400),
        (b'{"name": "x", "type": "space"}', 400),
        (b'{"name": "x", "type": ["model"]}', 400),
        (b'{"name": "' + b"x" * 2_000_000 + b'"}', 413),
    ],
)
def test_bodies(server: Server, body: bytes, status: int) -> None:
    assert server.ask("POST", "/api/repos/create", "alice", body).status == status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /api/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET /api/models HTTP/1.1\r\n\r\n", b"400"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"BREW /api/models HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /api/models?" + b"a=1&" * 1900 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (
            b"POST /api/repos/create HTTP/1.1\r\nHost: x\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
            b"415",
        ),
        (b"POST /api/repos/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
    ],
)
def test_requests_off_the_beaten_track(server: Server, head: bytes, status: bytes) -> None:
    assert raw(server, head).split(b" ")[1] == status


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("GET", "/api/models?" + "&".join("a" * 2500), None, {}),
        ("POST", "/api/models/alice/net/paths-info/main", b"&".join([b"paths=a"] * 6000), {}),
        ("POST", "/login", b"&".join([b"token=a"] * 20), {}),
        ("POST", "/login", b"token=a", {"Origin": "http://[::1"}),
    ],
)
def test_forms_beyond_all_measure(
    server: Server, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> None:
    answer = server.ask(method, path, "alice", body, headers)
    assert answer.status == (403 if headers else 400)
    assert headers or "Too many fields" in answer.json()["error"]


def test_the_host_header_cannot_put_words_into_links(server: Server) -> None:
    head = b'POST /api/repos/create HTTP/1.1\r\nHost: evil"><script>\r\nAuthorization: Bearer %s\r\n'
    body = b'{"name": "hosted"}'
    sent = head % b"hf_alice-token-0123456789" + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = raw(server, sent)
    assert answer.split(b" ")[1] == b"400"
    assert b"<script>" not in answer


def test_a_connection_that_says_nothing_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "HEADER_SECONDS", 0.3)
    began = time.monotonic()
    slow = b"GET /api/models HTTP/1.1\r\nHost: x\r\nX-Slow: "
    assert raw(server, slow) == b""
    assert time.monotonic() - began < 5
    parts = urlsplit(server.address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as connection:
        # A request that is answered buys no time for the next.
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(slow)
        assert connection.recv(65536) == b""


def test_a_body_that_stops_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "SILENCE", 0.3)
    for path in ("/api/repos/create", "/api/models/alice/net/commit/main"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hf_alice-token-0123456789\r\n"
        answer = raw(server, head.encode() + b'Content-Length: 500\r\n\r\n{"key":')
        assert answer.split(b" ")[1] == b"408"
    assert leftovers(server) == []


def test_an_answer_that_nobody_takes_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "UNREAD_SECONDS", 0.5)
    size = 20_000_000
    assert server.commit("models/alice/net", {"long.bin": bytes(size)}).status == 200

    def waiting() -> bool:
        return b"modhub_requests_in_flight 2" in server.ask("GET", "/metrics").body

    parts = urlsplit(server.address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(b"GET /alice/net/resolve/main/long.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while not waiting() and time.monotonic() < deadline:
            time.sleep(0.05)
        while waiting() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not waiting()
        assert received(connection) < size
    # Who is slow and goes on reading has all of it.
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(
            b"GET /alice/net/resolve/main/long.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert received(connection, pause=0.02) > size


def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    before = server.ask("GET", "/api/models/alice/net").json()["sha"]
    body = commit_body({"big.bin": b"\0" * 3_000_000})
    head = b"POST /api/models/alice/net/commit/main HTTP/1.1\r\nHost: x\r\n"
    head += b"Authorization: Bearer hf_alice-token-0123456789\r\nContent-Length: %d\r\n\r\n" % len(body)
    parts = urlsplit(server.address)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.sendall(head + body[:2_500_000])
    deadline = time.monotonic() + 10
    while leftovers(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(server) == []
    assert server.ask("GET", "/api/models/alice/net").json()["sha"] == before


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("<script>alert(1)</script>", "<script"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror"),
        ("[x](javascript:alert(1))", 'href="javascript'),
        ("[x](JaVaScRiPt:alert(1))", 'JaVaScRiPt:alert(1)"'),
        ("[x](data:text/html;base64,PHNjcmlwdD4=)", 'href="data:'),
        ("![x](https://tracker.example/p.png)", "tracker.example"),
        ("![x](//tracker.example/p.png)", "tracker.example"),
        ("![x](../../../api/repos/delete)", "api/repos"),
        ('<a href="x" style="position:fixed">', "<a href"),
        ("[x]: javascript:alert(1)\n\n[x]", 'href="javascript'),
        ("<svg/onload=alert(1)>", "<svg"),
        ("<iframe src=//e>", "<iframe"),
    ],
)
def test_cards_can_do_no_harm(text: str, absent: str) -> None:
    assert absent not in card_html(text, "/alice/net/resolve/main")


def test_pages_escape_what_people_wrote(server: Server) -> None:
    evil = "<script>alert(1)</script>"
    card = f"---\ntags: ['class:{evil}', modhub]\nlicense: '{evil}'\n---\n{evil}\n".encode()
    server.ask("POST", "/api/repos/create", "alice", {"name": "evil"})
    body = commit_body({"README.md": card, f"{evil.replace('/', '_')}.txt": b"x"})
    body = body.replace(b"A change", evil.encode())
    assert server.ask("POST", "/api/models/alice/evil/commit/main", "alice", body).status == 200
    paths = ["/", "/alice/evil", "/alice/evil/tree/main", "/alice/evil/commits/main", f"/?q={quote(evil)}"]
    paths += [f"/compose?pick={quote(evil)}", f"/alice/evil/modules/{quote(evil, safe='')}"]
    for path in paths:
        answer = server.ask("GET", path, headers={"Accept": "text/html"})
        assert answer.status in (200, 404)
        assert b"<script" not in answer.body, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_tokens_are_in_no_log_and_no_file(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server.ask("GET", "/api/whoami-v2", "alice")
    server.ask("GET", "/api/whoami-v2?token=hf_alice-token-0123456789", "wrong-token-0123456789")
    server.ask("POST", "/login", body=b"token=hf_alice-token-0123456789")
    assert "token-0123456789" not in caplog.text
    assert re.search(r"GET /api/whoami-v2 200 [\d.]+ ms 127\.0\.0\.1 alice$", caplog.text, re.MULTILINE)
    for path in server.root.rglob("*"):
        if path.is_file():
            assert b"alice-token" not in path.read_bytes()


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
WORDS = st.sampled_from(
    [
        "api",
        "models",
        "datasets",
        "alice",
        "net",
        "evil",
        "lab",
        "tree",
        "main",
        "resolve",
        "commit",
        "commits",
        "refs",
        "tag",
        "branch",
        "revision",
        "preupload",
        "paths-info",
        "discussions",
        "1",
        "0",
        "-1",
        "999999999999",
        "merge",
        "status",
        "settings",
        "super-squash",
        "lfs-files",
        "batch",
        "README.md",
        "a",
        "b.bin",
        "refs%2Fpr%2F1",
        "refs/pr/1",
        "HEAD",
        "%00",
        "%ff",
        "%2e%2e",
        "..",
        ".",
        "objects",
        "info",
        "lfs",
        "verify",
        "login",
        "compose",
        "modhub.toml",
        "modules",
        "cat",
        "static",
        "healthz",
        "metrics",
        "whoami-v2",
        "repos",
        "create",
        "delete",
        "move",
        "net.git",
        "auth-check",
        "write",
        "duplicate",
        "organizations",
        "validate-yaml",
        "raw",
        "xet-write-token",
    ]
)
SEGMENT = WORDS | WORDS | WORDS | st.text(max_size=8).map(lambda text: quote(text, safe=""))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "name",
        "organization",
        "type",
        "private",
        "visibility",
        "gated",
        "readers",
        "fromRepo",
        "toRepo",
        "tag",
        "startingPoint",
        "message",
        "files",
        "path",
        "size",
        "content",
        "key",
        "value",
        "summary",
        "operation",
        "objects",
        "oid",
        "transfers",
        "title",
        "description",
        "pullRequest",
        "status",
        "comment",
        "deletions",
        "repository",
        "paths",
        "gitIgnore",
    ]
)
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.dictionaries(FIELDS, VALUES, max_size=5).map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(["header", "file", "lfsFile", "deletedFile", "x"]),
                "value": st.dictionaries(FIELDS, VALUES, max_size=4),
            }
        ),
        max_size=4,
    ).map(lambda lines: b"\n".join(json.dumps(line).encode() for line in lines)),
)
QUERIES = st.dictionaries(
    st.sampled_from(
        [
            "search",
            "filter",
            "author",
            "sort",
            "limit",
            "cursor",
            "expand",
            "recursive",
            "blobs",
            "create_pr",
            "p",
            "q",
            "class",
            "kind",
            "page",
            "pick",
            "signature",
            "chunk",
            "revision",
            "gated",
            "full",
        ]
    ),
    WORDS | st.text(max_size=8),
    max_size=3,
)
SHAPES = st.sampled_from(
    [
        "/api/models/alice/net",
        "/api/datasets/alice/net",
        "/alice/net",
        "/datasets/alice/net",
        "/alice/net.git",
        "",
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(["Range", "If-None-Match", "Accept", "Content-Type", "Cookie", "If-Range", "Origin"]),
    st.sampled_from(["bytes=0-1", "bytes=-", "text/html", "*/*", "modhub_session=a.b-c", '"x"', "a;b,c"]),
    max_size=2,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
@given(
    method=METHODS,
    shape=SHAPES,
    segments=st.lists(SEGMENT, max_size=4),
    query=QUERIES,
    body=BODIES,
    headers=HEADERS,
    who=st.sampled_from([None, "alice", "bob", "reader"]),
)
def test_no_request_makes_the_server_fail(
    server: Server,
    method: str,
    shape: str,
    segments: list[str],
    query: dict[str, str],
    body: bytes | None,
    headers: dict[str, str],
    who: str | None,
) -> None:
    path = "/".join([shape, *segments]) or "/"
    text = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    answer = server.ask(method, path + (f"?{text}" if text else ""), who, body, headers)
    assert answer.status < 500, (method, path, text, body, who, answer.body)
    if answer.status >= 400:
        assert answer.headers["x-error-message"]


def test_the_store_is_whole_after_all_that(server: Server) -> None:
    from modhub.store.fsck import fsck
    from modhub.store.store import Store

    store = Store(Path(server.root))
    report = fsck(store)
    store.close()
    assert report.clean, report
    assert leftovers(server) == []
