"""A token goes to the hub that it was given for, and to no other."""

import hashlib
import json
import stat
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from modhub.api.login import login, logout
from modhub.errors import HubError, ParentError, RefError, StorageError, TokenRejectedError
from modhub.hub.huggingface import HuggingFaceHub
from modhub.hub.tokens import is_same_hub, stored_token
from modhub.refs import RepositoryId
from modhub.store.model import Add
from tests.support.hub_server import TOKENS, serving

NET = RepositoryId("lab", "net")


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A user with a token of huggingface.co, and no other."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "token").write_text("hf_official")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


@contextmanager
def listening(answer=lambda handler: (404, {}, b"{}")):
    """A hub's address, and the tokens it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sent(address, seen):
    with pytest.raises(HubError):
        HuggingFaceHub(address).refs(NET)
    return {*seen}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HF_TOKEN": "hf_env"}, None),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_env"}, None),
        ({"HF_TOKEN": "hf_env", "HF_ENDPOINT": "https://huggingface.co"}, None),
        ({"HF_TOKEN": "hf_env", "HF_ENDPOINT": "http://127.0.0.1:1"}, None),
        ({"HF_TOKEN": "hf_env", "HF_ENDPOINT": "https://ADDRESS"}, None),
        ({"HF_TOKEN": "hf_env", "HF_ENDPOINT": "http://[::1"}, None),
        ({"HF_ENDPOINT": "http://ADDRESS"}, None),
        ({"HF_TOKEN": "hf_env", "HF_ENDPOINT": "http://ADDRESS/"}, "Bearer hf_env"),
    ],
)
def test_tokens_of_the_environment(environment, expected, monkeypatch):
    with listening() as (address, seen):
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("ADDRESS", address.removeprefix("http://")))
        assert sent(address, seen) == {expected}


def test_the_official_hub_gets_its_own_and_no_other(monkeypatch):
    def token():
        hub = HuggingFaceHub()
        monkeypatch.setattr("modhub.hub.huggingface._check_reachable", lambda endpoint: None)
        return hub._api().token

    assert token() == "hf_official"
    monkeypatch.setenv("HF_TOKEN", "hf_env")
    assert token() == "hf_env"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    assert token() == "hf_official"


def test_a_login_is_for_one_hub(tmp_path):
    with listening() as (address, seen), listening() as (other, seen_there):
        assert login(address, "hf_mine").to_dict() == {"hub": address, "stored": True}
        assert sent(address + "/", seen) == {"Bearer hf_mine"}
        assert sent(other, seen_there) == {None}
        path = tmp_path / "config" / "modhub" / "tokens.json"
        assert json.loads(path.read_text()) == {address: "hf_mine"}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        logout(address)
        seen.clear()
        assert sent(address, seen) == {None}
        with pytest.raises(HubError) as caught:
            logout(address)
        assert str(caught.value) == f"No token is kept for {address}. Name the hub as at 'modhub login'."


@pytest.mark.parametrize("token", ["", "two words", "line\nline", "ümlaut", "\x1b[2J"])
def test_what_is_no_token_is_not_kept(token, tmp_path):
    with pytest.raises(RefError, match="The token is empty or holds a blank or an invalid character"):
        login("https://hub.example.org", token)
    assert not (tmp_path / "config").exists()


def test_a_directory_needs_none_and_a_damaged_file_is_named(tmp_path):
    with pytest.raises(HubError, match="is a directory, which needs no token"):
        login(str(tmp_path), "hf_mine")
    path = tmp_path / "config" / "modhub" / "tokens.json"
    path.parent.mkdir(parents=True)
    for content in ("[", "[]", '{"a": 1}'):
        path.write_text(content)
        with pytest.raises(StorageError, match=r"tokens\.json'"):
            stored_token("https://hub.example.org")


@pytest.mark.parametrize(
    ("endpoint", "url", "same"),
    [
        ("https://hub.org", "https://hub.org/api?x", True),
        ("https://hub.org", "https://HUB.org:443/", True),
        ("http://hub.org", "https://hub.org/", True),
        ("https://hub.org", "http://hub.org/", False),
        ("http://hub.org:8000", "https://hub.org/", False),
        ("https://hub.org", "https://hub.org:8443/", False),
        ("https://hub.org", "https://hub.org.evil.org/", False),
        ("https://hub.org", "https://hub.org@evil.org/", False),
        ("https://hub.org", "https://sub.hub.org/", False),
    ],
)
def test_same_hub(endpoint, url, same):
    assert is_same_hub(endpoint, url) is same


# What the client's own uploads do.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_no_redirect_page_or_upload_takes_the_token_to_another_host(tmp_path):
    """By a redirect, by the address of a list's next page, and by that to verify an upload."""
    with listening(lambda handler: (200, {}, b"[]")) as (other, there):
        here = "http://127.0.0.1"

        def answer(handler):
            if "/resolve/" in handler.path:
                return 302, {"Location": f"{other}/file"}, b""
            if handler.path.startswith("/api/models?"):
                return 200, {"Link": f'<{other}/api/models?p=2>; rel="next"'}, b"[]"
            if "/info/lfs/" in handler.path:
                upload = {"href": f"{here}/upload"}
                action = {"upload": upload, "verify": {"href": f"{other}/verify"}}
                found = {
                    "objects": [{"oid": hashlib.sha256(b"abc").hexdigest(), "size": 3, "actions": action}]
                }
                return 200, {"Content-Type": "application/vnd.git-lfs+json"}, json.dumps(found).encode()
            return 200, {}, b"{}"

        with listening(answer) as (address, seen):
            here = address
            hub = HuggingFaceHub(address, token="hf_mine")
            assert hub.read(NET, "a" * 40, "x") == b"[]"
            assert hub.find() == []
            (tmp_path / "x").write_bytes(b"abc")
            hub.restore(NET, [Add("x", tmp_path / "x")])
            assert seen.count("Bearer hf_mine") >= 3
        assert len(there) >= 3
        assert {*there} == {None}


