"""Addresses and sessions end with what they were given for; proposals stay so; downloads count once."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from modhub.errors import NotFoundError
from modhub.files import sha256_of_bytes
from modhub.hub.directory import DirectoryHub
from modhub.hub.huggingface import HuggingFaceHub
from modhub.refs import RepositoryId
from modhub.server.auth.accounts import Accounts
from tests.support.hub_server import TOKENS, Answer, Server, serving

CONTENT = b"\0weights"
SHA256 = sha256_of_bytes(CONTENT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """With a fresh repository `lab/net`."""
    _create(shared)
    yield shared
    for name, namespace in (("net", "lab"), ("copy", "bob"), ("new", "alice")):
        shared.ask("DELETE", "/api/repos/delete", "admin", {"name": name, "organization": namespace})


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """For those who revoke tokens."""
    with serving(tmp_path / "hub") as server:
        _create(server)
        yield server


def _create(server: Server) -> None:
    created = server.ask("POST", "/api/repos/create", "alice", {"name": "net", "organization": "lab"})
    assert created.status == 200
    assert server.commit("models/lab/net", {"a": b"1"}).status == 200


def batch(server: Server, who: str | None, operation: str = "upload", ref: str = "") -> str:
    """The address, without the host, that the batch route answers for `CONTENT`."""
    body = {"operation": operation, "objects": [{"oid": SHA256, "size": len(CONTENT)}]}
    body |= {"ref": {"name": ref}} if ref else {}
    answer = server.ask("POST", "/lab/net.git/info/lfs/objects/batch", who, body)
    (item,) = answer.json()["objects"]
    return str(item["actions"][operation]["href"]).removeprefix(server.address)


def private(server: Server) -> None:
    assert server.ask("PUT", "/api/models/lab/net/settings", "alice", {"visibility": "private"}).status == 200


def test_an_upload_address_ends_with_its_token(own_server: Server) -> None:
    first, second = batch(own_server, "alice"), batch(own_server, "alice")
    assert own_server.ask("PUT", first, body=CONTENT).status == 200
    Accounts(own_server.root).revoke(TOKENS["alice"])
    answer = own_server.ask("PUT", second, body=CONTENT)
    assert (answer.status, answer.json()["error"]) == (403, "The token of this URL is expired or revoked.")


def test_an_address_ends_with_what_its_user_may_do(server: Server) -> None:
    proposed = batch(server, "bob", ref="refs/pr/1")
    server.ask("PUT", batch(server, "alice"), body=CONTENT)
    served = batch(server, None, "download")
    assert server.ask("GET", served).body == CONTENT
    # An address is for one thing, whatever else its user may do.
    assert server.ask("PUT", served, body=CONTENT).status == 403
    private(server)
    assert server.ask("PUT", proposed, body=CONTENT).error == "404 RepoNotFound"
    assert server.ask("GET", served).error == "401 RepoNotFound"


@pytest.mark.parametrize("name", ["right", "token", "signature"])
def test_nothing_in_an_address_can_be_changed(server: Server, name: str) -> None:
    parts = urlsplit(batch(server, "bob", ref="refs/pr/1"))
    value = parse_qs(parts.query)[name][0]
    other = {"right": "write", "token": Accounts(server.root).tokens()[0].id, "signature": "1-2"}[name]
    assert server.ask("PUT", f"{parts.path}?{parts.query.replace(value, other)}", body=CONTENT).status == 403


def test_an_address_is_good_for_minutes(server: Server) -> None:
    expiry = parse_qs(urlsplit(batch(server, "alice")).query)["signature"][0].partition("-")[0]
    assert 60 < int(expiry) - time.time() <= 15 * 60


def login(server: Server) -> dict[str, str]:
    answer = server.ask(
        "POST",
        "/login",
        body=f"token={TOKENS['alice']}".encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    return {"Cookie": answer.headers["set-cookie"].split(";")[0]}


def test_a_session_ends_with_the_logout_in_every_server(own_server: Server) -> None:
    private(own_server)
    one, other = login(own_server), login(own_server)
    path = "/api/models/lab/net"
    assert [own_server.ask("GET", path, headers=session).status for session in (one, other)] == [200, 200]
    own_server.ask("POST", "/logout", headers=one)
    assert [own_server.ask("GET", path, headers=session).status for session in (one, other)] == [401, 200]
    with serving(own_server.root) as second:
        assert [second.ask("GET", path, headers=session).status for session in (one, other)] == [401, 200]
        Accounts(own_server.root).revoke(TOKENS["alice"])
        assert second.ask("GET", path, headers=other).status == 401


def propose(server: Server) -> str:
    answer = server.commit("models/lab/net", {"evil": b"2"}, "bob", query="?create_pr=1")
    return str(answer.json()["commitOid"])


def asked(server: Server, commit: str, who: str | None = None) -> list[str]:
    paths = ("/api/models/lab/net/revision/{}", "/api/models/lab/net/tree/{}", "/lab/net/resolve/{}/evil")
    return [server.ask("GET", path.format(commit), who).error for path in paths]


def test_the_commit_of_a_pull_request_is_no_commit_of_its_target(server: Server, tmp_path: Path) -> None:
    commit = propose(server)
    assert asked(server, commit) == ["404 RevisionNotFound"] * 3
    assert server.ask("GET", f"/lab/net/tree/{commit}").status == 404
    hub = DirectoryHub(server.root)
    for look in (hub.commit_of, hub.tree):
        with pytest.raises(NotFoundError, match="There is no revision"):
            look(RepositoryId("lab", "net"), commit)
    assert server.ask("POST", "/api/models/lab/net/discussions/1/merge", "alice", {}).status == 200
    assert asked(server, commit) == ["200"] * 3
    assert "evil" in hub.tree(RepositoryId("lab", "net"), commit)


def test_a_stock_client_reads_the_pull_request_that_it_names(server: Server, tmp_path: Path) -> None:
    commit = propose(server)
    api = HfApi(endpoint=server.address, token=False)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("lab/net", revision=commit)
    place = snapshot_download(
        "lab/net", revision="refs/pr/1", endpoint=server.address, cache_dir=tmp_path, token=False
    )
    assert Path(place, "evil").read_bytes() == b"2"
    # The others are still told that there is no such commit.
    assert asked(server, commit, "reader") == ["404 RevisionNotFound"] * 3


def test_a_commit_that_no_branch_has_any_more_is_gone(server: Server) -> None:
    before = server.ask("GET", "/api/models/lab/net").json()["sha"]
    server.commit("models/lab/net", {"evil": b"2"})
    head = server.ask("GET", "/api/models/lab/net").json()["sha"]
    assert asked(server, head) == ["200"] * 3
    assert server.ask("GET", f"/api/models/lab/net/revision/{before}").status == 200
    server.ask("POST", "/api/models/lab/net/super-squash/main", "alice", {})
    assert asked(server, head) == ["404 RevisionNotFound"] * 3


def test_a_private_name_and_no_name_take_the_same_time(server: Server) -> None:
    private(server)
    times: dict[str, list[float]] = {"lab/net": [], "lab/nothing": []}
    for _ in range(25):
        for name, taken in times.items():
            began = time.perf_counter()
            assert server.ask("GET", f"/api/models/{name}", "bob").status == 404
            taken.append(time.perf_counter() - began)
    # The fastest: what else the machine does makes others slower, and not those of one name.
    hidden, missing = (min(taken) for taken in times.values())
    assert missing > 0.009
    assert hidden == pytest.approx(missing, rel=0.2)


def test_a_duplicate_keeps_its_gate(server: Server) -> None:
    gate = {"gated": "manual", "readers": ["bob"]}
    assert server.ask("PUT", "/api/models/lab/net/settings", "alice", gate).status == 200
    body = {"repository": "bob/copy", "gated": False, "visibility": "public"}
    assert server.ask("POST", "/api/models/lab/net/duplicate", "bob", body).status == 200
    assert server.ask("GET", "/bob/copy/resolve/main/a").error == "401 GatedRepo"
    assert server.ask("GET", "/bob/copy/resolve/main/a", "alice").error == "403 GatedRepo"
    assert server.ask("GET", "/bob/copy/resolve/main/a", "bob").body == b"1"


def download(server: Server, who: str | None = None, revision: str = "main", **headers: str) -> Answer:
    marks = headers or {"X-HF-Download-Counter": "1"}
    return server.ask("GET", f"/lab/net/resolve/{revision}/a", who, headers=marks)


def test_downloads_are_counted_once_per_client_and_release(server: Server) -> None:
    def count() -> int:
        return int(server.ask("GET", "/api/models/lab/net").json()["downloads"])

    for _ in range(3):
        download(server)
    assert count() == 1
    for who in ("bob", "reader", "bob"):
        download(server, who)
    assert count() == 3
    download(server, **{"User-Agent": "unknown/None; hf_hub/0.36.2; python/3.12"})
    assert count() == 3
    first = server.ask("GET", "/api/models/lab/net").json()["sha"]
    server.commit("models/lab/net", {"b": b"2"})
    download(server, "bob")
    download(server, "bob", first)
    assert count() == 4
    hub = HuggingFaceHub(server.address, token=TOKENS["alice"])
    for _ in range(2):
        assert hub.read(RepositoryId("lab", "net"), first, "a") == b"1"
    assert count() == 4
    for _ in range(2):
        hub.download(RepositoryId("lab", "net"), first, "a", stream := io.BytesIO())
    assert (stream.getvalue(), count()) == (b"1", 5)
    # Restarted, it has not forgotten.
    with serving(server.root) as second:
        download(second, "bob")
        assert second.ask("GET", "/api/models?author=lab").json()[0]["downloads"] == 5


def test_a_new_repository_begins_as_on_the_hub(server: Server) -> None:
    api = HfApi(endpoint=server.address, token=TOKENS["alice"])
    api.create_repo("alice/new")
    assert api.list_repo_files("alice/new") == [".gitattributes"]
    (first,) = api.list_repo_commits("alice/new")
    assert first.title == "initial commit"
    assert "*.safetensors filter=lfs diff=lfs merge=lfs -text" in (
        server.ask("GET", "/alice/new/resolve/main/.gitattributes").body.decode().splitlines()
    )
    api.create_branch("alice/new", branch="side")
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="alice/new", revision="side")
    api.super_squash_history("alice/new", branch="side")
    assert api.list_repo_files("alice/new", revision="side") == [".gitattributes", "a"]
    api.super_squash_history("alice/new")
    assert len(api.list_repo_commits("alice/new")) == 1
    me = api.whoami()
    assert {"type", "id", "name", "fullname", "isPro", "avatarUrl", "orgs", "auth"} <= me.keys()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("alice", ["lab"])
    assert me["auth"]["accessToken"]["role"] == "write"


def test_a_pull_request_as_the_stock_client_leads_it(server: Server) -> None:
    owner, guest = (HfApi(endpoint=server.address, token=TOKENS[who]) for who in ("alice", "bob"))
    number = guest.create_pull_request("lab/net", title="A change", description="why").num
    assert number == 1
    pushed = guest.create_commit(
        "lab/net",
        [CommitOperationAdd("b", b"2")],
        commit_message="b <is> new",
        revision="refs/pr/1",
    )
    comment = guest.comment_discussion("lab/net", number, "frist")
    edited = guest.edit_discussion_comment("lab/net", number, comment.id, "first")
    assert (edited.content, edited.edited, edited.hidden) == ("first", True, False)
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(endpoint=server.address, token=TOKENS["reader"]).edit_discussion_comment(
            "lab/net", number, comment.id, "mine"
        )
    with pytest.warns(UserWarning, match="irreversible"):
        assert owner.hide_discussion_comment("lab/net", number, comment.id).hidden
    renamed = owner.rename_discussion("lab/net", number, "Another change")
    assert (renamed.old_title, renamed.new_title) == ("A change", "Another change")
    owner.merge_pull_request("lab/net", number)
    details = guest.get_discussion_details("lab/net", number)
    assert (details.status, details.title, details.target_branch) == (
        "merged",
        "Another change",
        "refs/heads/main",
    )
    told = [(event.type, getattr(event, "oid", None)) for event in details.events]
    assert told == [
        ("comment", None),
        ("commit", pushed.oid),
        ("comment", None),
        ("title-change", None),
        ("status-change", None),
    ]
    assert [getattr(event, "content", None) for event in details.events][2] == ""
    assert owner.list_repo_commits("lab/net", revision="refs/pr/1", formatted=True)[0].formatted_title == (
        "b &lt;is&gt; new"
    )
