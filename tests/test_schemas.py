"""Every file that modhub writes follows its schema, and what the reader refuses the schema refuses too."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from modhub.artifact import artifact_files
from modhub.compose import compose, parts_of
from modhub.errors import NotFoundError
from modhub.nets import Graph
from modhub.nets.operators import OPERATORS
from modhub.schemas import SCHEMAS, schema
from tests.pico import pico_network, pico_set

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


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == f"urn:modhub:schema:{name}:1"


def test_every_shipped_schema_is_listed() -> None:
    folder = Path(__file__).parents[1] / "schemas"
    assert {path.name for path in folder.iterdir()} == {f"{name}.schema.json" for name in SCHEMAS}


def test_an_unknown_schema() -> None:
    with pytest.raises(NotFoundError) as caught:
        schema("../secrets")
    assert caught.value.message == "There is no schema '../secrets'."


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
    ("modhub.json", ("trunk", "features"), 0),
    ("modhub.json", ("modules", 0, "label"), "cat\x1b[2J"),
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
    document = copy.deepcopy(json.loads(files[path]))
    place = document
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    with pytest.raises(ValidationError):
        validate(FILES[path], document)


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
