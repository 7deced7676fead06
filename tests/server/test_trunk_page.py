"""A trunk's page: what is published on it, and composing from there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from modhub.files import sha256_of_bytes
from tests.server.test_pages import main_after, see
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.hub_world import push, repository_files

TRUNK = sha256_of_bytes(repository_files("any/name", ("cat",), seed=3)["trunk/weights.safetensors"])
PAGE = f"/trunks/{TRUNK}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    push(root, "ann/animals", ("zebra", "okapi"), seed=3)
    push(root, "bob/machines", ("forklift",), seed=3)
    push(root, "bob/private", ("secret crane",), seed=3, private=True)
    push(root, "bob/elsewhere", ("zebra",), seed=4)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(root) as server:
        yield server


def test_classes_of_two_publishers_are_composed_from_the_page_of_their_trunk(
    server: Server, browser: Any
) -> None:
    see(browser, server, "/ann/animals/modules/zebra")
    text = main_after(browser, browser.find_element("link text", TRUNK[:12]).click)
    assert browser.current_url == server.address + PAGE
    for words in (
        f"Trunk {TRUNK[:12]} modhub:resnet20",
        "3 classes\n3 modules\n2 repositories",
        "cifar10 test",
    ):
        assert words in text
    assert "secret" not in text
    assert "elsewhere" not in text
    refs = [row.text.split()[0] for row in browser.find_elements("css selector", "tbody th")]
    assert refs == ["bob/machines/forklift", "ann/animals/okapi", "ann/animals/zebra"]
    for ref in (refs[0], refs[2]):
        browser.find_element("css selector", f"[aria-label='Pick {ref}']").click()
    button = browser.find_element("xpath", "//button[text()='Compose the picked modules']")
    composed = main_after(browser, button.click)
    assert "Resolution" in composed
    assert "Forward passes per image\n1" in composed
    assert parse_qs(urlsplit(browser.current_url).query) == {"pick": [refs[0], refs[2]]}


def test_a_search_on_the_page_is_for_classes_and_repositories(server: Server, browser: Any) -> None:
    assert "1 of 3 modules" in see(browser, server, f"{PAGE}?q=bob+fork")
    assert "2 of 3 modules" in see(browser, server, f"{PAGE}?q=ANN")
    assert "No class on this trunk matches “crane”. Search all trunks" in see(
        browser, server, f"{PAGE}?q=crane"
    )


def test_who_may_read_a_repository_sees_its_modules(server: Server) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
    assert b"bob/private/secret crane" in server.ask("GET", PAGE, headers=headers).body


def test_a_trunk_on_which_nothing_is_published_is_not_found(server: Server) -> None:
    answer = server.ask("GET", f"/trunks/{'0' * 64}", headers={"Accept": "text/html"})
    assert answer.status == 404
    assert b"Nobody has published modules on the trunk 000000000000 here." in answer.body


def test_stock_clients_list_what_stands_on_a_trunk(server: Server) -> None:
    from huggingface_hub import HfApi

    models = HfApi(endpoint=server.address, token=False).list_models(filter=f"trunk:{TRUNK}")
    assert sorted(model.id for model in models) == ["ann/animals", "bob/machines"]


def test_an_index_of_the_version_before_is_made_anew(tmp_path: Path) -> None:
    push(tmp_path, "ann/animals", ("zebra",), seed=3)
    with serving(tmp_path) as server:
        assert server.ask("GET", PAGE).status == 200
    with sqlite3.connect(tmp_path / "index.sqlite") as table:
        table.execute("DELETE FROM tags WHERE tag LIKE 'trunk:%'")
        table.execute("UPDATE meta SET value = '3' WHERE name = 'version'")
    table.close()
    with serving(tmp_path) as server:
        assert server.ask("GET", PAGE).status == 200
