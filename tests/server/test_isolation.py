"""Nothing that one repository holds, or lost, keeps another from being listed, found or checked."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modhub.catalog.catalog import Catalog
from modhub.catalog.search import search
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.reporter import Reporter
from modhub.store.fsck import fsck
from modhub.store.gc import gc
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import Server, serving
from tests.support.hub_world import push, repository_files

EXAMPLES = int(os.environ.get("MODHUB_FUZZ", "40"))
"""Damaged repositories; the release is tried with 2,000."""
PAGES = (
    "/",
    "/?q=net",
    "/?class=cat",
    "/api/models",
    "/api/models?full=true&cardData=true",
    "/api/models?search=net",
    "/api/datasets",
    "/compose?q=cat",
    "/compose?pick=lab/net/cat",
    "/compose?pick=cat",
    "/healthz",
    "/metrics",
)
GOOD, BAD = RepositoryKey.model("lab/net"), RepositoryKey.model("lab/bad")
FILES = {"README.md", "modhub.json", "yanked.json"}
"""What is committed."""
OWN = ("refs.json", "repository.json")
"""What the store itself writes."""


class World:
    """A hub with a sound repository and one beside it that is overwritten again and again."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.store = Store(server.root)
        push(server.root, "lab/net", ("cat", "dog"))
        push(server.root, "lab/bad", ("cat",), seed=1)
        self.files = repository_files("lab/bad", ("cat",), seed=1)
        self.documents = {name: json.loads(self.own(name).read_bytes()) for name in OWN}
        self.releases = 0
        self.entries = self.listed()
        self.hits = self.found(Reporter())

    def own(self, name: str) -> Path:
        """A file that the store has of the bad repository."""
        return self.server.root / "repositories" / BAD.path / name

    def listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.server.ask("GET", "/api/models?full=true").json()
        return [entry for entry in listed if entry["id"] == "lab/net"]

    def found(self, reporter: Reporter) -> list[str]:
        catalog = Catalog(DirectoryHub(self.server.root), Cache(self.server.root.parent / "cache"))
        hits = search(catalog, ["cat"], reporter=reporter)
        return [hit.ref for hit in hits if str(hit.repository) == "lab/net"]

    @contextmanager
    def damaged(self, path: str, content: bytes) -> Iterator[None]:
        """While the block lasts, the bad repository has `content` at `path`."""
        if path in FILES:
            self.releases += 1
            files = {**self.files, "yanked.json": b"{}", path: content}
            changes = [Add(name, data) for name, data in files.items()]
            commit = self.store.commits.create(BAD, changes, title="t")
            self.store.tags.create(BAD, f"v2.{self.releases}.0", revision=commit.id)
            yield
            self.store.releases.remove(BAD, f"2.{self.releases}.0")
            self.store.commits.create(BAD, [Add(name, data) for name, data in self.files.items()], title="t")
            return
        place = self.own(path)
        before = place.read_bytes()
        self.store.index.mark(BAD)
        place.write_bytes(content)
        try:
            yield
        finally:
            place.write_bytes(before)
            self.store.index.mark(BAD)

    def check(self) -> list[str]:
        """That everything else is as it was; what fsck says of the bad repository."""
        for page in PAGES:
            answer = self.server.ask("GET", page)
            assert answer.status == 200, (page, answer.body[:500])
        assert self.listed() == self.entries
        assert self.found(Reporter()) == self.hits
        # Made anew from the files, as after a loss and by another version.
        again = Store(self.server.root)
        again.index.refresh()
        assert "lab/net" in {str(entry.id) for entry in again.index.search()}
        report = fsck(again, deep=False)
        gc(again, dry_run=True)
        again.close()
        problems = [str(finding) for finding in report.findings]
        assert report.repositories == 2
        assert not any("lab/net" in problem for problem in problems)
        return [problem for problem in problems if "lab/bad" in problem]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("hub") / "store") as server:
        world = World(server)
        yield world
        world.store.close()


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("README.md", b'---\na: !!bool "maybe"\n---\n', "'maybe' is no value of the type bool"),
        ("README.md", b"---\na: 0x" + b"f" * 20_000 + b"\n---\n", None),
        ("README.md", b"---\na: 1" + b":59" * 9_000 + b"\n---\n", None),
        ("README.md", b"---\npipeline_tag: .nan\n---\n", None),
        ("README.md", b"---\npipeline_tag: [[.inf]]\ntags: 5\nself: 1\n---\n", None),
        ("modhub.json", b"[" * 100_000, "modhub.json"),
        ("modhub.json", b'{"schema_version": 1' + b"0" * 5_000 + b"}", "modhub.json"),
        ("yanked.json", b'{"' + b"9" * 5_000 + b'": "too long for a version"}', None),
        ("yanked.json", b'{"1.0.0": "\\ud800"}', None),
        ("refs.json", b'{"refs": {}}', "its references cannot be read"),
        ("refs.json", b'{"refs": {"refs/heads/main": ""}, "pulls": []}', "its references cannot be read"),
        (
            "refs.json",
            b'{"refs": {"refs/heads/main": "../refs.json"}, "pulls": []}',
            "its references cannot be read",
        ),
        ("refs.json", b"\xff", "its references cannot be read"),
        ("refs.json", b"", "its references cannot be read"),
        ("repository.json", b"{}", "its settings are missing or damaged"),
        (
            "repository.json",
            b'{"names": ["\\u0000"], "created": "x", "settings": {}}',
            "its settings are missing",
        ),
    ],
)
def test_one_repository_harms_no_other(world: World, path: str, content: bytes, problem: str | None) -> None:
    with world.damaged(path, content):
        problems = world.check()
    if problem is None:
        assert problems == []
    else:
        assert [text for text in problems if problem in text], problems
    # And once it is mended it is listed again.
    assert "lab/bad" in {entry["id"] for entry in world.server.ask("GET", "/api/models").json()}


