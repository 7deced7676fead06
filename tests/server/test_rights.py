"""Who may do what, on every route there is: a table of roles, and no difference between hidden and absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from modhub.server.http.routing import Route
from tests.support.hub_server import TOKENS, Answer, Server, serving

PEOPLE = (None, "bob", "reader", "alice", "admin")
CARD = b"---\ntags: [modhub, 'class:unicorn']\n---\n# The secret card\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        for name, body in {
            "lab/secret": {"private": True},
            "lab/gate": {},
            "lab/list": {},
            "lab/open": {},
        }.items():
            namespace, _, short = name.partition("/")
            made = server.ask(
                "POST", "/api/repos/create", "alice", {"name": short, "organization": namespace, **body}
            )
            assert made.status == 200
            assert server.commit(f"models/{name}", {"README.md": CARD, "a/b.bin": b"\0" * 10}).status == 200
        for name, body in {
            "gate": {"gated": "auto"},
            "list": {"gated": "manual", "readers": ["bob"]},
        }.items():
            assert server.ask("PUT", f"/api/models/lab/{name}/settings", "alice", body).status == 200
        yield server


def _named_routes(server: Server) -> list[Route]:
    assert server.listening is not None
    return [
        route
        for route in server.listening.app.router.routes
        if "{namespace}/{name}" in route.pattern and "{sha256}" not in route.pattern
    ]


def _filled(route: Route, repository: str) -> str:
    values = {
        "kind": "model",
        "web": "",
        "namespace": repository.split("/")[0],
        "name": repository.split("/")[1],
        "revision": "main",
        "branch": "side",
        "tag": "v1",
        "number": "1",
        "slug": "unicorn",
        "level": "write",
        "path": "a/b.bin",
    }
    return re.sub(r"\{(\w+)\*?\}", lambda found: values[found[1]], route.pattern)


def _essence(answer: Answer, repository: str) -> tuple[int, dict[str, str], bytes]:
    """What an answer tells, without its time and identity, and without the name that was asked for."""
    told = {
        name: value.replace(repository, "NAME")
        for name, value in answer.headers.items()
        if name not in ("date", "x-request-id", "content-length")
    }
    body = answer.body.replace(repository.encode(), b"NAME")
    # The way to log in says where to come back to.
    return answer.status, told, body.replace(quote(repository, safe="").encode(), b"NAME")


@pytest.mark.parametrize("who", [None, "bob"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_no_route_tells_a_hidden_repository_from_an_absent_one(
    server: Server, who: str | None, accept: str
) -> None:
    routes = _named_routes(server)
    assert len(routes) > 35
    for route in routes:
        answers = []
        for repository in ("lab/secret", "lab/absent"):
            answer = server.ask(route.method, _filled(route, repository), who, b"{}", {"Accept": accept})
            answers.append(_essence(answer, repository))
            assert answer.status in (401, 404), (route.method, route.pattern)
        assert answers[0] == answers[1], (route.method, route.pattern)


def test_creating_beside_a_hidden_repository_tells_nothing(server: Server) -> None:
    body = {"name": "secret", "organization": "lab"}
    other = {"name": "absent", "organization": "lab"}
    for method, path in (("POST", "/api/repos/create"), ("DELETE", "/api/repos/delete")):
        for who in (None, "bob"):
            told = server.ask(method, path, who, body)
            same = server.ask(method, path, who, other)
            assert _essence(told, "secret")[0] == _essence(same, "absent")[0] >= 400
            assert told.body.replace(b"secret", b"") == same.body.replace(b"absent", b"")


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(
    "path",
    [
        "/api/models",
        "/api/models?search=secret",
        "/api/models?filter=class:unicorn",
        "/api/models?author=lab&full=true",
        "/",
        "/?q=secret",
        "/?class=unicorn",
        "/compose?q=unicorn",
        "/compose?pick=lab/secret/unicorn",
        "/metrics",
        "/healthz",
    ],
)
def test_lists_and_searches_show_only_what_one_may_see(server: Server, path: str, who: str | None) -> None:
    answer = server.ask("GET", path, who)
    assert answer.status == 200
    asked = b"secret" in path.encode()
    may_see = who in ("reader", "alice", "admin")
    if not asked and not may_see:
        assert b"secret" not in answer.body
    if path.startswith("/api/"):
        assert ("lab/secret" in [one["id"] for one in answer.json()]) == may_see
    if path == "/?q=secret":
        assert (b'href="/lab/secret"' in answer.body) == may_see


READ = "/lab/{}/resolve/main/a/b.bin"
INFO = "/api/models/lab/{}"
COMMIT = "/api/models/lab/{}/commit/main"
TABLE = [
    # method, path, repository, answers to: nobody, bob, reader, alice, admin
    ("GET", INFO, "open", "200 200 200 200 200"),
    ("GET", INFO, "secret", "401 404 200 200 200"),
    ("GET", INFO, "gate", "200 200 200 200 200"),
    ("GET", READ, "open", "200 200 200 200 200"),
    ("GET", READ, "secret", "401 404 200 200 200"),
    ("GET", READ, "gate", "401 200 200 200 200"),
    ("GET", READ, "list", "401 200 200 200 200"),
    ("GET", "/api/models/lab/{}/auth-check", "gate", "401 200 200 200 200"),
    ("GET", "/api/models/lab/{}/auth-check/write", "open", "401 403 403 200 200"),
    ("POST", COMMIT, "open", "401 403 403 400 400"),
    ("POST", COMMIT, "secret", "401 404 403 400 400"),
    ("PUT", "/api/models/lab/{}/settings", "open", "401 403 403 200 200"),
    ("POST", "/api/models/lab/{}/tag/main", "open", "401 403 403 400 400"),
    ("POST", "/api/models/lab/{}/branch/x%20y", "open", "401 403 403 400 400"),
    ("DELETE", "/api/models/lab/{}/branch/main", "open", "401 403 403 403 403"),
    ("POST", "/api/models/lab/{}/super-squash/nope", "open", "401 403 403 404 404"),
    ("POST", "/api/models/lab/{}/preupload/main", "open", "401 403 403 400 400"),
    ("POST", "/lab/{}.git/info/lfs/objects/batch", "open", "422 422 422 422 422"),
    ("POST", "/api/models/lab/{}/discussions", "open", "401 400 403 400 400"),
    ("POST", "/api/models/lab/{}/discussions/1/merge", "open", "401 403 403 404 404"),
]


@pytest.mark.parametrize(("method", "path", "repository", "expected"), TABLE)
def test_roles(server: Server, method: str, path: str, repository: str, expected: str) -> None:
    found = [
        str(server.ask(method, path.format(repository), who, b"" if method != "GET" else None).status)
        for who in PEOPLE
    ]
    assert " ".join(found) == expected


def test_the_manual_gate_keeps_others_out(server: Server) -> None:
    made = server.ask("PUT", "/api/models/lab/list/settings", "alice", {"readers": ["carol"]})
    assert made.status == 200
    answer = server.ask("GET", READ.format("list"), "bob")
    assert answer.error == "403 GatedRepo"
    assert answer.json()["error"] == (
        "Access to model lab/list is restricted and you are not in the authorized list."
    )
    server.ask("PUT", "/api/models/lab/list/settings", "alice", {"readers": ["bob"]})


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer wrong-token-000000", 401),
        ("Bearer", 401),
        ("Basic !!!", 401),
        ("Basic YWxpY2U6aGZfYWxpY2UtdG9rZW4tMDEyMzQ1Njc4OQ==", 200),
        ("Digest x", 401),
        ("Bearer \xff\xfe", 401),
    ],
)
def test_credentials(server: Server, header: str, status: int) -> None:
    answer = server.ask("GET", "/api/whoami-v2", headers={"Authorization": header})
    assert answer.status == status
    if status == 401:
        assert answer.headers["x-error-message"] == "Invalid credentials in Authorization header"


def test_bytes_of_a_hidden_repository_cannot_be_had_by_their_digest(server: Server) -> None:
    import hashlib

    # Bytes that stand in no public repository.
    assert server.commit("models/lab/secret", {"only.bin": b"\1" * 10}).status == 200
    digest = hashlib.sha256(b"\1" * 10).hexdigest()
    server.ask("POST", "/api/repos/create", "bob", {"name": "thief"})
    answer = server.commit(
        "models/bob/thief",
        {},
        "bob",
        lines=({"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": digest, "size": 10}},),
    )
    assert answer.status == 422
    assert "were never sent" in answer.json()["error"]
    batch = {"operation": "upload", "objects": [{"oid": digest, "size": 10}]}
    answer = server.ask("POST", "/bob/thief.git/info/lfs/objects/batch", "bob", batch)
    assert "upload" in answer.json()["objects"][0]["actions"]


def test_a_cookie_opens_pages_and_changes_nothing(server: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    bad = server.ask("POST", "/login", body=b"token=wrong-token-000000", headers=form)
    assert bad.status == 401
    foreign = {**form, "Origin": "http://evil.example"}
    assert (
        server.ask("POST", "/login", body=b"token=hf_alice-token-0123456789", headers=foreign).status == 403
    )
    answer = server.ask("POST", "/login", body=b"token=hf_alice-token-0123456789", headers=form)
    cookie = answer.headers["set-cookie"]
    assert answer.status == 303
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "alice-token" not in cookie
    session = {"Cookie": cookie.split(";")[0]}
    assert server.ask("GET", "/lab/secret", headers=session).status == 200
    assert server.ask("POST", "/api/repos/create", body={"name": "x"}, headers=session).status == 401
    forged = {"Cookie": cookie.split(";")[0][:-2] + "00"}
    assert server.ask("GET", "/lab/secret", headers=forged).status == 401


def test_a_revoked_token_is_out_at_once(tmp_path: Path) -> None:
    from modhub.server.auth.accounts import Accounts

    with serving(tmp_path) as server:
        token, value = Accounts(tmp_path).create_token("carol")
        assert server.ask("GET", "/api/whoami-v2", value).json()["name"] == "carol"
        Accounts(tmp_path).revoke(token.id)
        assert server.ask("GET", "/api/whoami-v2", value).status == 401
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert value.encode() not in kept


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        ("/nothing", 404, "Not found"),
        ("/a/b/c/d", 404, "Not found"),
        ("/nothing/here", 401, "Repository not found"),
        ("/lab/secret", 401, "Repository not found"),
        ("/lab/secret/resolve/main/a", 401, "Repository not found"),
        ("/logout", 405, "Request failed"),
        ("/static/none.css", 404, "Not found"),
    ],
)
def test_a_browser_gets_a_page_where_nothing_is(tmp_path: Path, path: str, status: int, title: str) -> None:
    with serving(tmp_path) as server:
        server.ask(
            "POST", "/api/repos/create", "alice", {"name": "secret", "organization": "lab", "private": True}
        )
        for accept in (BROWSER, "text/html", "application/json;q=0.5, text/html"):
            shown = server.ask("GET", path, headers={"Accept": accept})
            assert (shown.status, shown.headers["content-type"]) == (status, "text/html; charset=utf-8")
            assert f"<h1>{title}</h1>" in shown.body.decode()
            assert "/static/style.css" in shown.body.decode()
        for accept in ("*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", ""):
            told = server.ask("GET", path, headers={"Accept": accept})
            assert (told.status, told.headers["content-type"]) == (status, "application/json")
            assert told.json()["error"]
        api = server.ask("GET", "/api/models/lab/secret", headers={"Accept": BROWSER})
        assert (api.status, api.headers["content-type"]) == (401, "application/json")
        assert (
            server.ask("GET", "/a/b/c/d", "nobody-knows-this-token", headers={"Accept": BROWSER}).status
            == 404
        )
        odd = server.ask("GET", "/a/b/c/d", headers={"Accept": BROWSER, "Host": "a b"})
        assert (odd.status, odd.headers["content-type"]) == (404, "application/json")


def test_hints_name_what_helps(tmp_path: Path) -> None:
    from modhub.errors import AccessError
    from modhub.hub.huggingface import HuggingFaceHub
    from modhub.refs import RepositoryId
    from modhub.server.http.state import Options
    from modhub.store.model import Add

    net = RepositoryId("alice", "net")
    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        commit = server.commit("models/alice/net", {"a": b"1"}).json()["commitOid"]
        server.ask("PUT", "/api/models/alice/net/settings", "alice", {"gated": "manual"})
        for token, hint in (
            (
                False,
                f"To log in, run: modhub login {server.address} "
                "(or set HF_TOKEN, and HF_ENDPOINT to that hub)",
            ),
            (TOKENS["bob"], "Ask its owner to add you to its readers."),
        ):
            with pytest.raises(AccessError, match="must be granted first") as caught:
                HuggingFaceHub(server.address, token=token).read(net, commit, "a")
            assert caught.value.hint == hint
    with serving(tmp_path, Options(read_only=True)) as server:
        hub = HuggingFaceHub(server.address, token=TOKENS["alice"])
        with pytest.raises(AccessError, match="This hub is read-only") as caught:
            hub.commit(net, [Add("a", b"2")], "more")
        assert caught.value.hint == "Push to another hub; this one accepts no changes."


def test_a_read_only_server_changes_nothing(tmp_path: Path) -> None:
    from modhub.server.http.state import Options

    with serving(tmp_path) as server:
        server.ask("POST", "/api/repos/create", "alice", {"name": "net"})
        server.commit("models/alice/net", {"a": b"1"})
    with serving(tmp_path, Options(read_only=True)) as server:
        assert server.ask("GET", "/alice/net/resolve/main/a").body == b"1"
        answer = server.commit("models/alice/net", {"a": b"2"})
        assert (answer.status, answer.json()["error"]) == (403, "This hub is read-only.")
        assert server.ask("POST", "/api/repos/create", "alice", {"name": "b"}).status == 403
        assert server.ask("DELETE", "/api/repos/delete", "alice", {"name": "net"}).status == 403
