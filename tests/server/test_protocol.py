"""What the protocol asks for, byte by byte; the stock clients' own way is in test_server_clients."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from modhub.server.http.state import Options
from modhub.server.serving import Listening
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import Server, commit_body, serving

BIG = random.Random(1).randbytes(1_300_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        files = {"README.md": b"# Hi\n", "dir/a b#?.txt": b"text", "dir/deep/big.bin": BIG, "Ünï/ö.txt": b"u"}
        assert server.commit("models/alice/net", files).status == 200
        yield server


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/models/nope", "404 RepoNotFound"),
        ("/api/models/alice/nope", "404 RepoNotFound"),
        ("/api/models/alice/net/revision/nope", "404 RevisionNotFound"),
        ("/api/models/alice/net/tree/main/nope", "404 EntryNotFound"),
        ("/alice/net/resolve/main/nope.txt", "404 EntryNotFound"),
        ("/alice/net/resolve/nope/README.md", "404 RevisionNotFound"),
        ("/nope/resolve/main/README.md", "404 RepoNotFound"),
        ("/datasets/alice/net/resolve/main/README.md", "404 RepoNotFound"),
        ("/api/models/alice/net?expand=nonsense", "400"),
        ("/api/models?sort=nonsense", "400"),
        ("/api/models?limit=x", "400"),
        ("/api/models/alice/net/xet-write-token/main", "404"),
        ("/api/models/%2e%2e/net", "404 RepoNotFound"),
        ("/alice/net/resolve/main/..%2f..%2faccounts.json", "404 EntryNotFound"),
        ("/alice/net/resolve/main/%2e%2e/%2e%2e/secret", "404 EntryNotFound"),
        ("/static/..%2frender.py", "404"),
        ("/alice/net/resolve/main/%ff", "400"),
        ("/alice/net/resolve/main/%00", "400"),
    ],
)
def test_errors(server: Server, path: str, expected: str) -> None:
    answer = server.ask("GET", path, "bob")
    assert answer.error == expected
    assert answer.headers["x-error-message"]
    assert answer.json()["error"]
    assert server.ask("HEAD", path, "bob").error == expected


def test_a_missing_file_tells_the_commit_so_that_clients_remember(server: Server) -> None:
    head = server.ask("GET", "/api/models/alice/net").json()["sha"]
    assert server.ask("HEAD", "/alice/net/resolve/main/nope").headers["x-repo-commit"] == head


@pytest.mark.parametrize("revision", ["main", "HEAD", "refs%2Fheads%2Fmain", "refs/heads/main"])
def test_revisions(server: Server, revision: str) -> None:
    assert server.ask("GET", f"/api/models/alice/net/revision/{revision}").json()["id"] == "alice/net"
    assert server.ask("GET", f"/alice/net/resolve/{revision}/dir/a%20b%23%3F.txt").body == b"text"
    folder = server.ask("GET", f"/api/models/alice/net/tree/{revision}/dir%2Fdeep")
    assert [one["path"] for one in folder.json()] == ["dir/deep/big.bin"]


@pytest.mark.parametrize(
    ("header", "status", "expected", "content_range"),
    [
        ("bytes=0-9", 206, BIG[:10], f"bytes 0-9/{len(BIG)}"),
        ("bytes=1299990-", 206, BIG[1_299_990:], f"bytes 1299990-1299999/{len(BIG)}"),
        ("bytes=-5", 206, BIG[-5:], f"bytes 1299995-1299999/{len(BIG)}"),
        ("bytes=5-99999999", 206, BIG[5:], f"bytes 5-1299999/{len(BIG)}"),
        ("bytes=1300000-", 416, b"", f"bytes */{len(BIG)}"),
        ("bytes=9-5", 416, b"", f"bytes */{len(BIG)}"),
        ("bytes=-0", 416, b"", f"bytes */{len(BIG)}"),
        ("bytes=a-b", 200, BIG, None),
        ("bytes=0-1,3-4", 200, BIG, None),
        ("lines=0-1", 200, BIG, None),
    ],
)
def test_ranges(server: Server, header: str, status: int, expected: bytes, content_range: str | None) -> None:
    answer = server.ask("GET", "/alice/net/resolve/main/dir/deep/big.bin", headers={"Range": header})
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if status != 416:
        assert answer.body == expected
        assert int(answer.headers["content-length"]) == len(expected)


@pytest.mark.parametrize(
    ("given", "status"),
    [("{}", 304), ("W/{}", 304), ('"x", W/{}', 304), ("*", 304), ('"x"', 200), ("W/x", 200), ("", 200)],
)
def test_a_copy_is_compared_weakly(server: Server, given: str, status: int) -> None:
    path = "/alice/net/resolve/main/README.md"
    etag = server.ask("HEAD", path).headers["etag"]
    answer = server.ask("GET", path, headers={"If-None-Match": given.format(etag)})
    assert (answer.status, answer.headers["etag"]) == (status, etag)


def test_heads_and_etags(server: Server) -> None:
    path = "/alice/net/resolve/main/dir/deep/big.bin"
    head = server.ask("HEAD", path)
    digest = hashlib.sha256(BIG).hexdigest()
    assert head.body == b""
    assert head.headers["etag"] == head.headers["x-linked-etag"] == f'"{digest}"'
    assert head.headers["x-linked-size"] == head.headers["content-length"] == str(len(BIG))
    assert "x-xet-hash" not in head.headers
    assert server.ask("GET", path, headers={"If-None-Match": f'"{digest}"'}).status == 304
    small = server.ask("HEAD", "/alice/net/resolve/main/README.md")
    assert small.headers["etag"] == '"' + hashlib.sha1(b"blob 5\0# Hi\n").hexdigest() + '"'
    assert small.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_every_get_route_answers_head(server: Server) -> None:
    for path in ("/api/models", "/api/models/alice/net", "/healthz", "/", "/alice/net", "/api/whoami-v2"):
        get, head = server.ask("GET", path, "alice"), server.ask("HEAD", path, "alice")
        assert (get.status, head.body) == (head.status, b"")


def test_the_request_id_comes_back(server: Server) -> None:
    given = server.ask("GET", "/healthz", headers={"X-Amzn-Trace-Id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    odd = server.ask("GET", "/healthz", headers={"X-Amzn-Trace-Id": "a b\t<"})
    assert len(odd.headers["x-request-id"]) == 32


def test_lists_have_pages(server: Server) -> None:
    for number in range(5):
        server.ask("POST", "/api/repos/create", "alice", {"name": f"page-{number}", "organization": "lab"})
    path, seen = "/api/models?author=lab&limit=2&sort=createdAt", []
    while path:
        answer = server.ask("GET", path)
        seen += [one["id"] for one in answer.json()]
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")].removeprefix(server.address) if link else ""
        assert len(seen) <= 6
    assert seen == [f"lab/page-{number}" for number in (4, 3, 2, 1, 0)]


def test_trees_have_pages(server: Server) -> None:
    server.ask("POST", "/api/repos/create", "alice", {"name": "many"})
    files = {f"f{number:04}": b"" for number in range(1203)}
    assert server.commit("models/alice/many", files).status == 200
    first = server.ask("GET", "/api/models/alice/many/tree/main?recursive=true")
    link = first.headers["link"]
    second = server.ask("GET", link[1 : link.index(">")].removeprefix(server.address))
    assert [len(first.json()), len(second.json())] == [1000, 204]
    assert "link" not in second.headers
    assert len(server.ask("GET", "/api/models/alice/many/tree/main?expand=true").json()) == 50


@pytest.mark.parametrize(
    ("lines", "status", "message"),
    [
        ([], 400, "The commit has no header."),
        (["x"], 400, "The request body is not valid JSON."),
        ([{"key": "file", "value": {}}], 400, "The first line of a commit must be its header."),
        ([{"key": "header", "value": {"summary": ""}}], 400, "The commit has no summary."),
        ([{"key": "header", "value": {"summary": "s", "parentCommit": "x"}}], 400, None),
        (["HEADER", {"key": "what", "value": {}}], 400, "Unknown commit line 'what'."),
        (["HEADER", {"key": "file", "value": {"path": "a"}}], 400, None),
        (["HEADER", {"key": "file", "value": {"content": "a", "path": "a"}}], 400, None),
        (["HEADER", {"key": "file", "value": {"content": "*!", "path": "a"}}], 400, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": "../a"}}], 422, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": "/a"}}], 422, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": ".git/config"}}], 422, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": "a\u202eb"}}], 422, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": "readme.MD"}}], 422, None),
        (["HEADER", {"key": "file", "value": {"content": "", "path": "dir"}}], 422, None),
        (["HEADER", {"key": "deletedFile", "value": {"path": "none"}}], 404, None),
        (["HEADER", {"key": "lfsFile", "value": {"path": "a", "oid": "0" * 64, "size": 1}}], 422, None),
        (["HEADER", {"key": "lfsFile", "value": {"path": "a", "oid": "0", "size": 1}}], 400, None),
        (["HEADER", {"key": "deletedFile", "value": {"path": "a", "content": "eA=="}}], 400, None),
    ],
)
def test_commits_that_are_none(server: Server, lines: list[object], status: int, message: str | None) -> None:
    before = server.ask("GET", "/api/models/alice/net").json()["sha"]
    header = {"key": "header", "value": {"summary": "s"}}
    texts = [json.dumps(header if line == "HEADER" else line) if line != "x" else "x" for line in lines]
    answer = server.ask("POST", "/api/models/alice/net/commit/main", "alice", "\n".join(texts).encode())
    assert answer.status == status, answer.body
    if message:
        assert answer.json()["error"] == message
    assert server.ask("GET", "/api/models/alice/net").json()["sha"] == before


def test_a_stale_parent_is_412_in_the_words_clients_know(server: Server) -> None:
    old = server.ask("GET", "/api/models/alice/net").json()["sha"]
    assert server.commit("models/alice/net", {"p.txt": b"1"}, parent=old).status == 200
    answer = server.commit("models/alice/net", {"p.txt": b"2"}, parent=old)
    assert (answer.status, answer.json()["error"]) == (
        412,
        "The branch was updated since you opened this page. Please refresh and try again.",
    )


def test_lfs_upload_verify_and_download(server: Server) -> None:
    content = os.urandom(69_999) + b"y"
    digest = hashlib.sha256(content).hexdigest()
    one = {"oid": digest, "size": len(content)}
    path = "/alice/net.git/info/lfs/objects/batch"
    asked = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [one]}
    actions = server.ask("POST", path, "alice", asked).json()["objects"][0]["actions"]
    href = actions["upload"]["href"].removeprefix(server.address)
    verify = actions["verify"]["href"].removeprefix(server.address)
    assert server.ask("POST", verify, "alice", one).status == 404
    for wrong in (b"short", content[:-1] + b"x", content + b"x"):
        assert server.ask("PUT", href, None, wrong).status in (413, 422)
    forged = href.replace(digest, "0" * 64)
    assert server.ask("PUT", forged, None, content).status == 403
    assert server.ask("PUT", href.replace("net", "many"), None, content).status == 403
    assert server.ask("PUT", href[:-1] + ("0" if href[-1] != "0" else "1"), None, content).status == 403
    expired = href.replace("signature=", "signature=1-")
    assert server.ask("PUT", expired, None, content).status == 403
    assert server.ask("PUT", href, None, content).status == 200
    assert server.ask("POST", verify, "alice", one).status == 200
    assert "actions" not in server.ask("POST", path, "alice", asked).json()["objects"][0]
    line = {"key": "lfsFile", "value": {"path": "up.bin", "algo": "sha256", **one}}
    assert server.commit("models/alice/net", {}, lines=(line,)).status == 200
    down = {"operation": "download", "objects": [one, {"oid": "1" * 64, "size": 3}]}
    found, missing = server.ask("POST", path, None, down).json()["objects"]
    assert missing["error"] == {"code": 404, "message": "Object does not exist."}
    there = found["actions"]["download"]["href"].removeprefix(server.address)
    assert server.ask("GET", there).body == content
    assert server.ask("GET", urlsplit(there).path).status == 403


@pytest.mark.parametrize(
    ("settings", "committed", "sent"),
    [
        ({}, True, False),
        ({}, False, True),
        ({"private": True}, True, True),
        ({"gated": "manual"}, True, True),
    ],
)
def test_what_a_public_repository_has_is_not_sent_again(
    server: Server, settings: dict[str, object], *, committed: bool, sent: bool
) -> None:
    """A trunk that somebody published; of bytes that not everyone may read a digest proves nothing."""
    name = f"trunk-{len(settings)}-{committed}-{'gated' in settings}"
    for repository in (name, f"{name}-again"):
        server.ask("POST", "/api/repos/create", "alice", {"name": repository})
    content = os.urandom(2000)
    one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    asked = {"operation": "upload", "objects": [one]}

    def answer(repository: str) -> dict[str, object]:
        reply = server.ask("POST", f"/alice/{repository}.git/info/lfs/objects/batch", "alice", asked)
        found: dict[str, object] = reply.json()["objects"][0]
        return found

    href = answer(name)["actions"]["upload"]["href"].removeprefix(server.address)  # type: ignore[index]
    assert server.ask("PUT", href, None, content).status == 200
    line = {"key": "lfsFile", "value": {"path": "trunk.bin", "algo": "sha256", **one}}
    if committed:
        assert server.commit(f"models/alice/{name}", {}, lines=(line,)).status == 200
    if settings:
        assert server.ask("PUT", f"/api/models/alice/{name}/settings", "alice", settings).status == 200
    assert ("actions" in answer(f"{name}-again")) is sent
    done = server.commit(f"models/alice/{name}-again", {}, lines=(line,))
    assert done.status == (422 if sent else 200)
    if not sent:
        path = f"/alice/{name}-again/resolve/main/trunk.bin"
        assert server.ask("GET", path).body == content


@pytest.mark.parametrize("repository", ["alice/net", f"{'o' * 90}/{'n' * 90}"])
def test_lfs_in_parts(server: Server, monkeypatch: pytest.MonkeyPatch, repository: str) -> None:
    from modhub.server.protocol import lfs

    monkeypatch.setattr(lfs, "MULTIPART_FROM", 1000)
    monkeypatch.setattr(lfs, "PART", 400)
    server.ask("POST", "/api/repos/create", "admin", {"name": repository})
    content = os.urandom(1100)
    one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    asked = {"operation": "upload", "transfers": ["multipart"], "objects": [one]}
    upload = server.ask("POST", f"/{repository}.git/info/lfs/objects/batch", "admin", asked)
    upload = upload.json()["objects"][0]["actions"]["upload"]
    header, href = upload["header"], upload["href"].removeprefix(server.address)
    assert header["chunk_size"] == "400"
    assert sorted(header) == ["1", "2", "3", "chunk_size"]
    done = {"oid": one["oid"], "parts": []}
    assert server.ask("POST", href, None, done).status == 422
    for number in (3, 1, 2):
        piece = content[(number - 1) * 400 : number * 400]
        part = header[str(number)].removeprefix(server.address)
        assert server.ask("PUT", part, None, piece[:-1]).status == 422
        assert server.ask("PUT", part, None, piece).headers["etag"]
    assert server.ask("POST", href, None, done).status == 200
    line = {"key": "lfsFile", "value": {"path": "parts.bin", "algo": "sha256", **one}}
    assert server.commit(f"models/{repository}", {}, "admin", lines=(line,)).status == 200
    assert server.ask("GET", f"/{repository}/resolve/main/parts.bin").body == content
    # Whoever missed the answer, or sent the same at the same time and comes second, asks again.
    assert server.ask("POST", href, None, done).status == 200
    assert list((server.root / "staging").glob("multipart-*")) == []


def test_the_card_check_speaks_json_and_plain_text(server: Server) -> None:
    good = {"content": "---\nlicense: mit\n---\nwords", "repoType": "model"}
    assert server.ask("POST", "/api/validate-yaml", None, good).json() == {"errors": [], "warnings": []}
    bad = {"content": "---\nlicense: [a\n---\n", "repoType": "model"}
    answer = server.ask("POST", "/api/validate-yaml", None, bad)
    assert answer.status == 400
    assert answer.json()["errors"][0]["message"].startswith("The metadata is not valid YAML")
    listed = {"content": "---\ntags: word\n---\n"}
    plain = server.ask("POST", "/api/validate-yaml", None, listed, {"Accept": "text/plain"})
    assert (plain.status, plain.body) == (400, b'- Error: "tags" must be an array of strings')


def test_moving_leaves_a_redirect_until_the_name_is_taken(server: Server) -> None:
    server.ask("POST", "/api/repos/create", "alice", {"name": "old"})
    server.commit("models/alice/old", {"a": b"1"})
    body = {"fromRepo": "alice/old", "toRepo": "lab/new", "type": "model"}
    assert server.ask("POST", "/api/repos/move", "bob", body).status == 403
    assert server.ask("POST", "/api/repos/move", "alice", body).status == 200
    for path in ("/api/models/alice/old?blobs=true", "/alice/old/resolve/main/a", "/alice/old"):
        answer = server.ask("GET", path)
        assert (answer.status, answer.headers["location"]) == (307, path.replace("alice/old", "lab/new"))
    taken = {**body, "fromRepo": "alice/net"}
    answer = server.ask("POST", "/api/repos/move", "alice", taken)
    assert (answer.status, answer.json()["error"]) == (
        409,
        "A model repository called lab/new already exists",
    )
    server.ask("PUT", "/api/models/lab/new/settings", "alice", {"private": True})
    assert server.ask("GET", "/api/models/alice/old").error == "401 RepoNotFound"
    server.ask("POST", "/api/repos/create", "alice", {"name": "old"})
    assert server.ask("GET", "/api/models/alice/old").json()["id"] == "alice/old"


def test_every_way_to_name_what_moved(tmp_path: Path) -> None:
    with serving(tmp_path, Options(public_url="https://hub.example.org/models/")) as server:
        for name, kind in (("old", "model"), ("old", "dataset")):
            server.ask("POST", "/api/repos/create", "alice", {"name": name, "type": kind})
            body = {"fromRepo": f"alice/{name}", "toRepo": "lab/new", "type": kind}
            assert server.ask("POST", "/api/repos/move", "alice", body).status == 200
        server.ask("POST", "/api/repos/create", "admin", {"name": "api/models"})
        server.ask("POST", "/api/repos/move", "admin", {"fromRepo": "api/models", "toRepo": "api/more"})
        for asked, told in (
            ("/api/models/alice/old?blobs=true", "/api/models/lab/new?blobs=true"),
            ("/api/models/alice/%6Fld/tree/main/a%2Fb", "/api/models/lab/new/tree/main/a%2Fb"),
            ("/datasets/%61lice/old/resolve/main/a", "/datasets/lab/new/resolve/main/a"),
            ("/alice/old/modules/cat", "/lab/new/modules/cat"),
            ("/api/models/api/models", "/api/models/api/more"),
        ):
            answer = server.ask("GET", asked)
            assert (answer.status, answer.headers["location"]) == (307, f"/models{told}")
        batch = server.ask("POST", "/alice/old.git/info/lfs/objects/batch", "alice", {})
        assert batch.headers["location"] == "/models/lab/new.git/info/lfs/objects/batch"
        said = "The repository 'alice/old' was renamed to 'lab/new'."
        for method, path, body in (
            ("DELETE", "/api/repos/delete", {"name": "old"}),
            ("POST", "/api/repos/move", {"fromRepo": "alice/old", "toRepo": "alice/newer"}),
        ):
            answer = server.ask(method, path, "alice", body)
            assert (answer.error, answer.json()["error"]) == ("404 RepoNotFound", said)


def test_names_that_differ_in_case_are_one(server: Server) -> None:
    answer = server.ask("POST", "/api/repos/create", "alice", {"name": "NET"})
    assert answer.status == 409
    assert answer.json()["url"] == f"{server.address}/alice/net"
    assert server.ask("GET", "/api/models/ALICE/Net").json()["id"] == "alice/net"


def test_downloads_are_counted_by_the_clients_mark(server: Server) -> None:
    def count() -> int:
        return int(server.ask("GET", "/api/models/alice/net").json()["downloads"])

    before = count()
    server.ask("GET", "/alice/net/resolve/main/README.md")
    server.ask("HEAD", "/alice/net/resolve/main/README.md", headers={"X-HF-Download-Counter": "1"})
    server.ask("GET", "/alice/net/resolve/main/README.md", headers={"X-HF-Download-Counter": "1"})
    assert count() == before + 1


def test_an_address_with_its_host_as_proxies_send_it(server: Server) -> None:
    assert server.ask("GET", "http://hub.example/alice/net/resolve/main/dir/a%20b%23%3F.txt").body == b"text"
    assert server.ask("GET", "http://hub.example").status == 200
    assert server.ask("GET", "HTTP://hub.example/api/models/alice%2fnope?a=b").status == 404
    page = server.ask("GET", "https://hub.example:81/api/models/alice/net/tree/main?recursive=1&limit=1")
    # The scheme is the proxy's to tell, in X-Forwarded-Proto.
    assert page.headers["link"].startswith("<http://hub.example:81/api/models/alice/net/tree/main?")
    assert server.ask("GET", "http://you@host/api/models/alice/net/tree/main?limit=1").status == 400


def test_no_host_is_shown_as_all(tmp_path: Path) -> None:
    listening = Listening(tmp_path, "", 0)
    with listening._listener:
        assert re.fullmatch(r"http://0\.0\.0\.0:[0-9]+", listening.address)


def test_a_change_that_cannot_be_proposed_leaves_no_pull_request(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        old = server.ask("GET", "/api/models/alice/net").json()["sha"]
        server.commit("models/alice/net", {"a": b"1"})
        link = {"key": "lfsFile", "value": {"path": "b", "algo": "sha256", "oid": "0" * 64, "size": 1}}
        gone = {"key": "deletedFile", "value": {"path": "nothing"}}
        for line, parent, status in ((link, None, 422), (gone, None, 404), ({}, old, 412)):
            lines = (line,) if line else ()
            answer = server.commit(
                "models/alice/net", {"c": b"2"}, "bob", parent=parent, lines=lines, query="?create_pr=1"
            )
            assert answer.status == status, answer.body
        assert server.ask("GET", "/api/models/alice/net/discussions").json()["count"] == 0
        assert "refs/pr/1" not in server.ask("GET", "/api/models/alice/net/refs?include_prs=1").body.decode()
        made = server.commit("models/alice/net", {"c": b"2"}, "bob", query="?create_pr=1").json()
        assert made["pullRequestUrl"].endswith("/alice/net/discussions/1")
        assert server.ask("GET", "/alice/net/resolve/refs%2Fpr%2F1/c").body == b"2"
        assert (
            made["commitOid"] in server.ask("GET", "/api/models/alice/net/refs?include_prs=1").body.decode()
        )


@pytest.mark.parametrize("who", [None, "alice"])
@pytest.mark.parametrize(
    "path", ["/api/spaces", "/api/collections", "/api/collections/alice/x", "/api/x/y/z"]
)
def test_what_the_api_does_not_have_is_no_repository(server: Server, path: str, who: str | None) -> None:
    answer = server.ask("GET", path, who)
    assert (answer.error, answer.json()["error"]) == ("404", "No such page or API route.")


def test_a_download_that_cannot_be_counted_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        server.commit("models/alice/net", {"README.md": b"# Hi\n"})
        # What a full or read-only disk does, root or not: no file can be opened for writing.
        (tmp_path / "repositories" / "model" / "alice" / "net" / "downloads").mkdir()
        path, marked = "/alice/net/resolve/main/README.md", {"X-HF-Download-Counter": "1"}
        assert server.ask("GET", path, headers=marked).body == b"# Hi\n"


def test_duplicate_holds_the_bytes_once(server: Server) -> None:
    answer = server.ask("POST", "/api/models/alice/net/duplicate", "bob", {"repository": "bob/copy"})
    assert answer.json() == {"url": f"{server.address}/bob/copy", "filesCopyPending": False}
    path = quote("Ünï/ö.txt")
    assert server.ask("GET", f"/bob/copy/resolve/main/{path}").body == b"u"


def test_what_cannot_be_duplicated_takes_no_name(tmp_path: Path) -> None:
    store, key = Store(tmp_path), RepositoryKey.model("alice/net")
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        assert server.commit("models/alice/net", {"a": b"1", "w.bin": BIG}).status == 200
        lost = store.blobs.path(store.reader.file(key, "main", "w.bin").sha256)
        assert lost is not None
        lost.unlink()
        asked = {"repository": "alice/copy"}
        answer = server.ask("POST", "/api/models/alice/net/duplicate", "alice", asked)
        assert (answer.status, "w.bin" in answer.json()["error"]) == (422, True)
        assert server.ask("GET", "/api/models/alice/copy", "alice").status == 404
        server.commit("models/alice/net", {"w.bin": BIG})
        assert server.ask("POST", "/api/models/alice/net/duplicate", "alice", asked).status == 200
        assert server.ask("GET", "/alice/copy/resolve/main/w.bin").body == BIG


def test_metrics_and_health(server: Server) -> None:
    assert server.ask("GET", "/healthz").json() == {"status": "ok", "read_only": False}
    text = server.ask("GET", "/metrics").body.decode()
    assert 'modhub_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert "modhub_request_seconds_bucket" in text
    assert "alice" not in text


def test_metrics_tell_what_is_stored_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as server:

        def gauges() -> dict[str, float]:
            lines = server.ask("GET", "/metrics").body.decode().splitlines()
            told = (line.split() for line in lines if line[0] != "#")
            return {name: float(value) for name, value in told}

        def held() -> int:
            return sum(path.stat().st_size for path in (tmp_path / "blobs").glob("??/*"))

        Store(tmp_path).repositories.create(RepositoryKey.model("alice/net"))
        before = gauges()
        assert before["modhub_stored_bytes"] == held()
        disk = shutil.disk_usage(tmp_path)
        assert before["modhub_disk_bytes"] == disk.total
        assert abs(before["modhub_disk_free_bytes"] - disk.free) < disk.total / 10
        assert server.commit("models/alice/net", {"w.bin": bytes(3_000_001)}).status == 200
        assert gauges()["modhub_stored_bytes"] == before["modhub_stored_bytes"], (
            "not counted at every request"
        )
        monkeypatch.setattr("modhub.server.http.state.SIZES_SECONDS", 0.0)
        assert gauges()["modhub_stored_bytes"] == held() > 3_000_001


def test_the_audit_log_names_who_did_what(server: Server) -> None:
    lines = [
        json.loads(line)
        for path in (server.root / "audit").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {"create-repository", "commit", "move-repository", "change-settings"} <= {
        line["action"] for line in lines
    }
    assert {line["actor"] for line in lines if line["subject"] == "model/bob/copy"} == {"bob"}


def test_a_commit_body_is_what_the_helper_says() -> None:
    lines = commit_body({"a": b"\0"}).split(b"\n")
    assert json.loads(lines[1])["value"] == {"content": "AA==", "path": "a", "encoding": "base64"}
