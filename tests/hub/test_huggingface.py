"""The adapter against answers no sound hub gives; what sound hubs do is in test_catalog.py."""

import hashlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from modhub.catalog.catalog import Catalog
from modhub.catalog.pull import pull
from modhub.errors import (
    AccessError,
    BusyError,
    ConflictError,
    HubError,
    IntegrityError,
    ModhubError,
    NotFoundError,
    OfflineError,
    StaleParentError,
)
from modhub.hub import huggingface
from modhub.hub.cache import Cache
from modhub.hub.huggingface import LFS_FROM_BYTES, HuggingFaceHub
from modhub.refs import Ref, RepositoryId
from modhub.store.model import Add

NET = RepositoryId("lab", "net")
COMMIT = "a" * 40
CONTENT = bytes(range(256)) * 40
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(answer: Answer) -> Iterator[HuggingFaceHub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_PUT(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield HuggingFaceHub(f"http://127.0.0.1:{server.server_address[1]}", token=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (
            401,
            "",
            AccessError,
            "'lab/net' on {0} requires authentication. To log in, run: modhub login {0} (or set HF_TOKEN, "
            "and HF_ENDPOINT to that hub)",
        ),
        (403, "", AccessError, "'lab/net' on {} refuses: because. Use a token with the required access."),
        (
            403,
            "GatedRepo",
            AccessError,
            "Access to 'lab/net' on {0} must be granted first. To log in, run: modhub login {0} (or set "
            "HF_TOKEN, and HF_ENDPOINT to that hub)",
        ),
        (
            404,
            "RepoNotFound",
            NotFoundError,
            "There is no repository 'lab/net' on {}, or you may not see it.",
        ),
        (404, "RevisionNotFound", NotFoundError, "There is no revision 'main' in 'lab/net' on {}."),
        (409, "", ConflictError, "Already exists on 'lab/net' on {}: because. Choose another name."),
        (
            412,
            "",
            StaleParentError,
            "'lab/net' on {} changed meanwhile. Read it again and repeat the change.",
        ),
        (429, "", BusyError, "'lab/net' on {} limits the rate of requests. Wait a minute and try again."),
        (
            500,
            "",
            HubError,
            "'lab/net' on {} failed with status 500: because. Try again; the fault is on the server's side.",
        ),
        (418, "", HubError, "'lab/net' on {} rejected the request with status 418: because."),
    ],
)
def test_every_refusal_says_what_to_do(
    status: int, code: str, kind: type[ModhubError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "PAUSES", ())
    headers = {"X_Error_Message": "because.", **({"X_Error_Code": code} if code else {})}

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, status, json.dumps({"error": "because."}).encode(), **headers)

    with answering(refuse) as hub:
        with pytest.raises(ModhubError) as caught:
            hub.commit_of(NET, "main")
        assert type(caught.value) is kind
        assert str(caught.value).startswith(said.format(hub.address))


def test_what_a_hub_says_steers_no_terminal() -> None:
    said = {"X_Error_Message": "\x1b[2Jall is \x9bwell"}
    with answering(lambda handler: reply(handler, 418, b"", **said)) as hub:
        with pytest.raises(HubError) as caught:
            hub.refs(NET)
        assert caught.value.message.endswith("with status 418: ?[2Jall is ?well.")


@pytest.mark.parametrize("headers", [{"Location": "/again"}, {"Content_Encoding": "gzip"}])
def test_an_answer_that_leads_nowhere(headers: dict[str, str]) -> None:
    status = 302 if "Location" in headers else 200
    with answering(lambda handler: reply(handler, status, b"no gzip", **headers)) as hub:
        for ask in (lambda: hub.refs(NET), lambda: hub.read(NET, COMMIT, "a")):
            with pytest.raises(HubError, match="does not answer like a hub"):
                ask()


@pytest.mark.parametrize("code", ["", "RepoNotFound"])
def test_a_token_that_is_not_valid_is_named(code: str) -> None:
    asked = []

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers.get("Authorization"))
        reply(
            handler,
            401,
            b"{}",
            X_Error_Message="Invalid credentials in Authorization header",
            X_Error_Code=code,
        )

    with answering(refuse) as hub:
        hub = HuggingFaceHub(hub.address, token="hf_revoked")
        for ask in (lambda: hub.refs(NET), lambda: hub.read(NET, COMMIT, "x")):
            with pytest.raises(AccessError) as caught:
                ask()
            assert str(caught.value) == (
                f"{hub.address} rejected the token: it is invalid, expired or revoked. "
                f"For another, run: modhub login {hub.address} (or set HF_TOKEN, and HF_ENDPOINT to that hub)"
            )
    # Without the token the hub is no more open.
    assert set(asked) == {"Bearer hf_revoked", None}


@pytest.mark.parametrize(
    "text",
    ["http://[::1", "http://host:99999", "http://host:x", "http://", "http://host?a=1", "http://host#a"],
)
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(HubError) as caught:
        HuggingFaceHub(text)
    assert str(caught.value) == f"'{text}' is not a hub. Write it as https://host or http://host:port."


