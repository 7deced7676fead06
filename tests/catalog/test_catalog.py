import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from packaging.version import Version

from modhub.catalog.catalog import Catalog
from modhub.catalog.publish import push, unyank, yank
from modhub.catalog.pull import pull
from modhub.catalog.search import search
from modhub.errors import (
    ConflictError,
    DigestMismatchError,
    HubError,
    IntegrityError,
    ManifestError,
    ModhubError,
    NotFoundError,
    OfflineError,
    RefError,
    ResolutionError,
    StorageError,
)
from modhub.hub import HUB_VARIABLE, default_hub, huggingface, open_hub
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.hub.huggingface import HuggingFaceHub
from modhub.manifest import RepositoryManifest
from modhub.project.resolver import resolve
from modhub.project.toml import Project
from modhub.refs import Ref, RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from modhub.store.tree import Tree
from modhub.text import pretty_json
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.paper import write_paper_artifact

NET = RepositoryId("lab", "net")
# How the stock client sends a file by LFS is an older way of its HTTP library's.
by_lfs = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ANIMALS = {"cat": 0.9, "dog": 0.8, "great white shark": None}


class RemoteHub(DirectoryHub):
    """A directory that counts as far away: what is read is remembered, and offline it is not asked."""

    local = False
    asked = 0

    def download(
        self,
        repository: RepositoryId,
        commit: str,
        path: str,
        destination: BinaryIO,
        *,
        offset: int = 0,
        reporter: Reporter = SILENT,
    ) -> None:
        self.asked += 1
        super().download(repository, commit, path, destination, offset=offset, reporter=reporter)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["directory", "remote", "server"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    """The same catalog on a folder, on one that counts as far away, and on a server."""
    cache = Cache(tmp_path / "cache")
    if request.param == "directory":
        return Catalog(DirectoryHub(tmp_path / "hub"), cache)
    if request.param == "remote":
        return Catalog(RemoteHub(tmp_path / "hub"), cache)
    server: Server = request.getfixturevalue("server")
    store = Store(server.root)
    for key in list(store.repositories.all()):
        store.repositories.delete(key)
    # What is published under a name is remembered for good, and these tests publish all they like.
    shutil.rmtree(store.root / "removed", ignore_errors=True)
    return Catalog(HuggingFaceHub(server.address, token=TOKENS["admin"]), cache)


def store_of(catalog: Catalog, request: pytest.FixtureRequest) -> Store:
    if isinstance(catalog.hub, DirectoryHub):
        return catalog.hub.store
    return Store(request.getfixturevalue("server").root)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_paper_artifact(tmp_path / "artifact", ANIMALS)


def release(catalog: Catalog, directory: Path, version: str, repository: RepositoryId = NET) -> str:
    return push(catalog, directory, repository, Version(version)).release.commit


def test_a_release_is_one_commit_and_a_tag(
    catalog: Catalog, artifact: Path, request: pytest.FixtureRequest
) -> None:
    done = push(catalog, artifact, NET, Version("1.0"))
    assert (done.existed, done.files) == (False, 10)
    refs = catalog.hub.refs(NET)
    assert refs.tags == {"v1.0": refs.branches["main"]} == {"v1.0": done.release.commit}
    assert len(list(store_of(catalog, request).reader.history(RepositoryKey.model(NET)))) == 2
    tree = catalog.hub.tree(NET, done.release.commit)
    # A server begins a repository with it, as huggingface.co does.
    assert set(tree) - {".gitattributes"} == {
        "README.md",
        "modhub.json",
        "trunk/graph.json",
        *(path for path in tree if path.startswith("trunk/") and path.endswith(".safetensors")),
        *(
            f"modules/{slug}/module.{end}"
            for slug in ("cat", "dog", "great-white-shark")
            for end in ("json", "safetensors")
        ),
    }
    card = catalog.hub.read(NET, done.release.commit, "README.md").decode()
    assert "lab/net" in card
    assert "class:great-white-shark" in card


def test_the_same_bytes_again_change_nothing_and_other_bytes_are_refused(
    catalog: Catalog, artifact: Path, tmp_path: Path
) -> None:
    first = release(catalog, artifact, "1.0.0")
    again = push(catalog, artifact, NET, Version("1.0.0"))
    assert (again.existed, again.release.commit, again.sent) == (True, first, 0)
    # 1.0 is 1.0.0 to PEP 440.
    assert push(catalog, artifact, NET, Version("1.0")).existed
    other = write_paper_artifact(tmp_path / "other", {"cat": 0.95})
    with pytest.raises(ConflictError) as caught:
        release(catalog, other, "1.0.0")
    assert str(caught.value) == (
        "Release 1.0.0 of 'lab/net' exists with other files. "
        "Releases never change; push the next version: --version 1.0.1"
    )
    assert catalog.hub.refs(NET).branches["main"] == first
    second = release(catalog, other, "1.1.0")
    assert "modules/dog/module.json" not in catalog.hub.tree(NET, second)
    assert "modules/dog/module.json" in catalog.hub.tree(NET, first)
    # The same files as another version: the same commit, another tag.
    assert release(catalog, other, "2.0.0") == second
    assert [str(one.version) for one in catalog.releases(NET)] == ["2.0.0", "1.1.0", "1.0.0"]


def test_a_push_that_was_killed_before_its_tag_is_finished_by_the_next(
    catalog: Catalog, artifact: Path, request: pytest.FixtureRequest
) -> None:
    commit = release(catalog, artifact, "1.0.0")
    store_of(catalog, request).releases.remove(RepositoryKey.model(NET), "1.0.0")
    assert catalog.releases(NET) == ()
    assert release(catalog, artifact, "1.0.0") == commit


def renamed(root: Path, before: str, after: str) -> None:
    """Move a file of an artifact, and say so in its manifest."""
    (root / after).parent.mkdir(exist_ok=True)
    (root / before).rename(root / after)
    manifest = root / "modhub.json"
    manifest.write_text(manifest.read_text().replace(f'"{before}"', f'"{after}"'))


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (lambda root: (root / "modhub.json").unlink(), ManifestError, "'{}' holds no modhub.json."),
        (
            lambda root: (root / "modules/cat/module.safetensors").write_bytes(b"x"),
            IntegrityError,
            "'{}/modules/cat/module.safetensors' has 1 bytes, expected 90.",
        ),
        (
            lambda root: (root / "trunk/graph.json").unlink(),
            IntegrityError,
            "'{}/trunk/graph.json' is missing.",
        ),
        (
            lambda root: (root / "link").symlink_to("/etc/passwd"),
            StorageError,
            "'{}/link' is not a plain file.",
        ),
        (
            lambda root: (
                (root / "trunk").rename(root.parent / "big")
                and (root / "trunk").symlink_to(root.parent / "big")
            ),
            StorageError,
            "'{}/trunk' is not a plain file.",
        ),
        (
            lambda root: renamed(root, "modules/cat/module.safetensors", "modules/.cat/module.safetensors"),
            IntegrityError,
            "'modules/.cat/module.safetensors', which a manifest in '{}' names, is not a file that is sent.",
        ),
        (
            lambda root: renamed(root, "trunk/graph.json", "yanked.json"),
            IntegrityError,
            "'yanked.json', which a manifest in '{}' names, is not a file that is sent.",
        ),
        (
            lambda root: (root / "trailing ").write_text(""),
            IntegrityError,
            "Invalid path 'trailing ': a part begins or ends with a space or ends with a dot.",
        ),
        (
            lambda root: (root / "Modhub.json").write_text(""),
            IntegrityError,
            "'Modhub.json' and 'modhub.json' differ only in case.",
        ),
    ],
)
def test_an_artifact_that_is_not_whole_never_reaches_the_hub(
    tmp_path: Path, artifact: Path, damage: Callable[[Path], object], kind: type[ModhubError], message: str
) -> None:
    catalog = Catalog(DirectoryHub(tmp_path / "hub"), Cache(tmp_path / "cache"))
    damage(artifact)
    with pytest.raises(kind) as caught:
        release(catalog, artifact, "1.0.0")
    assert caught.value.message == message.format(artifact)
    assert not (tmp_path / "hub").exists()


