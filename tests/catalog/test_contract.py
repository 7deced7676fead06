"""One meaning of a repository: every way to read a hub, and the client's and the server's catalogue, agree.

The same store is read as a directory, by the stock Hugging Face client over HTTP, from the cache without a
network, and as the server's own pages and compose page read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub
import pytest
from markupsafe import escape
from packaging.version import Version

from modhub.catalog.catalog import Catalog
from modhub.catalog.publish import push, yank
from modhub.catalog.releases import Release, files_of, newest_release, weight_of
from modhub.catalog.search import search
from modhub.errors import ClassNotFoundError, ManifestError, ModhubError, NotFoundError, ResolutionError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.hub.huggingface import HuggingFaceHub
from modhub.manifest import RepositoryManifest
from modhub.manifest.card import card
from modhub.project.model import Catalogue
from modhub.project.resolver import resolve
from modhub.project.toml import Project
from modhub.refs import Ref, RepositoryId
from modhub.server.auth.principal import Principal
from modhub.server.web.repository_view import VisibleRepositories
from modhub.store.model import Add
from modhub.store.store import Store
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.paper import write_paper_artifact
from tests.support.releases import ReleaseHub

READERS = ("directory", "http", "offline", "pages")
SPELLINGS = ("1.0", "1.0.0", "v1.0", "==1.0.0")


@dataclass(frozen=True)
class World:
    """`two_tags` is the commit of both releases of lab/two-tags."""

    server: Server
    two_tags: str


def repository_named(spelling: str) -> str:
    return f"yanked/as-{spelling.replace('=', 'e')}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    releases = ReleaseHub(root)
    catalog = releases.catalog
    for spelling in SPELLINGS:
        where = repository_named(spelling)
        releases.put(where, "1.0", {"newt": 0.9})
        releases.put(where, "0.9", {"newt": 0.8})
        releases.yank(RepositoryId.parse(where), spelling, "wrong labels")
    two_tags = releases.put("lab/two-tags", "1.0", {"owl": 0.9}).commit
    releases.hub.create_tag(RepositoryId.parse("lab/two-tags"), "v2.0", two_tags)
    for name, content in (("values", b'{"1.0": 7}'), ("json", b"{"), ("versions", b'{"first": "x"}')):
        releases.put(f"malformed/{name}", "1.0", {"eel": 0.9})
        releases.hub.commit(RepositoryId.parse(f"malformed/{name}"), [Add("yanked.json", content)], "x")
    # As modhub 0.1.0 pushed a backport: main shows it.
    releases.put("lab/lagging", "2.0.0", {"cat": 0.9, "dog": 0.9})
    releases.put("lab/lagging", "1.0.1", {"dog": 0.5, "cow": 0.5})
    # As it is pushed now, and by whoever has only the stock client.
    newest = write_paper_artifact(root / "newest", {"lynx": 0.9, "wolf": 0.9})
    older = write_paper_artifact(root / "older", {"wolf": 0.5, "boar": 0.5}, trunk="older")
    pushed, yanked = RepositoryId("lab", "pushed"), RepositoryId("lab", "newest-yanked")
    for where in (pushed, yanked):
        push(catalog, newest, where, Version("2.0.0"))
        push(catalog, older, where, Version("1.0.1"))
    yank(catalog, yanked, Version("2.0.0"), "wrong labels")
    manifest = RepositoryManifest.from_bytes((newest / "modhub.json").read_bytes())
    alone = replace(
        manifest,
        trunk=None,
        modules=tuple(
            replace(entry, label="hare", slug="hare", form="standalone", trunk=manifest.trunk)
            for entry in manifest.modules[:1]
        ),
    )
    releases.hub.create_repository(RepositoryId("lab", "alone"))
    commit = releases.hub.commit(
        RepositoryId("lab", "alone"),
        [Add("modhub.json", alone.to_bytes()), Add("README.md", card(alone).encode())],
        "x",
    )
    releases.hub.create_tag(RepositoryId("lab", "alone"), "v1.0", commit)
    secret = RepositoryId("lab", "secret")
    releases.hub.create_repository(secret, private=True)
    push(catalog, write_paper_artifact(root / "secret", {"mole": 0.9}), secret, Version("1.0"))
    with serving(root / "hub") as server:
        api = huggingface_hub.HfApi(endpoint=server.address, token=TOKENS["admin"])
        api.create_repo("lab/stock")
        for version, folder in (("2.0.0", newest), ("1.0.1", older)):
            content = RepositoryManifest.from_bytes((folder / "modhub.json").read_bytes())
            (folder / "README.md").write_text(card(content))
            api.upload_folder(repo_id="lab/stock", folder_path=folder, delete_patterns="*")
            api.create_tag("lab/stock", tag=f"v{version}")
        yield World(server, two_tags)


def catalogue_of(world: World, reader: str, cache: Path, who: str = "admin") -> Catalog | VisibleRepositories:
    if reader == "pages":
        principal = Principal(who, "admin" if who == "admin" else "write")
        return VisibleRepositories(Store(world.server.root), principal)
    if reader == "directory":
        return Catalog(DirectoryHub(world.server.root), Cache(cache))
    catalog = Catalog(HuggingFaceHub(world.server.address, token=TOKENS[who]), Cache(cache))
    if reader == "http":
        return catalog
    for summary in catalog.find():
        with suppress(ManifestError):
            for release in catalog.releases(summary.id):
                catalog.manifest(summary.id, release.commit)
    return Catalog(catalog.hub, Cache(cache), offline=True)


@pytest.fixture(scope="module", params=READERS)
def catalogue(
    world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Catalog | VisibleRepositories:
    return catalogue_of(world, request.param, tmp_path_factory.mktemp("cache"))


def texts(releases: Iterable[Release]) -> list[str]:
    return [f"{release}{'' if release.active else f' ({release.yanked})'}" for release in releases]


@pytest.mark.parametrize(
    ("repository", "releases", "newest"),
    [
        *((repository_named(one), ["1.0 (wrong labels)", "0.9"], "0.9") for one in SPELLINGS),
        ("lab/two-tags", ["2.0", "1.0"], "2.0"),
        ("lab/lagging", ["2.0.0", "1.0.1"], "2.0.0"),
        ("lab/pushed", ["2.0.0", "1.0.1"], "2.0.0"),
        ("lab/stock", ["2.0.0", "1.0.1"], "2.0.0"),
        ("lab/newest-yanked", ["2.0.0 (wrong labels)", "1.0.1"], "1.0.1"),
        ("lab/alone", ["1.0"], "1.0"),
        ("lab/secret", ["1.0"], "1.0"),
    ],
)
def test_releases_and_the_newest(
    catalogue: Catalogue, repository: str, releases: list[str], newest: str
) -> None:
    known = catalogue.releases(RepositoryId.parse(repository))
    assert texts(known) == releases
    assert str(newest_release(known)) == newest


@pytest.mark.parametrize(
    ("revision", "version"), [("v1.0", "1.0"), ("v2.0", "2.0"), ("commit", "2.0"), ("main", "2.0")]
)
def test_two_tags_on_one_commit(catalogue: Catalogue, world: World, revision: str, version: str) -> None:
    named = world.two_tags if revision == "commit" else revision
    release = catalogue.release_at(RepositoryId("lab", "two-tags"), named)
    assert (str(release), release.commit) == (version, world.two_tags)
    (module,) = resolve(Project.of([f"lab/two-tags/owl@{named}"]), catalogue).modules
    assert str(module.release) == version


MALFORMED = {
    "values": "yanked.json of 'malformed/values' should map versions to reasons, each one line of text.",
    "json": "yanked.json of 'malformed/json' is not valid JSON "
    "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1)).",
    "versions": "yanked.json of 'malformed/versions' names 'first', which is not a version.",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_list_of_yanked_releases_fails_closed(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(ManifestError) as caught:
        catalogue.releases(RepositoryId("malformed", name))
    assert caught.value.message == MALFORMED[name]
    for ref in ("eel", "eel==1.0", "eel@v1.0"):
        with pytest.raises(ManifestError) as caught:
            resolve(Project.of([f"malformed/{name}/{ref}"]), catalogue)
        assert caught.value.message == MALFORMED[name]
    with pytest.raises(ModhubError):
        resolve(Project.of(["eel"]), catalogue)


@pytest.mark.parametrize(
    ("ref", "chosen"),
    [
        ("newt", "yanked/as-1.0 0.9"),
        ("cat", "lab/lagging 2.0.0"),
        ("lynx", "lab/pushed 2.0.0"),
        ("boar", "lab/newest-yanked 1.0.1"),
        ("hare", "lab/alone 1.0"),
        ("mole", "lab/secret 1.0"),
        ("lab/stock/lynx", "lab/stock 2.0.0"),
        # Only an older release has them: by a range, with or without the repository.
        ("cow<2", "lab/lagging 1.0.1"),
        ("lab/lagging/cow<2", "lab/lagging 1.0.1"),
        ("lab/pushed/boar<2", "lab/pushed 1.0.1"),
    ],
)
def test_what_a_ref_selects(catalogue: Catalogue, ref: str, chosen: str) -> None:
    (module,) = resolve(Project.of([ref]), catalogue).modules
    assert f"{module.repository} {module.release}" == chosen


@pytest.mark.parametrize("reader", READERS)
def test_a_bare_label_goes_by_the_newest_release(world: World, reader: str, tmp_path: Path) -> None:
    catalogue = catalogue_of(world, reader, tmp_path)
    # The cache knows no tags, so that repositories which cannot be read may have any class.
    with pytest.raises(ResolutionError if reader == "offline" else ClassNotFoundError) as caught:
        resolve(Project.of(["cow"]), catalogue)
    assert "lab/lagging" not in str(caught.value)


def test_a_standalone_module_has_its_trunk_inside(catalogue: Catalogue) -> None:
    place = RepositoryId("lab", "alone")
    (release,) = catalogue.releases(place)
    manifest = catalogue.manifest(place, release.commit)
    (entry,) = manifest.modules
    trunk = manifest.trunk_of(entry)
    weight = weight_of(manifest, entry)
    assert (weight.module, weight.trunk) == (
        entry.manifest.size + entry.tensors.size + sum(file.size for file in trunk.files),
        0,
    )
    own, shared = files_of(place, release.commit, manifest, entry)
    assert (own.files, shared.files) == ((entry.manifest, entry.tensors), trunk.files)
    assert own.repository == shared.repository == place


@pytest.mark.parametrize("reader", ["http", "pages"])
def test_a_private_repository_is_one_that_does_not_exist(world: World, reader: str, tmp_path: Path) -> None:
    stranger = catalogue_of(world, reader, tmp_path, "bob")
    for name in ("secret", "nothing-here"):
        with pytest.raises(NotFoundError) as caught:
            stranger.releases(RepositoryId("lab", name))
        assert caught.value.missing == "repository"
    with pytest.raises(ClassNotFoundError):
        resolve(Project.of(["mole"]), stranger)


@pytest.mark.parametrize("reader", ["directory", "http"])
def test_search_and_info_agree(world: World, reader: str, tmp_path: Path) -> None:
    catalog = catalogue_of(world, reader, tmp_path)
    assert isinstance(catalog, Catalog)
    found = {hit.ref: hit.version for hit in search(catalog, ["cat", "cow", "lynx", "boar"])}
    assert found == {
        "lab/lagging/cat": "2.0.0",
        "lab/pushed/lynx": "2.0.0",
        "lab/stock/lynx": "2.0.0",
        "lab/newest-yanked/boar": "1.0.1",
    }
    for ref, version in found.items():
        details = catalog.details(Ref.parse(ref.rpartition("/")[0]))
        assert str(details.release) == version
        label = ref.rpartition("/")[2]
        assert f"class:{label}" in details.card


def read(world: World, path: str) -> str:
    answer = world.server.ask("GET", path, "admin")
    assert answer.status == 200, path
    return answer.body.decode()


def test_pages_show_the_newest_release(world: World) -> None:
    for name, shown, hidden in (
        ("lagging", ("cat", "dog"), "cow"),
        ("pushed", ("lynx", "wolf"), "boar"),
        ("stock", ("lynx", "wolf"), "boar"),
        ("newest-yanked", ("wolf", "boar"), "lynx"),
    ):
        page = read(world, f"/lab/{name}")
        for label in shown:
            assert f'<a href="/lab/{name}/modules/{label}"><bdi>{label}</bdi></a>' in page
            assert f"/lab/{name}" in read(world, f"/?class={label}")
        assert f"<bdi>{hidden}</bdi>" not in page
        assert f'href="/lab/{name}"' not in read(world, f"/?class={hidden}")
        assert "modhub.json of" not in page


def test_a_malformed_repository_says_so_on_its_page_and_harms_no_list(world: World) -> None:
    for name, message in MALFORMED.items():
        page = read(world, f"/malformed/{name}")
        assert f'<p class="trouble">{escape(message)} ' in page
        assert "<bdi>eel</bdi>" not in page
        html = {"Accept": "text/html"}
        answer = world.server.ask("GET", f"/malformed/{name}/modules/eel", "admin", headers=html)
        assert (answer.status, escape(message) in answer.body.decode()) == (400, True)
    assert "/malformed/json" in read(world, "/?class=eel")
    assert "lab/lagging/cat" in read(world, "/compose?q=cat&pick=lab/lagging/cat")
    assert escape(MALFORMED["json"]) in read(world, "/compose?pick=malformed/json/eel")


def test_main_holds_the_newest_release_after_every_push_and_yank(world: World) -> None:
    hub = DirectoryHub(world.server.root)
    for name, version in (("pushed", "2.0.0"), ("newest-yanked", "1.0.1")):
        place = RepositoryId("lab", name)
        refs = hub.refs(place)
        main, release = hub.tree(place, refs.branches["main"]), hub.tree(place, refs.tags[f"v{version}"])
        assert {path: main[path] for path in main if path != "yanked.json"} == release