def test_a_token_that_no_header_can_carry() -> None:
    with (
        answering(lambda handler: reply(handler, 200, b"[]")) as hub,
        pytest.raises(AccessError, match="The token contains an invalid character"),
    ):
        HuggingFaceHub(hub.address, token="hf_\xe9").find()


def test_no_network() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hub = HuggingFaceHub(f"http://127.0.0.1:{free.getsockname()[1]}", token=False)
        began = time.monotonic()
        for ask in (
            lambda: hub.refs(NET),
            lambda: hub.find(["modhub"]),
            lambda: hub.tree(NET, COMMIT),
            lambda: hub.download(NET, COMMIT, "x", io.BytesIO()),
        ):
            with pytest.raises(OfflineError, match=r"cannot be reached .* pass --offline"):
                ask()
        assert time.monotonic() - began < 10


def test_a_proxy_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert handler.path.startswith("http://hub.invalid/api/")
        reply(handler, 200, json.dumps({"branches": [], "converts": [], "tags": []}).encode())

    with answering(answer) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        close_session()
        assert HuggingFaceHub("http://hub.invalid", token=False).refs(NET).branches == {}
    close_session()


def test_the_client_set_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE is set"):
        HuggingFaceHub("http://127.0.0.1:1").refs(NET)


@pytest.mark.parametrize("understands_range", [True, False])
def test_a_download_goes_on_from_an_offset(understands_range: bool) -> None:
    asked = []

    def send(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and understands_range else 0
        reply(handler, 206 if start else 200, CONTENT[start:])

    with answering(send) as hub:
        for offset in (0, 1, 5000):
            stream = io.BytesIO()
            hub.download(NET, COMMIT, "a/b.bin", stream, offset=offset)
            assert stream.getvalue() == CONTENT[offset:]
        assert asked == [None, "bytes=1-", "bytes=5000-"]
        assert hub.read(NET, COMMIT, "x", limit=len(CONTENT)) == CONTENT
        with pytest.raises(HubError, match="has more than 9 bytes"):
            hub.read(NET, COMMIT, "x", limit=9)


def test_a_line_that_breaks_off_is_taken_up_again() -> None:
    starts = []

    def stutter(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range") or "bytes=0-"
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        starts.append(start)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.end_headers()
        handler.wfile.write(CONTENT[start : start + 4000])

    with answering(stutter) as hub:
        stream = io.BytesIO()
        hub.download(NET, COMMIT, "x", stream)
        assert stream.getvalue() == CONTENT
        assert starts == [0, 4000, 8000]


def test_large_files_go_by_lfs_and_the_client_is_left_as_it_was() -> None:
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.headers.replace_header("Content-Length", "0")
        seen.append((handler.path, constants.HF_HUB_DISABLE_XET))
        if handler.path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            reply(handler, 200, json.dumps({"files": files}).encode())
        elif handler.path.endswith("/info/lfs/objects/batch"):
            objects = [{"oid": one["oid"], "size": one["size"]} for one in json.loads(body)["objects"]]
            reply(handler, 200, json.dumps({"transfer": "basic", "objects": objects}).encode())
        elif "/commit/main" in handler.path:
            seen.append([json.loads(line)["key"] for line in body.splitlines()])
            reply(
                handler,
                200,
                json.dumps(
                    {
                        "commitUrl": f"http://{handler.headers['Host']}/lab/net/commit/{COMMIT}",
                        "commitOid": COMMIT,
                    }
                ).encode(),
            )
        else:
            reply(handler, 404, b"{}")

    before = constants.HF_HUB_DISABLE_XET
    with answering(answer) as hub:
        changes = [Add("small", b"x"), Add("large", b"\0" * (LFS_FROM_BYTES + 1))]
        assert hub.commit(NET, changes, "m", parent=COMMIT) == COMMIT
    assert seen == [
        ("/api/models/lab/net/preupload/main", True),
        ("/lab/net.git/info/lfs/objects/batch", True),
        ("/api/models/lab/net/commit/main", True),
        ["header", "file", "lfsFile"],
    ]
    assert before == constants.HF_HUB_DISABLE_XET


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_upload_by_lfs_that_is_refused_is_named() -> None:
    content = b"lost"

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PUT":
            reply(handler, 507, b"{}", X_Error_Message="The disk is full.")
            return
        upload = {"upload": {"href": f"http://{handler.headers['Host']}/upload"}}
        lost = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "actions": upload}
        reply(handler, 200, json.dumps({"transfer": "basic", "objects": [lost]}).encode())

    with answering(answer) as hub, pytest.raises(HubError, match="failed with status 507: The disk is full"):
        hub.restore(NET, [Add("a", content)])


def telling(commit: object, files: list[object], body: bytes = b"evil\n") -> Answer:
    """An endpoint that says of one repository what it likes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path.endswith("/refs"):
            refs = [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit}]
            tags = [{"name": "v1.0.0", "ref": "refs/tags/v1.0.0", "targetCommit": commit}]
            reply(handler, 200, json.dumps({"branches": refs, "tags": tags, "converts": []}).encode())
        elif "/tree/" in path:
            reply(handler, 200, json.dumps(files).encode())
        elif "/resolve/" in path:
            reply(handler, 206 if handler.headers.get("Range") else 200, body)
        else:
            reply(handler, 200, json.dumps({"id": "lab/net", "sha": commit}).encode())

    return answer


def listed(
    oid: object, size: object = 5, *, lfs: bool = False, path: str = "modhub.json"
) -> dict[str, object]:
    entry = {"type": "file", "path": path, "size": size, "oid": "b" * 40 if lfs else oid}
    return {**entry, "lfs": {"oid": oid, "size": size, "pointerSize": 130}} if lfs else entry


@pytest.mark.parametrize("up", ["../../../victim", "{victim}", "../../../../../../../victim"])
@pytest.mark.parametrize("where", ["sha256", "oid", "commit"])
@pytest.mark.parametrize("size", [5, 9999])
def test_no_word_of_a_hub_leads_out_of_the_cache(tmp_path: Path, where: str, up: str, size: int) -> None:
    for name in ("victim", "victim.json"):
        (tmp_path / name).write_text("mine")
    said = up.format(victim=tmp_path / "victim")
    cache = Cache(tmp_path / "a" / "cache")
    files: list[object] = [
        listed(said, size, lfs=where == "sha256") if where != "commit" else listed("b" * 40)
    ]
    with answering(telling(said if where == "commit" else COMMIT, files)) as hub:
        catalog = Catalog(hub, cache)
        for ask in (lambda: pull(catalog, Ref.parse("lab/net")), lambda: catalog.releases(NET)):
            with pytest.raises(IntegrityError) as caught:
                ask()
            kind = "a sha256" if where == "sha256" else "a git sha1"
            assert caught.value.message == f"{hub.address} sent {said!r}, which is not {kind}."
        with suppress(ModhubError):
            catalog.files.fetch(NET, COMMIT, "modhub.json")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "a") == ["victim", "victim.json"]
    assert [(tmp_path / name).read_text() for name in ("victim", "victim.json")] == ["mine", "mine"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (listed("b" * 39), f"sent '{'b' * 39}', which is not a git sha1."),
        (listed("B" * 40), f"sent '{'B' * 40}', which is not a git sha1."),
        (listed(None), "sent None, which is not a git sha1."),
        (listed("b" * 40, lfs=True), f"sent '{'b' * 40}', which is not a sha256."),
        (listed(["x"], lfs=True), "sent ['x'], which is not a sha256."),
        (listed("b" * 40, -1), "sent -1, which is not a file's size."),
        (listed("b" * 40, "../5"), "sent '../5', which is not a file's size."),
        (listed("b" * 64, 10**300, lfs=True), f"sent {'1' + '0' * 196}…, which is not a file's size."),
        (listed("b" * 40, path="a\x1b[2J"), "sent 'a\\x1b[2J', which is not a name."),
        (listed("b" * 40, path="a\ud800"), "sent 'a\\ud800', which is not a name."),
    ],
)
def test_a_list_of_files_that_makes_no_sense(entry: object, said: str) -> None:
    with answering(telling(COMMIT, [entry])) as hub:
        with pytest.raises(IntegrityError) as caught:
            hub.tree(NET, COMMIT)
        assert caught.value.message == f"{hub.address} {said}"


def test_a_commit_that_makes_no_sense() -> None:
    with (
        answering(telling("../main", [])) as hub,
        pytest.raises(IntegrityError, match=r"sent '\.\./main', which is not a git sha1"),
    ):
        hub.commit_of(NET, "main")


def test_a_search_passes_over_names_that_no_ref_can_name() -> None:
    models = [
        {"id": name, "downloads": downloads} for name, downloads in (("gpt2", 1), ("a/--", 1), ("a/b", "x"))
    ]
    with answering(lambda handler: reply(handler, 200, json.dumps(models).encode())) as hub:
        assert [(str(one.id), one.downloads) for one in hub.find(["modhub"])] == [("a/b", 0)]


@pytest.mark.parametrize(
    "body", [b"<html>", b"null", b"[1]", b'{"branches": 5}', b'[{"id": 5}]', b"[" * 100_000], ids=range(6)
)
def test_something_that_is_no_hub(body: bytes) -> None:
    with answering(lambda handler: reply(handler, 200, body)) as hub:
        for ask in (
            lambda: hub.refs(NET),
            lambda: hub.commit_of(NET, "main"),
            lambda: hub.tree(NET, COMMIT),
            lambda: hub.find(),
        ):
            with suppress(HubError):
                ask()
        with pytest.raises(HubError, match=r"does not answer like a hub \(\w+\)\. Check the address"):
            hub.refs(NET)
