"""However a file is damaged, whoever reads it is told what to do next; so is who meets an error of a hub."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import torch
from safetensors.torch import load, save

import modhub
from modhub import errors
from modhub.api.builds import BuildOptions
from modhub.artifact import artifact_files, read_trunk
from modhub.catalog.releases import parse_yanked
from modhub.composition import compose, parts_of
from modhub.composition.build import load_build
from modhub.errors import ModhubError
from modhub.files import write_files
from modhub.manifest import FileInfo, ModuleManifest, RepositoryManifest
from modhub.parents.user_code import directory_parent, write_parent
from modhub.project.lock import Lock
from modhub.project.toml import Project
from modhub.store.records import CommitRecord
from modhub.text import pretty_json
from tests.library.test_schema_ranges import lock_bytes
from tests.support.digit_parents import INPUT
from tests.support.pico import pico_network, pico_set

Place = tuple[str | int, ...]
GONE = object()
DAMAGE = (GONE, None, -1, 1e30, True, "", "x\x00", "../x", [], [None], {}, {"": "\n"})
FEW = (GONE, -1, "", [])
"""For what takes long to read."""

TOML = """\
[composition]
name = "pets"
[modules]
cat = "lab/net/cat>=1,<2"
dog = {ref = "lab/net/dog"}
[constraints]
licenses = ["mit"]
min-recall = 0.8
max-trunks = 2
"""


def places(value: object, at: Place = ()) -> Iterator[Place]:
    """Everywhere in a document, the whole first."""
    yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*at, key))


def damaged(document: Any, at: Place, value: object) -> Any:
    """A copy with another value, or none, at one place."""
    if not at:
        return None if value is GONE else value
    copy = dict(document) if isinstance(document, dict) else list(document)
    if value is GONE and len(at) == 1:
        del copy[at[0]]
    else:
        copy[at[0]] = damaged(document[at[0]], at[1:], value)
    return copy


def told(document: Any, read: Callable[[Any], object], values: Sequence[object] = DAMAGE) -> set[str]:
    """The hints for a document that is damaged in one place, each with every value; there are no others."""
    read(document)
    found: dict[str, ModhubError] = {}
    for at in places(document):
        for value in values:
            try:
                read(damaged(document, at, value))
            except ModhubError as error:
                found[error.message] = error
    silent = [error.message for error in found.values() if not error.hint]
    assert found
    assert not silent
    return {error.hint for error in found.values()}


def as_bytes(read: Callable[[bytes], object]) -> Callable[[Any], object]:
    return lambda document: read(pretty_json(document))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return artifact_files(pico_set())


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("modhub.json", RepositoryManifest.from_bytes),
        ("modules/cat/module.json", ModuleManifest.from_bytes),
    ],
)
def test_manifests(files: dict[str, bytes], path: str, read: Callable[[bytes], object]) -> None:
    assert "Pull or decompose it again." in told(json.loads(files[path]), as_bytes(read))


def test_a_lock() -> None:
    assert "Write the lock again with: modhub lock" in told(
        json.loads(lock_bytes()), as_bytes(Lock.from_bytes)
    )


def test_a_project() -> None:
    def read(document: Any) -> None:
        if isinstance(document, dict):
            Project.from_toml(tomlkit.dumps(without_null(document)))

    assert "Mend it there." in told(tomlkit.parse(TOML).unwrap(), read)


def without_null(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return [without_null(item) for item in value if item is not None] if isinstance(value, list) else value


def test_the_trunk_of_an_artifact(files: dict[str, bytes], tmp_path: Path) -> None:
    write_files(tmp_path, files)
    manifest = pico_set().manifest
    trunk = manifest.trunk
    assert trunk is not None

    def read(graph: bytes, weights: bytes) -> None:
        info = dataclasses.replace(
            trunk, graph=FileInfo.of("graph", graph), weights=FileInfo.of("weights", weights)
        )
        (tmp_path / "graph").write_bytes(graph)
        (tmp_path / "weights").write_bytes(weights)
        read_trunk(info, manifest.input, lambda file: tmp_path / file.path)

    graph, weights = files[trunk.graph.path], files[trunk.weights.path]
    assert "Pull or decompose it again." in told(
        json.loads(graph), as_bytes(lambda content: read(content, weights)), FEW
    )
    for worse in damaged_tensors(weights):
        with pytest.raises(ModhubError) as caught:
            read(graph, worse)
        assert caught.value.hint


def damaged_tensors(weights: bytes) -> Iterator[bytes]:
    tensors = load(weights)
    yield weights[:-1]
    yield save({**tensors, "more": torch.zeros(1)})
    for name, tensor in tensors.items():
        yield save({other: each for other, each in tensors.items() if other != name})
        yield save({**tensors, name: tensor.double()})
        yield save({**tensors, name: tensor + 1})


def test_a_build(tmp_path: Path) -> None:
    build = compose(parts_of(pico_set())).save(tmp_path / "build")
    said = json.loads((build / "build.json").read_bytes())

    def read(document: Any) -> None:
        (build / "build.json").write_bytes(pretty_json(document))
        load_build(build)

    def read_graph(graph: Any) -> None:
        content = pretty_json(graph)
        (build / "trunks/0/graph.json").write_bytes(content)
        info = FileInfo.of("trunks/0/graph.json", content).to_dict()
        read(damaged(said, ("passes", 0, "graph"), info))

    assert "Compose it again." in told(said, read, FEW)
    assert "Compose it again." in told(
        json.loads((build / "trunks/0/graph.json").read_bytes()), read_graph, FEW
    )


def test_the_options_of_a_build(tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "options.json").write_bytes(content)
        BuildOptions.read(tmp_path / "options.json")

    assert "Compose it again." in told(BuildOptions(flops=0.5, max_loss=0.1).to_dict(), as_bytes(read))


def test_a_parent_in_a_directory(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    write_parent(parent, pico_network(), name="pico", architecture="pico", labels=["cat", "dog"], input=INPUT)
    for name in ("parent.json", "graph.json"):
        content = (parent / name).read_bytes()

        def read(worse: bytes, name: str = name) -> None:
            (parent / name).write_bytes(worse)
            directory_parent(parent)

        assert "Write it again from the trained network." in told(json.loads(content), as_bytes(read), FEW)
        (parent / name).write_bytes(content)


def test_what_was_yanked() -> None:
    hints = told({"1.0.0": "wrong labels"}, as_bytes(lambda content: parse_yanked(content, "yanked.json")))
    assert hints == {"Use another release, or report it to the publisher."}


def test_a_commit_on_disk() -> None:
    with pytest.raises(ModhubError) as caught:
        CommitRecord.from_bytes(b"{}", "0" * 40)
    assert caught.value.hint == "Run: modhub fsck --repair"


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"{"])
def test_what_is_no_json(content: bytes) -> None:
    for read in (RepositoryManifest.from_bytes, ModuleManifest.from_bytes, Lock.from_bytes):
        with pytest.raises(ModhubError) as caught:
            read(content)
        assert caught.value.hint


HINTLESS = {
    # The protocol's words, which clients look for; the server's page leads to the form for logging in.
    ("accounts.py", "AccessError"),
    # Met by whoever writes a handler, and by nobody else.
    ("request.py", "HubError"),
    # The message of an error that says its hint.
    ("composing.py", "RefError"),
}


def raised_without_a_hint(tree: ast.AST, hinted: bool = False) -> Iterator[str]:
    """Names of the errors made without a hint, outside of functions that give one to all of theirs."""
    for node in ast.iter_child_nodes(tree):
        decorators = getattr(node, "decorator_list", [])
        inside = hinted or any("hinting" in ast.unparse(one) for one in decorators)
        if isinstance(node, ast.Call) and not inside and isinstance(node.func, ast.Name):
            name = node.func.id
            kind = vars(errors).get(name)
            takes_one = (
                isinstance(kind, type)
                and issubclass(kind, errors.ModhubError)
                and name != "MissingDependencyError"
            )
            if takes_one and all(keyword.arg != "hint" for keyword in node.keywords):
                yield name
        yield from raised_without_a_hint(node, inside)


def test_every_error_of_a_hub_says_what_to_do_next() -> None:
    library = Path(modhub.__file__).parent
    found = {
        (path.name, name)
        for room in ("store", "hub", "server")
        for path in (library / room).rglob("*.py")
        for name in raised_without_a_hint(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == HINTLESS