def test_an_unknown_token_reads_what_is_public_with_a_warning(tmp_path, caplog):
    with serving(tmp_path / "hub") as server:
        for name, private in (("net", False), ("secret", True)):
            body = {"name": name, "organization": "lab", "private": private}
            server.ask("POST", "/api/repos/create", "alice", body)
        commit = server.commit("models/lab/net", {"a": b"1"}).json()["commitOid"]
        told = f"{server.address} rejected the token: it is invalid, expired or revoked."
        for read in (
            lambda hub: hub.find(),
            lambda hub: hub.refs(NET),
            lambda hub: hub.commit_of(NET, "main"),
            lambda hub: hub.tree(NET, commit),
            lambda hub: hub.read(NET, commit, "a"),
        ):
            caplog.clear()
            hub = HuggingFaceHub(server.address, token="hf_unknown")
            with caplog.at_level("WARNING", "modhub"):
                assert read(hub)
                assert read(hub)
            assert [record.getMessage() for record in caplog.records] == [f"{told} Reading without one."]
        hub = HuggingFaceHub(server.address, token="hf_unknown")
        for write in (
            lambda: hub.refs(RepositoryId("lab", "secret")),
            lambda: hub.commit(NET, [Add("a", b"2")], "more"),
            lambda: hub.create_tag(NET, "v1", commit),
        ):
            with pytest.raises(TokenRejectedError) as caught:
                write()
            assert str(caught.value).startswith(told)
        assert HuggingFaceHub(server.address, token=TOKENS["alice"]).refs(RepositoryId("lab", "secret"))


def test_parents_come_from_the_hub_of_the_environment(monkeypatch):
    from modhub.api.decompose import open_parent
    from modhub.data import open_data
    from modhub.decomposition import DecomposeOptions

    with listening() as (address, seen):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_env")
        with pytest.raises(ParentError, match=r"'lab/net' has no config\.json"):
            open_parent("hf:lab/net", open_data("digits", "train"), DecomposeOptions())
        assert {*seen} == {"Bearer hf_env"}


def test_login_on_the_command_line(tmp_path):
    from click.testing import CliRunner

    from modhub_cli.main import cli

    run = lambda *words, text="": CliRunner().invoke(cli, words, input=text)  # noqa: E731
    assert (
        run("login", "https://hub.example.org", "-q", text="hf_mine\n").output == "https://hub.example.org\n"
    )
    assert stored_token("https://hub.example.org") == "hf_mine"
    assert json.loads(run("logout", "https://hub.example.org", "--json").stdout) == {
        "hub": "https://hub.example.org",
        "stored": False,
    }
    assert not Path(tmp_path / "config/modhub/tokens.json").read_text().count("hf_mine")
