"""Every file that modhub writes follows its schema, and what the reader refuses the schema refuses too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from modhub.api.composing import BuildOptions
from modhub.artifact import artifact_files
from modhub.compose import compose, parts_of
from modhub.compose.storage import load_build
from modhub.errors import ManifestError, NotFoundError
from modhub.files import pretty_json
from modhub.lock import Lock
from modhub.manifest import ModuleManifest, RepositoryManifest
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
    with pytest.raises(ValidationError):
        validate(FILES[path], changed(files[path], at, value))


READERS: dict[str, Callable[[bytes], object]] = {
    "modhub.json": RepositoryManifest.from_bytes,
    "modules/cat/module.json": ModuleManifest.from_bytes,
    "modhub.lock": Lock.from_bytes,
}

NOT_A_SLUG = "'slug' in 'modules[0]' in modhub.json is '{}', which is not a path component."

RANGES: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    *(
        ("modhub.json", ("modules", 0, "metrics", "recall"), value, f"is {said}; it should be 0 to 1.")
        for value, said in ((-1, "-1"), (1.5, "1.5"), (1e6, "1e+06"), (1e12, "1e+12"))
    ),
    (
        "modhub.json",
        ("modules", 0, "kept_channels_fraction"),
        1.5,
        "'kept_channels_fraction' in 'modules[0]' in modhub.json is 1.5; it should be 0 to 1.",
    ),
    (
        "modhub.json",
        ("modules", 0, "label"),
        "",
        "'label' in 'modules[0]' in modhub.json has 0 characters; a label has 1 to 200.",
    ),
    *(
        ("modhub.json", ("modules", 0, "slug"), slug, NOT_A_SLUG.format(slug))
        for slug in ("../../x", "..", "a/b", "a b")
    ),
    ("modhub.json", ("modules",), [], "modhub.json lists no module."),
    (
        "modules/cat/module.json",
        ("label",),
        "",
        "'label' in module.json has 0 characters; a label has 1 to 200.",
    ),
    (
        "modules/cat/module.json",
        ("slug",),
        "..",
        "'slug' in module.json is '..', which is not a path component.",
    ),
    (
        "modules/cat/module.json",
        ("measurement", "values", "recall"),
        1.5,
        "'values.recall' in 'measurement' in module.json is 1.5; it should be 0 to 1.",
    ),
    (
        "modhub.lock",
        ("modules", 0, "label"),
        "",
        "'label' in 'modules[0]' in modhub.lock has 0 characters; a label has 1 to 200.",
    ),
    (
        "modhub.lock",
        ("modules", 0, "module"),
        "",
        "'module' in 'modules[0]' in modhub.lock has 0 characters; a label has 1 to 200.",
    ),
    (
        "modhub.lock",
        ("modules", 0, "files"),
        [],
        "'files' in 'modules[0]' in modhub.lock lists 0; it should be 1 or more.",
    ),
    (
        "modhub.lock",
        ("trunks", 0, "files"),
        [],
        "'files' in 'trunks[0]' in modhub.lock lists 0; it should be 1 or more.",
    ),
    (
        "modhub.lock",
        ("constraints", "min-recall"),
        2,
        "'min-recall' in 'constraints' in modhub.lock is 2; it should be 0 to 1.",
    ),
]

BUILD_RANGES: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("labels", 0), "", "'labels[0]' in {} has 0 characters; a label has 1 to 200."),
    (("labels", 1), "cat", "'labels' in {} lists 'cat' twice."),
    (("labels",), [], "'labels' in {} lists 0; it should be 1 or more."),
    (("passes",), [], "'passes' in {} lists 0; it should be 1 or more."),
    (("passes", 0, "heads"), [], "'heads' in 'passes[0]' in {} lists 0; it should be 1 or more."),
    (
        ("passes", 0, "kept_channels_fraction"),
        -1,
        "'kept_channels_fraction' in 'passes[0]' in {} is -1; it should be 0 to 1.",
    ),
    (
        ("passes", 0, "kept_params_fraction"),
        -0.5,
        "'kept_params_fraction' in 'passes[0]' in {} is -0.5; it should be 0 or more.",
    ),
]


def changed(content: bytes, at: tuple[str | int, ...], value: Any) -> Any:
    document = place = json.loads(content)
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return document


@pytest.mark.parametrize(("path", "at", "value", "message"), RANGES)
def test_what_the_schema_refuses_the_reader_refuses(
    files: dict[str, bytes], path: str, at: tuple[str | int, ...], value: Any, message: str
) -> None:
    content = lock_bytes() if path == "modhub.lock" else files[path]
    READERS[path](content)
    document = changed(content, at, value)
    with pytest.raises(ValidationError):
        validate({**FILES, "modhub.lock": "lock"}[path], document)
    with pytest.raises(ManifestError) as caught:
        READERS[path](pretty_json(document))
    assert caught.value.message.endswith(message)


@pytest.mark.parametrize(("at", "value", "message"), BUILD_RANGES)
def test_what_the_schema_refuses_of_a_build_is_not_loaded(
    tmp_path: Path, at: tuple[str | int, ...], value: Any, message: str
) -> None:
    path = compose(parts_of(pico_set())).save(tmp_path / "build") / "build.json"
    document = changed(path.read_bytes(), at, value)
    with pytest.raises(ValidationError):
        validate("build", document)
    path.write_bytes(pretty_json(document))
    with pytest.raises(ManifestError) as caught:
        load_build(tmp_path / "build")
    assert caught.value.message == message.format(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("time", -1, "The budget time=-1 is not a fraction."),
        ("flops", 0, "The budget flops=0 is not a fraction."),
        ("params", 1.5, "The budget params=1.5 is not a fraction."),
        ("max_loss", 1, "The loss 1 is not a fraction."),
    ],
)
def test_options_that_no_build_has(tmp_path: Path, key: str, value: float, message: str) -> None:
    path = tmp_path / "options.json"
    document = BuildOptions().to_dict()
    path.write_bytes(pretty_json(document))
    assert BuildOptions.read(path) == BuildOptions()
    document[key] = value
    with pytest.raises(ValidationError):
        validate("options", document)
    path.write_bytes(pretty_json(document))
    with pytest.raises(ManifestError) as caught:
        BuildOptions.read(path)
    assert str(caught.value) == f"{path}: {message} Compose it again."


def lock_bytes() -> bytes:
    """The lock of one module."""
    files = [{"path": "a", "sha256": "0" * 64, "size": 1}]
    home = {"repository": "lab/net", "commit": "0" * 40}
    module = {"label": "cat", "ref": "lab/net/cat", **home, "version": "1.0", "module": "cat"}
    return pretty_json(
        {
            "schema_version": 1,
            "constraints": {},
            "modules": [{**module, "trunk": "0" * 64, "files": files}],
            "trunks": [{"sha256": "0" * 64, **home, "files": files}],
        }
    )


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