SCALARS = st.sampled_from(
    [
        ".nan",
        "-.inf",
        "0x" + "f" * 5_000,
        "9" * 5_000,
        "1:59:59",
        '!!bool "maybe"',
        "!!timestamp x",
        "!!set {a}",
        "*a",
        "&a [*a]",
        "<<: {a: 1}",
        "{<<: 1}",
        "2026-02-31",
        '"\\ud800"',
        '"\\0"',
        "!!binary =",
        "[[[]]]",
        "~",
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["tags", "license", "language", "pipeline_tag", "library_name", "datasets", "model_name"]
)


def cards() -> st.SearchStrategy[bytes]:
    safe = st.dictionaries(FIELDS, st.dates() | st.binary(max_size=4) | st.floats() | st.text(), max_size=4)
    written = st.dictionaries(FIELDS, SCALARS, max_size=4).map(
        lambda fields: "".join(f"{name}: {text}\n" for name, text in fields.items())
    )
    heads = written | safe.map(lambda fields: str(yaml.safe_dump(fields, allow_unicode=True)))
    return heads.map(lambda head: f"---\n{head}---\n# A card\n".encode("utf-8", "replace"))


def places(document: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value of a JSON document."""
    if above:
        yield above
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield from places(value, (*above, key))


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> bytes:
    """The document with one value replaced or left out, or any JSON at all."""
    if draw(st.integers(0, 4)) == 0:
        return json.dumps(draw(VALUES)).encode()
    document = copy.deepcopy(document)
    *way, last = draw(st.sampled_from(list(places(document))))
    target = document
    for key in way:
        target = target[key]
    if draw(st.booleans()):
        target[last] = draw(VALUES)
    else:
        del target[last]
    return json.dumps(document).encode()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_content_of_a_repository_harms_another(world: World, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["card", "modhub.json", "yanked.json", "refs.json", "repository.json"]))
    if kind == "card":
        path, content = "README.md", data.draw(cards())
    elif kind == "modhub.json":
        path, content = kind, data.draw(mutated(json.loads(world.files[kind])))
    elif kind == "yanked.json":
        path, content = kind, data.draw(mutated({"1.0.0": "a reason"}))
    else:
        path, content = kind, data.draw(mutated(world.documents[kind]))
    with world.damaged(path, content):
        world.check()


def test_gc_keeps_everything_of_a_repository_that_it_cannot_read(tmp_path: Path) -> None:
    push(tmp_path, "lab/net", ("cat",))
    push(tmp_path, "lab/bad", ("cat",), seed=1)
    store = Store(tmp_path)
    blobs = set(store.blobs.all())
    for place in tmp_path.rglob("*"):
        if place.is_file():
            os.utime(place, (0, 0))
    warnings: list[str] = []

    class Told(Reporter):
        def warn(self, text: str) -> None:
            warnings.append(text)

    folder = tmp_path / "repositories" / BAD.path
    for name, content in (("refs.json", b'{"refs": {}}'), ("repository.json", None)):
        before = (folder / name).read_bytes()
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        gc(store, reporter=Told())
        assert set(store.blobs.all()) == blobs
        (folder / name).write_bytes(before)
    assert [text.partition(":")[0] for text in warnings] == ["Nothing of the model lab/bad is removed"] * 2


def test_a_repair_keeps_the_references_that_can_be_read(tmp_path: Path) -> None:
    push(tmp_path, "lab/bad", ("cat",))
    store = Store(tmp_path)
    refs = store.reader.refs(BAD)
    place = tmp_path / "repositories" / BAD.path / "refs.json"
    document = json.loads(place.read_bytes())
    del document["pulls"]
    place.write_bytes(json.dumps(document).encode())
    finding, *_ = fsck(Store(tmp_path), repair=True).findings
    assert finding.problem == f"its references cannot be read ('{place}' has no 'pulls'.)"
    assert finding.repaired == "rebuilt from what can be read and from the commits"
    assert Store(tmp_path).reader.refs(BAD) == refs


def test_metadata_that_cannot_be_read_is_shown_as_text_on_its_own_page(world: World) -> None:
    with world.damaged("README.md", b'---\na: !!bool "maybe"\n---\n# Words of the card\n'):
        page = world.server.ask("GET", "/lab/bad").body.decode()
        listed = world.server.ask("GET", "/api/models?full=true").json()
    assert '<pre><code>a: !!bool "maybe"\n</code></pre>' in page
    assert "Words of the card</h" in page
    assert [entry["cardData"] for entry in listed if entry["id"] == "lab/bad"] == [{}]
