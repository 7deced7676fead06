"""Which namespaces are the user's, as a hub says of the token."""

import pytest

from modhub.hub.directory import DirectoryHub
from modhub.hub.huggingface import HuggingFaceHub
from tests.support.hub_server import TOKENS, serving
from tests.support.hub_world import push


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.mark.parametrize(
    ("token", "namespaces"),
    [
        (TOKENS["alice"], {"alice", "lab"}),
        (TOKENS["bob"], {"bob"}),
        (TOKENS["admin"], {"admin"}),
        ("hf_unknown-token-0123456789", set()),
        (False, set()),
    ],
)
def test_a_server_says_whose_token_it_is(server, token, namespaces):
    assert HuggingFaceHub(server.address, token=token).namespaces() == namespaces


def test_a_directory_is_its_owners(tmp_path):
    assert DirectoryHub(tmp_path / "not" / "there").namespaces() is None
    # The root of the file system is the administrator's; tests may be run by that user.
    expected = None if tmp_path.owner() == "root" else frozenset()
    assert DirectoryHub("/").namespaces() == expected


def test_the_compose_page_takes_bare_labels_from_the_readers_own_namespaces(tmp_path):
    for namespace in ("alice", "evil"):
        push(tmp_path, f"{namespace}/net", ("cat",))
    with serving(tmp_path) as server:
        assert b"/alice/net/modules/cat?revision=" in server.ask("GET", "/compose?pick=cat", "alice").body
        for who in (None, "bob"):
            page = server.ask("GET", "/compose?pick=cat", who).body.decode()
            assert "offered only in namespaces that are not trusted: alice/net/cat, evil/net/cat." in page
        # A namespace that another pick names is trusted.
        named = server.ask("GET", "/compose?pick=puma+%3D+evil/net/cat&pick=cat").body
        assert named.count(b"/evil/net/modules/cat?revision=") == 2