def test_a_version_that_no_tag_can_spell_and_an_artifact_without_modules_touch_no_hub(
    catalog: Catalog, artifact: Path
) -> None:
    with pytest.raises(RefError) as refused:
        release(catalog, artifact, "1!2.0")
    assert refused.value.message == "Invalid tag name 'v1!2.0'."
    manifest = RepositoryManifest.from_bytes((artifact / "modhub.json").read_bytes())
    (artifact / "modhub.json").write_bytes(replace(manifest, modules=()).to_bytes())
    with pytest.raises(ManifestError) as caught:
        release(catalog, artifact, "1.0.0")
    assert str(caught.value) == f"'{artifact}/modhub.json' lists no module. Make some with: modhub decompose"
    with pytest.raises(NotFoundError):
        catalog.hub.refs(NET)


def test_select(catalog: Catalog, artifact: Path, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.2.0", "2.0.0rc1"):
        release(catalog, artifact, version)
    commit = release(catalog, write_paper_artifact(tmp_path / "other", {"cat": 0.95}), "2.0.0")
    yank(catalog, NET, Version("1.2.0"), "bad mask")
    choices = {
        "lab/net": "2.0.0",
        "lab/net/cat<2": "1.0.0",
        "lab/net==1.2.0": "1.2.0",
        "lab/net==1.2": "1.2.0",
        "lab/net==v1.2.0": "1.2.0",
        "lab/net===1.2.0": "1.2.0",
        "lab/net==1.*": "1.0.0",
        "lab/net@v1.2.0": "1.2.0",
        "lab/net==2.0.0rc1": "2.0.0rc1",
        "lab/net@main": None,
        f"lab/net@{commit}": "2.0.0",
    }
    for text, version in choices.items():
        found = catalog.select(Ref.parse(text)).version
        assert (None if found is None else str(found)) == version, text
    known = "Releases: 2.0.0, 2.0.0rc1, 1.2.0 (yanked), 1.0.0."
    with pytest.raises(NotFoundError) as caught:
        catalog.select(Ref.parse("lab/net>=3"))
    assert str(caught.value) == f"'lab/net' has no release that matches '>=3'. {known}"
    with pytest.raises(NotFoundError) as caught:
        catalog.select(Ref.parse("lab/net@v9"))
    assert caught.value.message == "There is no revision 'v9' in 'lab/net'."
    with pytest.raises(NotFoundError) as caught:
        catalog.select(Ref.parse("lab/net/cat@1.0"))
    assert str(caught.value) == (
        "There is no revision '1.0' in 'lab/net'. "
        "Did you mean '==1.0'? What follows @ is a tag (v1.0.0), a branch or a commit."
    )
    with pytest.raises(NotFoundError) as caught:
        catalog.select(Ref.parse("lab/nett"))
    assert caught.value.message.startswith("There is no repository 'lab/nett'")
    assert caught.value.hint.startswith("Nearest: lab/net.")


def test_yank_and_unyank(catalog: Catalog, artifact: Path) -> None:
    release(catalog, artifact, "1.0.0")
    assert yank(catalog, NET, Version("1.0.0"), "bad mask").yanked == "bad mask"
    main = catalog.hub.refs(NET).branches["main"]
    assert json.loads(catalog.hub.read(NET, main, "yanked.json")) == {"1.0.0": "bad mask"}
    yank(catalog, NET, Version("1.0.0"), "bad mask")
    assert catalog.hub.refs(NET).branches["main"] == main
    # A push leaves yanked.json alone, and the release itself never had it.
    release(catalog, artifact, "1.1.0")
    assert [one.yanked for one in catalog.releases(NET)] == [None, "bad mask"]
    assert push(catalog, artifact, NET, Version("1.0.0")).existed
    unyank(catalog, NET, Version("1.0.0"))
    assert [one.yanked for one in catalog.releases(NET)] == [None, None]
    with pytest.raises(
        NotFoundError, match=r"'lab/net' has no release that matches '==7'\. Releases: 1\.1\.0, 1\.0\.0"
    ):
        yank(catalog, NET, Version("7"), "")


def holds(catalog: Catalog, commit: str) -> bool:
    """Whether main has the files of a release, beside what belongs to all of them."""
    main = catalog.hub.tree(NET, catalog.hub.commit_of(NET, "main"))
    return {path: main[path] for path in main if path != "yanked.json"} == catalog.hub.tree(NET, commit)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another network, which has a class in common with `artifact`."""
    return write_paper_artifact(tmp_path / "other", {"dog": 0.7, "cow": 0.6}, trunk="other")


def test_main_shows_the_newest_release_whatever_was_pushed_or_yanked_last(
    catalog: Catalog, artifact: Path, other: Path, tmp_path: Path
) -> None:
    def shown(label: str) -> list[str]:
        return [f"{hit.ref} {hit.version}" for hit in search(catalog, [label])]

    newest = release(catalog, artifact, "2.0.0")
    backport = release(catalog, other, "1.0.1")
    assert holds(catalog, newest)
    assert not holds(catalog, backport)
    assert (shown("cat"), shown("cow")) == (["lab/net/cat 2.0.0"], [])
    assert str(catalog.details(Ref.parse("lab/net")).release) == "2.0.0"
    pre = write_paper_artifact(tmp_path / "pre", {"dog": 0.7, "gnu": 0.6}, trunk="pre")
    release(catalog, pre, "3.0rc1")
    assert (shown("dog"), shown("gnu")) == (["lab/net/dog 2.0.0"], [])
    yank(catalog, NET, Version("2.0"), "wrong labels")
    assert holds(catalog, backport)
    assert (shown("cat"), shown("cow")) == ([], ["lab/net/cow 1.0.1"])
    unyank(catalog, NET, Version("2.0"))
    assert holds(catalog, newest)
    main = catalog.hub.commit_of(NET, "main")
    # Nothing is to be done, and nothing is done.
    unyank(catalog, NET, Version("2.0"))
    assert push(catalog, other, NET, Version("1.0.1")).existed
    assert catalog.hub.commit_of(NET, "main") == main
    assert catalog.hub.lost(NET, main) == frozenset()


def test_a_push_moves_main_that_an_older_modhub_left_behind(
    catalog: Catalog, artifact: Path, other: Path
) -> None:
    newest = release(catalog, artifact, "2.0.0")
    backport = release(catalog, other, "1.0.1")
    tree = catalog.hub.tree(NET, backport)
    changes = [Add("modhub.json", catalog.hub.read(NET, backport, "modhub.json"))]
    catalog.hub.commit(NET, changes, "main lags")
    assert tree["modhub.json"] == catalog.hub.tree(NET, catalog.hub.commit_of(NET, "main"))["modhub.json"]
    assert push(catalog, artifact, NET, Version("2.0.0")).existed
    assert holds(catalog, newest)


def test_an_edited_card_of_main_is_left_alone(catalog: Catalog, artifact: Path, tmp_path: Path) -> None:
    release(catalog, artifact, "1.0.0")
    release(catalog, write_paper_artifact(tmp_path / "other", {"cat": 0.95}), "2.0.0")
    card = b"---\ntags: [modhub, 'class:cat', 'class:tom']\n---\nA better text."
    catalog.hub.commit(NET, [Add("README.md", card)], "A better card")
    yank(catalog, NET, Version("1.0.0"), "old")
    main = catalog.hub.commit_of(NET, "main")
    assert catalog.hub.read(NET, main, "README.md") == card
    assert catalog.providers("tom") == (NET,)


def test_writers_who_interleave_leave_main_at_the_newest_release(
    tmp_path: Path, artifact: Path, other: Path
) -> None:
    class Interrupted(DirectoryHub):
        """Whoever commits the backport is overtaken before its tag."""

        overtaken = False

        def create_tag(self, repository: RepositoryId, name: str, commit: str) -> None:
            if name == "v1.0.1" and not self.overtaken:
                self.overtaken = True
                release(
                    Catalog(DirectoryHub(tmp_path / "hub"), Cache(tmp_path / "second")), artifact, "2.1.0"
                )
            super().create_tag(repository, name, commit)

    catalog = Catalog(Interrupted(tmp_path / "hub"), Cache(tmp_path / "cache"))
    release(catalog, write_paper_artifact(tmp_path / "two", {"cat": 0.9, "dog": 0.8}), "2.0.0")
    backport = release(catalog, other, "1.0.1")
    refs = catalog.hub.refs(NET)
    assert refs.tags["v1.0.1"] == backport
    assert holds(catalog, refs.tags["v2.1.0"])


def test_a_release_without_a_class_in_common_needs_consent(
    catalog: Catalog, artifact: Path, tmp_path: Path
) -> None:
    first = release(catalog, artifact, "1.0.0")
    birds = write_paper_artifact(tmp_path / "birds", {"owl": 0.9, "jay": 0.8}, trunk="birds")
    with pytest.raises(ConflictError) as caught:
        release(catalog, birds, "1.1.0")
    assert str(caught.value) == (
        "Release 1.1.0 of 'lab/net' would have no class in common with release 1.0.0: owl, jay, not cat, "
        "dog, great white shark. Push it to a repository of its own, or pass --force to publish it in this "
        "one."
    )
    assert catalog.hub.refs(NET).branches["main"] == first
    # There is nothing before it.
    release(catalog, birds, "0.9")
    assert holds(catalog, first)
    assert push(catalog, birds, NET, Version("1.1.0"), force=True).release.version == Version("1.1.0")
    assert [hit.ref for hit in search(catalog, ["owl"])] == ["lab/net/owl"]


def test_a_second_module_costs_kilobytes(catalog: Catalog, artifact: Path, tmp_path: Path) -> None:
    release(catalog, artifact, "1.0.0")
    other = RepositoryId("lab", "twin")
    release(catalog, artifact, "1.0.0", other)
    first = pull(catalog, Ref.parse("lab/net/cat"))
    assert {path for path in first.files if path.startswith("modules/")} == {
        "modules/cat/module.json",
        "modules/cat/module.safetensors",
    }
    trunk = first.manifest.trunk
    assert trunk is not None
    assert first.bytes_fetched > trunk.weights.size == 25_000
    second = pull(catalog, Ref.parse("lab/net/DOG"))
    assert 0 < second.bytes_fetched < 4_000
    assert pull(catalog, Ref.parse("lab/net/dog")).bytes_fetched == 0
    # The twin has the same bytes under another name.
    assert pull(catalog, Ref.parse("lab/twin/cat")).bytes_fetched == 0
    for path, local in first.files.items():
        if path != "README.md":
            assert local.read_bytes() == (artifact / path).read_bytes()
    with pytest.raises(NotFoundError) as caught:
        pull(catalog, Ref.parse("lab/net/catt"))
    assert str(caught.value) == "There is no class 'catt' in lab/net 1.0.0. Nearest: cat."


def test_a_trunk_in_another_repository(catalog: Catalog, artifact: Path, tmp_path: Path) -> None:
    commit = release(catalog, artifact, "1.0.0")
    borrower = write_paper_artifact(tmp_path / "borrower", {"bird": 0.7})
    manifest = RepositoryManifest.from_bytes((borrower / "modhub.json").read_bytes())
    assert manifest.trunk is not None
    away = replace(manifest, trunk=replace(manifest.trunk, repository="lab/net", revision=commit))
    (borrower / "modhub.json").write_bytes(away.to_bytes())
    for file in (borrower / "trunk").iterdir():
        file.unlink()
    lender = RepositoryId("lab", "bird")
    done = release(catalog, borrower, "1.0.0", lender)
    assert not any(path.startswith("trunk/") for path in catalog.hub.tree(lender, done))
    pulled = pull(catalog, Ref.parse("lab/bird/bird"))
    assert pulled.trunk_commits == {manifest.trunk.sha256: (NET, commit)}
    assert pulled.locate(manifest.trunk.weights).stat().st_size == 25_000
    lost = replace(manifest, trunk=replace(manifest.trunk, repository="lab/net", revision="v9"))
    (borrower / "modhub.json").write_bytes(lost.to_bytes())
    with pytest.raises(NotFoundError, match="There is no revision 'v9' in 'lab/net'"):
        release(catalog, borrower, "1.0.1", lender)


def test_search(catalog: Catalog, artifact: Path, tmp_path: Path) -> None:
    release(catalog, artifact, "1.0.0")
    digits = write_paper_artifact(tmp_path / "d", {"cat": 0.95, "7": 0.5}, trunk="t2", licence="apache-2.0")
    release(catalog, digits, "0.1", RepositoryId("other", "zoo"))
    empty = RepositoryId("other", "empty")
    catalog.hub.create_repository(empty)
    catalog.hub.commit(empty, [Add("README.md", b"---\ntags: [modhub, 'class:cat']\n---\n")], "no release")

    def refs(*labels: str, **wanted: str) -> list[str]:
        return [hit.ref for hit in search(catalog, labels, **wanted)]

    assert refs("cat") == ["other/zoo/cat", "lab/net/cat"]
    assert refs("dog", "Cat") == ["lab/net/dog", "other/zoo/cat", "lab/net/cat"]
    assert refs("cat", license="MIT") == ["lab/net/cat"]
    assert refs("cat", dataset="cifar10") == []
    assert refs("cat", architecture="tiny", text="zoo") == ["other/zoo/cat"]
    assert refs("Great White Shark") == ["lab/net/great white shark"]
    assert refs("cta") == []
    assert len(refs()) == 5
    assert search(catalog, ["cat"], limit=1)[0].metrics == {"recall": 0.95, "precision": 0.75}
    assert set(catalog.providers("cat")) == {NET, RepositoryId("other", "zoo"), empty}


def test_details(catalog: Catalog, artifact: Path) -> None:
    release(catalog, artifact, "1.0.0")
    details = catalog.details(Ref.parse("lab/net/cat"))
    assert details.module is not None
    assert (details.module.label, str(details.release.version)) == ("cat", "1.0.0")
    assert details.card.startswith("---\n")
    assert catalog.details(Ref.parse("lab/net")).module is None


def test_offline_uses_what_was_pulled_and_asks_nobody(artifact: Path, tmp_path: Path) -> None:
    hub = RemoteHub(tmp_path / "hub")
    cache = Cache(tmp_path / "cache")
    online = Catalog(hub, cache)
    release(online, artifact, "1.0.0")
    pulled = pull(online, Ref.parse("lab/net/cat"))
    (tmp_path / "hub").rename(tmp_path / "gone")
    asked = hub.asked
    offline = Catalog(hub, cache, offline=True)
    assert pull(offline, Ref.parse("lab/net/cat>=1")).files == pulled.files
    assert [hit.ref for hit in search(offline, ["cat"])] == ["lab/net/cat"]
    assert hub.asked == asked
    with pytest.raises(OfflineError) as caught:
        pull(offline, Ref.parse("lab/net/dog"))
    assert str(caught.value) == (
        f"'modules/dog/module.json' of 'lab/net' at {pulled.release.commit[:12]} is not in the cache, "
        "and the hub is not contacted when offline. Run the command once without --offline."
    )
    with pytest.raises(OfflineError, match="The list of releases of 'lab/other' is not in the cache"):
        offline.releases(RepositoryId("lab", "other"))
    with pytest.raises(OfflineError):
        push(offline, artifact, NET, Version("2"))


def test_a_tampered_blob_is_refused_and_nothing_is_kept(
    catalog: Catalog, artifact: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "PAUSES", ())
    commit = release(catalog, artifact, "1.0.0")
    store = store_of(catalog, request)
    path = "modules/cat/module.safetensors"
    blob = store.blobs.path(store.reader.file(RepositoryKey.model(NET), commit, path).sha256)
    assert blob is not None
    whole = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(whole[:-1] + b"?")
    with pytest.raises(
        DigestMismatchError, match=r"'modules/cat/module.safetensors' of 'lab/net' .* has the sha256 "
    ):
        pull(catalog, Ref.parse("lab/net/cat"))
    blob.write_bytes(whole[:-1])
    with pytest.raises(ModhubError, match=r"ended after|was lost"):
        pull(catalog, Ref.parse("lab/net/cat"))
    blob.write_bytes(whole)
    pull(catalog, Ref.parse("lab/net/cat"))


@by_lfs
def test_a_push_brings_back_what_a_hub_has_lost(
    catalog: Catalog, artifact: Path, request: pytest.FixtureRequest
) -> None:
    commit = release(catalog, artifact, "1.0.0")
    store = store_of(catalog, request)
    whole = store.reader.tree(RepositoryKey.model(NET))
    tree = Tree({path: file for path, file in whole.items() if path != ".gitattributes"})
    for file in tree.values():
        blob = store.blobs.path(file.sha256)
        assert blob is not None
        blob.unlink()
    assert catalog.hub.lost(NET, commit) == set(tree)
    done = push(catalog, artifact, NET, Version("1.0.0"))
    assert (done.existed, done.release.commit) == (True, commit)
    assert done.sent == sum(file.size for file in tree.values())
    assert (catalog.hub.lost(NET, commit), store.reader.lost(tree)) == (frozenset(), [])
    pull(catalog, Ref.parse("lab/net/cat"))


@by_lfs
def test_a_push_brings_back_what_only_an_older_release_has(
    catalog: Catalog, artifact: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = release(catalog, artifact, "1.0.0")
    # A small text and an empty file are no LFS files, and come back all the same.
    newer = write_paper_artifact(tmp_path / "newer", ANIMALS, trunk="other")
    (artifact / "notes.txt").write_text("old")
    (artifact / "empty.txt").write_text("")
    second = release(catalog, artifact, "1.1.0")
    newest = release(catalog, newer, "2.0.0")
    store = store_of(catalog, request)
    trees = [store.reader.tree(RepositoryKey.model(NET), commit) for commit in (first, second, newest)]
    only = {path: file for path, file in trees[1].items() if file not in trees[2].values()}
    assert {"notes.txt", "empty.txt", "trunk/graph.json"} <= set(only)
    assert any(path.endswith(".safetensors") for path in only)
    for file in only.values():
        blob = store.blobs.path(file.sha256)
        assert blob is not None
        blob.unlink()
    done = push(catalog, artifact, NET, Version("1.1.0"))
    assert (done.existed, done.release.commit) == (True, second)
    assert done.sent == sum(file.size for file in only.values())
    assert [store.reader.lost(tree) for tree in trees] == [[], [], []]
    assert catalog.hub.commit_of(NET, "main") == newest
    assert push(catalog, artifact, NET, Version("1.1.0")).sent == 0


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"{", ManifestError, "is not valid JSON"),
        (pretty_json({"schema_version": 99}), ManifestError, "has schema version 99"),
        (b"[" * 100_000, ManifestError, "nested too deeply|is not valid JSON"),
    ],
)
def test_a_manifest_that_cannot_be_read(
    catalog: Catalog, content: bytes, kind: type[ModhubError], message: str
) -> None:
    catalog.hub.create_repository(NET)
    commit = catalog.hub.commit(NET, [Add("modhub.json", content)], "x")
    catalog.hub.create_tag(NET, "v1.0", commit)
    with pytest.raises(kind, match=message):
        pull(catalog, Ref.parse("lab/net/cat"))
    assert search(catalog) == []


class Warned(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


def spoilt(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def make(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return make


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (None, "'evil/x' at {} has no modhub.json."),
        (
            spoilt(lambda it: it["modules"][0]["manifest"].update(path="../x")),
            "The path '../x' does not stay in",
        ),
        (
            spoilt(lambda it: it.update(schema_version=99)),
            "{place} has schema version 99; this modhub reads up",
        ),
        (
            spoilt(lambda it: it["modules"][0].update(kept_channels_fraction=10**400)),
            "'kept_channels_fraction' in 'modules[0]' in {place} should be a finite number, not 1000",
        ),
        (
            spoilt(lambda it: it["modules"][0]["metrics"].update(recall=10**400)),
            "'metrics.recall' in 'modules[0]' in {place} should be a finite number, not 1000",
        ),
        (
            spoilt(lambda it: it["input"].update(mean=[10**400])),
            "'mean[0]' in 'input' in {place} should be a finite number, not 1000",
        ),
        (
            spoilt(lambda it: it["input"].update(height=10**400)),
            "'height' in 'input' in {place} is 1000",
        ),
        (
            spoilt(lambda it: it["modules"][0].update(label="\x1b[2Jcat")),
            "'label' in 'modules[0]' in {place} holds a control character or a lone surrogate: '\\x1b[2J",
        ),
        (
            spoilt(lambda it: it["modules"][0].update(label="cat\ud800", aliases=["cat"])),
            "'label' in 'modules[0]' in {place} holds a control character or a lone surrogate: 'cat\\ud800'.",
        ),
        (
            spoilt(lambda it: it["modules"][0].update(aliases=["cat", "\x9b2J"])),
            "'aliases[1]' in 'modules[0]' in {place} holds a control character",
        ),
        (
            spoilt(lambda it: it["modules"][0]["metrics"].update({"\x07": 1})),
            "A name in 'metrics' in 'modules[0]' in {place} holds a control character",
        ),
        (
            spoilt(lambda it: it["method"]["parameters"].update(how="\r")),
            "'parameters.how' in 'method' in {place} holds a control character",
        ),
        (
            spoilt(lambda it: it["trunk"].update(repository="no-where")),
            "'repository' in 'trunk' in {place}: 'no-where' is not a repository id.",
        ),
    ],
)
def test_one_bad_repository_harms_no_search_and_no_bare_label(
    tmp_path: Path, artifact: Path, spoil: Callable[[bytes], bytes] | None, message: str
) -> None:
    catalog, bad = (
        Catalog(DirectoryHub(tmp_path / "hub"), Cache(tmp_path / "cache")),
        RepositoryId("evil", "x"),
    )
    catalog.hub.create_repository(bad)
    card = b"---\nlibrary_name: modhub\ntags: [modhub, 'class:cat']\n---\n"
    files = [Add("README.md", card)]
    if spoil is not None:
        files.append(Add("modhub.json", spoil((artifact / "modhub.json").read_bytes())))
    commit = catalog.hub.commit(bad, files, "x")
    catalog.hub.create_tag(bad, "v1.0.0", commit)
    expected = message.format(commit[:12], place=f"modhub.json of 'evil/x' at {commit[:12]}")
    with pytest.raises(ResolutionError) as caught:
        resolve(Project.of(["cat"]), catalog)
    assert caught.value.message.startswith(
        f"No provider of 'cat = *' will do: evil/x 1.0.0 cannot be read ({expected.rstrip('.')}"
    )
    release(catalog, artifact, "1.0.0")
    warned = Warned()
    assert [hit.ref for hit in search(catalog, ["cat"], reporter=warned)] == ["lab/net/cat"]
    assert len(warned.said) == 1
    assert warned.said[0].startswith(f"Skipped 1 repository that cannot be read. The first: {expected}")
    (chosen,) = resolve(Project.of(["cat"]), catalog).modules
    assert chosen.repository == NET
    for ask in (
        lambda: resolve(Project.of(["evil/x/cat"]), catalog),
        lambda: pull(catalog, Ref.parse("evil/x/cat")),
    ):
        with pytest.raises((ManifestError, IntegrityError)) as told:
            ask()
        assert told.value.message.startswith(expected)


def test_a_release_taken_back_with_a_reason_for_the_terminal(tmp_path: Path, artifact: Path) -> None:
    catalog = Catalog(DirectoryHub(tmp_path / "hub"), Cache(tmp_path / "cache"))
    release(catalog, artifact, "1.0.0")
    with pytest.raises(RefError) as caught:
        yank(catalog, NET, Version("1.0.0"), "\x1b[2J")
    assert str(caught.value) == "The reason '\\x1b[2J' is not one line of text. Write it in one line."
    catalog.hub.commit(NET, [Add("yanked.json", b'{"1.0.0": "\\u001b[2J"}')], "x")
    with pytest.raises(ManifestError, match="should map versions to reasons, each one line of text"):
        catalog.releases(NET)
    assert search(catalog, ["cat"]) == []


def test_open_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HUB_VARIABLE, str(tmp_path / "hub"))
    assert default_hub() == open_hub().address == str(tmp_path / "hub")
    assert open_hub("https://hub.example/").address == "https://hub.example"
    assert (open_hub("hf").address, open_hub("hf").local) == ("hf", False)
    with pytest.raises(HubError, match="'ftp://x' is not a hub"):
        open_hub("ftp://x")
    with pytest.raises(HubError, match="contains credentials"):
        open_hub("https://user:secret@hub.example")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is not a directory"):
        open_hub(tmp_path / "file")


def test_the_paper_tower_imports_neither_torch_nor_the_client() -> None:
    script = (
        "import sys, modhub.catalog.catalog, modhub.catalog.publish, modhub.hub.directory, "
        "modhub.hub.huggingface, "
        "modhub.store.fsck, modhub.store.gc, modhub.store.pull_requests\n"
        "from modhub.hub import open_hub\nopen_hub('hf')\n"
        "print([name for name in ('torch', 'numpy', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), StorageError("The disk is full.")])
@pytest.mark.parametrize("moment", ["commit", "create_tag"])
def test_a_first_push_that_fails_leaves_no_empty_repository(
    catalog: Catalog, artifact: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, moment: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(type(catalog.hub), moment, fail)
        with pytest.raises(type(failure)):
            push(catalog, artifact, NET, Version("1.0"))
    with pytest.raises(NotFoundError):
        catalog.hub.refs(NET)
    push(catalog, artifact, NET, Version("1.0"))
    assert set(catalog.hub.refs(NET).tags) == {"v1.0"}
