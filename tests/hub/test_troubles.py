"""A real hub behind a line that fails at chosen moments: what passes is waited for, the rest is told."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub.utils import get_session
from packaging.version import Version

from modhub.api.push import push as push_and_tell
from modhub.catalog.catalog import Catalog
from modhub.catalog.publish import push, yank
from modhub.catalog.pull import pull
from modhub.errors import BusyError, ModhubError, NotFoundError, OfflineError
from modhub.hub import huggingface
from modhub.hub.cache import Cache
from modhub.hub.huggingface import HuggingFaceHub
from modhub.refs import Ref, RepositoryId
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.paper import write_paper_artifact

NET = RepositoryId("lab", "net")
_FRAMING = ("content-length", "connection", "transfer-encoding")
Trouble = Callable[[str, str], str | None]
"""Method and path to what goes wrong: a status, with seconds to wait ("503", "429 60"), "lost" (the hub does
it, and its answer gets lost), "silent" (no answer), None."""


@contextmanager
def relay(server: Server, trouble: Trouble) -> Iterator[str]:
    """The address of something that passes requests on to `server`, as long as there is no trouble."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.whole_body()
            wrong = trouble(self.command, self.path)
            if wrong == "silent":
                over.wait(10)
            elif wrong not in (None, "lost"):
                status, _, after = str(wrong).partition(" ")
                page = b"<html><h1>Not now</h1></html>"
                self.send_response(int(status))
                if after:
                    self.send_header("Retry-After", after)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
                return
            parts = urlsplit(server.address)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            # The Host header stays: the hub tells addresses that lead here.
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _FRAMING}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            if wrong is not None:
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _FRAMING:
                    self.send_header(name, value)
            if response.status not in (204, 304):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content)

        def whole_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def do_GET(self) -> None:
            self.handle_any()

        def do_POST(self) -> None:
            self.handle_any()

        def do_PUT(self) -> None:
            self.handle_any()

        def log_message(self, *_: object) -> None:
            pass

    between = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    between.daemon_threads = True
    thread = threading.Thread(target=between.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{between.server_address[1]}"
    finally:
        over.set()
        between.shutdown()
        between.server_close()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_paper_artifact(tmp_path / "artifact", {"cat": 0.8, "dog": 0.9})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "PAUSES", (0.0, 0.0, 0.0))


def catalog_at(address: str, cache: Path, who: str = "alice") -> Catalog:
    return Catalog(HuggingFaceHub(address, token=TOKENS.get(who, False)), Cache(cache))


@pytest.mark.parametrize("wrong", ["503", "429 0", "lost"])
def test_what_fails_once_is_asked_for_again(
    server: Server, artifact: Path, tmp_path: Path, wrong: str
) -> None:
    """Every single request of a push, a pull and a yank fails the first time; nothing is done twice."""
    seen: Counter[tuple[str, str]] = Counter()

    def trouble(method: str, path: str) -> str | None:
        # These the client repeats itself, after whole seconds; of the last it reads any answer as JSON.
        if any(part in path for part in ("/tree/", "/preupload/", "/objects/batch", "/validate-yaml")):
            return None
        seen[method, path] += 1
        return wrong if seen[method, path] == 1 else None

    with relay(server, trouble) as address:
        catalog = catalog_at(address, tmp_path / "cache")
        done = push(catalog, artifact, NET, Version("1.0.0"))
        assert not done.existed
        pull(catalog, Ref.parse("lab/net/cat"))
        yank(catalog, NET, Version("1.0.0"), "a test")
    store = Store(server.root)
    titles = [made.title for made in store.reader.history(RepositoryKey.model("lab/net"))]
    assert titles[:2] == ["Yank release 1.0.0", "Release 1.0.0"]
    assert len(titles) == 3
    assert {path.split("/")[-2] for method, path in seen if method == "POST"} == {"repos", "commit", "tag"}


def test_a_hub_that_stays_busy_is_told_of(server: Server, tmp_path: Path) -> None:
    asked = []

    def trouble(_: str, path: str) -> str:
        asked.append(path)
        return "503"

    with relay(server, trouble) as address, pytest.raises(BusyError) as caught:
        catalog_at(address, tmp_path).hub.refs(NET)
    assert len(asked) == 4
    # Not a word of the page that a proxy shows to browsers.
    assert caught.value.message == f"'lab/net' on {address} failed with status 503."


def test_a_hub_that_wants_to_be_left_alone_is(server: Server, tmp_path: Path) -> None:
    asked = []

    def trouble(_: str, path: str) -> str:
        asked.append(path)
        return "429 60"

    with relay(server, trouble) as address, pytest.raises(BusyError) as caught:
        catalog_at(address, tmp_path).hub.refs(NET)
    assert len(asked) == 1
    assert caught.value.hint == "Wait 60 seconds and try again."


def test_a_refusal_without_words_is_one_sentence(server: Server, tmp_path: Path) -> None:
    with relay(server, lambda *_: "403") as address, pytest.raises(ModhubError) as caught:
        catalog_at(address, tmp_path).hub.refs(NET)
    assert caught.value.message == f"'lab/net' on {address} refuses."


def test_nobody_waits_for_ever(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "SILENCE", 0.2)
    before = get_session().timeout
    with relay(server, lambda *_: "silent") as address:
        hub = catalog_at(address, tmp_path).hub
        with pytest.raises(OfflineError, match=r"cannot be reached .*timed out"):
            hub.refs(NET)
    assert get_session().timeout == before


def test_what_is_published_is_told_whatever_the_hub_does_next(
    server: Server, artifact: Path, tmp_path: Path
) -> None:
    tagged = threading.Event()

    def trouble(method: str, path: str) -> str | None:
        if tagged.is_set():
            return "500"
        if method == "POST" and "/tag/" in path:
            tagged.set()
        return None

    with relay(server, trouble) as address:
        done = push_and_tell(
            artifact, "lab/net", version="1.0.0", hub=catalog_at(address, tmp_path / "cache")
        )
    assert (done.modules, done.existed) == (2, False)


def test_a_private_repository_may_be_what_is_missing(server: Server, artifact: Path, tmp_path: Path) -> None:
    """A hub says no more than that; whoever has a token must learn that it could help."""
    push(catalog_at(server.address, tmp_path / "cache"), artifact, NET, Version("1.0.0"), private=True)
    with pytest.raises(NotFoundError, match="or you may not see it") as caught:
        pull(catalog_at(server.address, tmp_path / "other", "nobody"), Ref.parse("lab/net/cat"))
    assert server.address in caught.value.message
    assert "HF_TOKEN" in caught.value.hint
