"""Releases do not move, whoever asks: the stock client is told so in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import TOKENS, Server, serving

FIXED = "spells the same version as release v1.0.0 of 'alice/net', which does not change."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: Server) -> HfApi:
    api = HfApi(endpoint=server.address, token=TOKENS["alice"])
    api.create_repo("alice/net")
    publish(api, "alice/net", b"one", "v1.0.0")
    publish(api, "alice/net", b"two")
    return api


def publish(api: HfApi, repository: str, content: bytes, tag: str = "") -> None:
    for path in ("modhub.json", "weights.bin"):
        api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repository)
    if tag:
        api.create_tag(repository, tag=tag)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda api: api.delete_tag("alice/net", tag="v1.0.0"),
            "is a release, and releases are not deleted.",
        ),
        (lambda api: api.create_tag("alice/net", tag="v1.0.0"), "Reference refs/tags/v1.0.0 already exists"),
        (lambda api: api.create_tag("alice/net", tag="v1.0"), FIXED),
        (lambda api: api.create_tag("alice/net", tag="v1", exist_ok=True), FIXED),
        (lambda api: api.create_tag("alice/net", tag="v1.0.0+x"), FIXED),
        (lambda api: api.create_branch("alice/net", branch="v1.0.0", exist_ok=True), FIXED),
    ],
)
def test_the_stock_client_is_told_why(api: HfApi, change: Callable[[HfApi], Any], sentence: str) -> None:
    before = api.model_info("alice/net", revision="v1.0.0").sha
    with pytest.raises(HfHubHTTPError) as caught:
        change(api)
    assert sentence in str(caught.value)
    assert api.model_info("alice/net", revision="v1.0.0").sha == before
    refs = api.list_repo_refs("alice/net")
    assert [ref.name for ref in (*refs.tags, *refs.branches)] == ["v1.0.0", "main"]


def test_squash_delete_and_create_again_change_no_release(server: Server, api: HfApi) -> None:
    api.create_repo("alice/short")
    publish(api, "alice/short", b"one", "v1.0.0")
    publish(api, "alice/short", b"two")
    api.super_squash_history("alice/short")
    assert server.ask("GET", "/alice/short/resolve/v1.0.0/weights.bin").body == b"one"
    api.delete_repo("alice/short")
    api.create_repo("alice/short")
    with pytest.raises(HfHubHTTPError, match=r"Release v1\.0\.0 of 'alice/short' was removed"):
        publish(api, "alice/short", b"two", "v1.0.0")
    publish(api, "alice/short", b"one", "v1.0.0")
    assert server.ask("GET", "/alice/short/resolve/v1.0.0/weights.bin").body == b"one"


def test_other_tags_and_branches_are_free(api: HfApi) -> None:
    api.create_tag("alice/net", tag="latest")
    api.delete_tag("alice/net", tag="latest")
    api.create_branch("alice/net", branch="v3-experiment")
    api.delete_branch("alice/net", branch="v3-experiment")


def test_a_server_sees_what_an_administrator_removed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        api = HfApi(endpoint=server.address, token=TOKENS["alice"])
        api.create_repo("alice/net")
        publish(api, "alice/net", b"one", "v1.0.0")
        assert server.ask("GET", "/api/models/alice/net/revision/v1.0.0").status == 200
        Store(tmp_path).releases.remove(RepositoryKey.model("alice/net"), "1.0.0")
        assert server.ask("GET", "/api/models/alice/net/revision/v1.0.0").error == "404 RevisionNotFound"
