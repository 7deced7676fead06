"""What was yanked stays yanked for a client, whatever becomes of `yanked.json`."""

import os
import stat

import pytest
from packaging.version import Version

from modhub.catalog.catalog import Catalog
from modhub.catalog.publish import unyank, yank
from modhub.errors import IntegrityError, ManifestError, NotFoundError, StorageError
from modhub.hub.cache import Cache
from modhub.refs import Ref, RepositoryId
from modhub.store.model import Add, Delete
from tests.support.releases import ReleaseHub

NET = RepositoryId("lab", "net")


@pytest.fixture
def hub(tmp_path):
    hub = ReleaseHub(tmp_path)
    hub.put("lab/net", "1.0.0", {"cat": 0.8})
    hub.put("lab/net", "1.1.0", {"cat": 0.8})
    yank(hub.catalog, NET, Version("1.1.0"), "wrong labels")
    return hub


def newest(catalog):
    return str(catalog.select(Ref(NET, None)))


def states(catalog):
    return {f"{release}": release.yanked for release in catalog.releases(NET)}


def test_a_file_that_was_deleted_is_remembered(hub):
    assert newest(hub.catalog) == "1.0.0"
    hub.hub.commit(NET, [Delete("yanked.json")], "clean up")
    assert newest(hub.catalog) == "1.0.0"
    # In the way of the file there may be a folder.
    hub.hub.commit(NET, [Add("yanked.json/x", b"{}")], "another")
    assert states(hub.catalog) == {"1.1.0": "wrong labels", "1.0.0": None}
    hub.hub.commit(NET, [Delete("yanked.json/x")], "clean up")
    yank(hub.catalog, NET, Version("1.0.0"), "too old")
    assert states(hub.catalog) == {"1.1.0": "wrong labels", "1.0.0": "too old"}
    unyank(hub.catalog, NET, Version("1.1.0"))
    assert newest(hub.catalog) == "1.1.0"


def test_a_later_release_tells_a_client_that_never_saw_it(hub, tmp_path):
    hub.put("lab/net", "0.9.0", {"cat": 0.8})
    hub.put("lab/net", "1.2.0", {"dog": 0.8})
    hub.hub.commit(NET, [Delete("yanked.json")], "clean up")
    fresh = Catalog(hub.hub, Cache(tmp_path / "fresh"))
    assert states(fresh)["1.1.0"] == "wrong labels"
    assert newest(fresh) == "1.2.0"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"1.1.0": 1}', b'{"x": "y"}', b"\xff"])
def test_a_file_that_cannot_be_read_is_an_error(hub, content):
    hub.hub.commit(NET, [Add("yanked.json", content)], "break it")
    with pytest.raises(ManifestError, match=r"yanked\.json of 'lab/net'"):
        newest(hub.catalog)


def test_a_file_whose_content_is_lost_is_an_error(hub, tmp_path):
    head = hub.hub.commit_of(NET, "main")
    blob = hub.hub.store.blobs.path(hub.hub.tree(NET, head)["yanked.json"].sha256 or "")
    assert blob is not None
    blob.unlink()
    with pytest.raises((IntegrityError, NotFoundError, StorageError)):
        newest(Catalog(hub.hub, Cache(tmp_path / "fresh")))


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        hub = ReleaseHub(tmp_path)
        hub.put("lab/net", "1.0.0", {"cat": 0.8})
        hub.catalog.manifest(NET, hub.catalog.releases(NET)[0].commit)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert len(modes) > 10
    assert {path.name: oct(mode) for path, mode in modes.items() if mode & mask} == {}
