"""Organisations whose repositories are private unless somebody asks for a public one, as on the Hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from modhub.hub.huggingface import HuggingFaceHub
from modhub.refs import RepositoryId
from modhub.server.http.state import Options
from tests.support.hub_server import TOKENS, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub"), Options(private_organisations=("Lab",))) as server:
        yield server


@pytest.mark.parametrize(
    ("namespace", "asked", "private"),
    [
        ("lab", {}, True),
        ("LAB", {}, True),
        ("lab", {"private": None, "visibility": None}, True),
        ("lab", {"visibility": "public"}, False),
        ("lab", {"private": False}, False),
        ("lab", {"visibility": "private"}, True),
        ("alice", {}, False),
        ("alice", {"private": True}, True),
    ],
)
def test_who_creates_without_saying_gets_the_organisations_default(
    server: Server, namespace: str, asked: dict[str, Any], private: bool
) -> None:
    body = {"name": "net", "organization": namespace, **asked}
    assert server.ask("POST", "/api/repos/create", "alice", body).status == 200
    path = f"/api/models/{namespace}/net"
    assert server.ask("GET", path, "alice").json()["private"] is private
    assert server.ask("GET", path).error == ("401 RepoNotFound" if private else "200")
    server.ask("DELETE", "/api/repos/delete", "alice", {"name": "net", "organization": namespace})


def test_stock_clients_and_modhub_say_nothing_unless_asked(server: Server) -> None:
    api = HfApi(endpoint=server.address, token=TOKENS["alice"])
    api.create_repo("lab/stock")
    api.create_repo("lab/public", private=False)
    hub = HuggingFaceHub(server.address, token=TOKENS["alice"])
    hub.create_repository(RepositoryId("lab", "modhub"))
    hub.create_repository(RepositoryId("alice", "modhub"))
    shown = {entry["id"] for entry in server.ask("GET", "/api/models").json()}
    assert shown == {"lab/public", "alice/modhub"}


def test_without_organisations_named_all_are_public(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        HfApi(endpoint=server.address, token=TOKENS["alice"]).create_repo("lab/net")
        assert server.ask("GET", "/api/models/lab/net").status == 200
