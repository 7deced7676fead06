"""Every file that modhub writes follows its schema, and what the reader refuses the schema refuses too."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from modhub.artifact import artifact_files
from modhub.composition import compose, parts_of
from modhub.errors import ModhubError, NotFoundError
from modhub.manifest import ModuleManifest, RepositoryManifest
from modhub.nets import Graph
from modhub.nets.operators import OPERATORS
from modhub.project.lock import Lock, lock_of
from modhub.project.resolver import resolve
from modhub.project.toml import Constraints, Project
from modhub.schemas import SCHEMAS, document_schema, schema
from modhub_cli.main import cli
from tests.support.pico import pico_network, pico_set
from tests.support.releases import ReleaseHub

FILES = {
    "modhub.json": "repository",
    "trunk/graph.json": "graph",
    "modules/cat/module.json": "module",
    "modules/aquarium-fish/module.json": "module",
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return artifact_files(pico_set())


def validate(name: str, document: object) -> None:
    Draft202012Validator(schema(name)).validate(document)


def is_valid(name: str, document: object) -> bool:
    return Draft202012Validator(schema(name)).is_valid(document)


def changed(document: Any, at: tuple[str | int, ...], value: Any) -> Any:
    """A copy of `document` with another value at one place."""
    found = copy.deepcopy(document)
    place = found
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == f"urn:modhub:schema:{name}:1"


def test_every_shipped_schema_is_listed() -> None:
    folder = Path(__file__).parents[2] / "schemas"
    assert {path.name for path in folder.iterdir()} == {f"{name}.schema.json" for name in SCHEMAS}


def test_an_unknown_schema() -> None:
    with pytest.raises(NotFoundError) as caught:
        schema("../secrets")
    assert caught.value.message == "There is no schema '../secrets'."


def printing(command: click.Command, name: str, root: click.Context) -> Iterator[str]:
    """Names of the commands below one, or of itself, that take --json."""
    if isinstance(command, click.Group):
        for sub in command.list_commands(root):
            child = command.get_command(root, sub)
            assert child is not None
            yield from printing(child, f"{name} {sub}".strip(), root)
    elif any("--json" in parameter.opts for parameter in command.params):
        yield name


def test_every_command_that_prints_a_document_has_its_schema() -> None:
    """That what they print follows it is checked wherever tests run them (`Console`)."""
    names = list(printing(cli, "", click.Context(cli)))
    assert {"-".join(name.split()) for name in names} == set(schema("documents")["properties"])
    for name in names:
        Draft202012Validator.check_schema(document_schema(name))
    assert not Draft202012Validator(document_schema("token list")).is_valid([{"id": "1"}])
    with pytest.raises(NotFoundError) as caught:
        document_schema("serve")
    assert caught.value.message == "No command 'serve' prints a document."


@pytest.mark.parametrize(("path", "name"), FILES.items())
def test_written_files_follow_their_schema(files: dict[str, bytes], path: str, name: str) -> None:
    validate(name, json.loads(files[path]))


def test_the_card_follows_its_schema(files: dict[str, bytes]) -> None:
    validate("card", yaml.safe_load(files["README.md"].decode().split("---\n")[1]))


def test_a_build_follows_its_schema(tmp_path: Path) -> None:
    compose(parts_of(pico_set())).save(tmp_path / "build")
    validate("build", json.loads((tmp_path / "build" / "build.json").read_bytes()))
    for graph in (tmp_path / "build").glob("trunks/*/graph.json"):
        validate("graph", json.loads(graph.read_bytes()))


WRONG: list[tuple[str, tuple[str | int, ...], Any]] = [
    ("modhub.json", ("schema_version",), 2),
    ("modhub.json", ("modules",), []),
    ("modhub.json", ("modules", 0, "manifest", "path"), "../up"),
    ("modhub.json", ("modules", 0, "manifest", "path"), "/up"),
    ("modhub.json", ("modules", 0, "tensors", "sha256"), "beef"),
    ("modhub.json", ("input", "std", 0), 0),
    ("modhub.json", ("input", "channels"), 2),
    ("modhub.json", ("input", "channels"), 4),
    ("modhub.json", ("trunk", "features"), 0),
    ("modhub.json", ("modules", 0, "label"), "cat\x1b[2J"),
    ("modhub.json", ("trunk", "repository"), "../../x"),
    ("modhub.json", ("trunk", "repository"), "lab/x.git"),
    ("modhub.json", ("trunk", "repository"), "lab--x/y"),
    ("modhub.json", ("trunk", "repository"), "lab/x\n"),
    ("modhub.json", ("trunk", "graph", "path"), "trunk//graph.json"),
    ("modhub.json", ("trunk", "sha256"), "0" * 64 + "\n"),
    ("modules/cat/module.json", ("aliases",), ["cat\n"]),
    ("modules/cat/module.json", ("form",), "pickle"),
    ("modules/cat/module.json", ("slug",), "a/b"),
    ("modules/cat/module.json", ("measurement", "values", "recall"), 1.5),
    ("trunk/graph.json", ("nodes", 0, "op"), "exec"),
    ("trunk/graph.json", ("nodes", 0, "attributes", "stride"), [0, 1]),
    ("trunk/graph.json", ("nodes", 0, "inputs"), []),
    ("trunk/graph.json", ("input_shape",), [3, 8]),
]


@pytest.mark.parametrize(("path", "at", "value"), WRONG)
def test_wrong_values_are_refused(
    files: dict[str, bytes], path: str, at: tuple[str | int, ...], value: Any
) -> None:
    assert not is_valid(FILES[path], changed(json.loads(files[path]), at, value))


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    zoo = ReleaseHub(tmp_path_factory.mktemp("zoo"))
    zoo.put("lab/r20", "1.0.0", {"cat": 0.8, "dog": 0.7})
    project = Project("pets", Project.of({"dog": "*", "cat": "lab/r20"}).wants, Constraints(("mit",)))
    found: dict[str, Any] = lock_of(project, resolve(project, zoo.catalog), lambda *_: "0" * 40).to_dict()
    return found


LOCKED: list[tuple[tuple[str | int, ...], Any]] = [
    (("modules", 0, "files", 0, "path"), "../../x"),
    (("modules", 0, "files", 0, "path"), "/etc/x"),
    (("modules", 0, "files", 0, "path"), "a/./x"),
    (("modules", 0, "files", 0, "path"), "a\\x"),
    (("modules", 0, "files", 0, "path"), ""),
    (("modules", 0, "files", 0, "sha256"), "beef"),
    (("modules", 0, "files", 0, "size"), -1),
    (("modules", 0, "version"), "x"),
    (("modules", 0, "version"), ""),
    (("modules", 0, "version"), "1.0.0\n"),
    (("modules", 0, "commit"), "main"),
    (("modules", 0, "commit"), "0" * 40 + "\n"),
    (("modules", 0, "repository"), "lab"),
    (("modules", 0, "repository"), "../x"),
    (("modules", 0, "repository"), "lab/x..y"),
    (("modules", 0, "label"), ""),
    (("modules", 0, "label"), "   "),
    (("modules", 0, "label"), "l" * 201),
    (("modules", 0, "ref"), ""),
    (("modules", 0, "ref"), "l" * 1001),
    (("trunks", 0, "files", 0, "path"), "trunk/../../x"),
    (("trunks", 0, "repository"), "lab/x.git"),
    (("constraints", "licenses", 0), "mit\x1b[2J"),
    (("constraints", "cheap"), True),
    (("constraints", "max-trunks"), 0),
]


@pytest.mark.parametrize(("at", "value"), LOCKED)
def test_wrong_locks_are_refused(lock: dict[str, Any], at: tuple[str | int, ...], value: Any) -> None:
    validate("lock", lock)
    document = changed(lock, at, value)
    assert not is_valid("lock", document)
    with pytest.raises(ModhubError):
        Lock.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    "version", ["0", "1.10", "2!1.0", "1.0rc1", "1.0.post2", "1.0a2.post3.dev4+cpu.7", None]
)
def test_a_lock_may_have_any_version_in_its_normal_form(lock: dict[str, Any], version: str | None) -> None:
    document = changed(lock, ("modules", 0, "version"), version)
    validate("lock", document)
    assert Lock.from_bytes(json.dumps(document).encode()).to_dict() == document


READERS: dict[str, tuple[str, Callable[[bytes], object]]] = {
    "graph": ("trunk/graph.json", lambda content: Graph.from_dict(json.loads(content))),
    "lock": ("", Lock.from_bytes),
    "module": ("modules/cat/module.json", ModuleManifest.from_bytes),
    "repository": ("modhub.json", RepositoryManifest.from_bytes),
}
"""Schema → an example among the written files and what reads it."""


def texts(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every string of a document, and where it stands."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(item, (*at, key))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("sign", ["\x00", "\n", "\x1b", "\x7f", "\x9f"])
def test_no_string_holds_a_control_character(
    name: str, sign: str, files: dict[str, bytes], lock: dict[str, Any]
) -> None:
    path, read = READERS[name]
    document = json.loads(files[path]) if path else lock
    read(json.dumps(document).encode())
    for at, text in texts(document):
        worse = changed(document, at, text + sign)
        assert not is_valid(name, worse), at
        with pytest.raises(ModhubError):
            read(json.dumps(worse).encode())


@pytest.mark.parametrize(("path", "name"), FILES.items())
def test_every_required_key_is_required_by_the_schema(files: dict[str, bytes], path: str, name: str) -> None:
    document = json.loads(files[path])
    for key in document:
        shorter = {other: value for other, value in document.items() if other != key}
        with pytest.raises(ValidationError):
            validate(name, shorter)


def test_the_allow_list_of_the_schema_is_that_of_the_code() -> None:
    node = schema("graph")["properties"]["nodes"]["items"]
    assert node["properties"]["op"]["enum"] == list(OPERATORS)
    for rule in node["allOf"]:
        spec = OPERATORS[rule["if"]["properties"]["op"]["const"]]
        attributes = rule["then"]["properties"]["attributes"]
        assert list(attributes["properties"]) == list(spec.attributes)
        assert attributes["additionalProperties"] is False


def test_what_the_schema_takes_the_reader_takes() -> None:
    graph = pico_network().graph.to_dict()
    validate("graph", graph)
    assert Graph.from_dict(graph).to_dict() == graph
