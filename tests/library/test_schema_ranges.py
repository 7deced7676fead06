"""What a schema refuses, its reader refuses as well, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from modhub.api.builds import BuildOptions
from modhub.composition import compose, parts_of
from modhub.composition.build import load_build
from modhub.errors import ManifestError
from modhub.manifest import ModuleManifest, RepositoryManifest
from modhub.project.lock import Lock
from modhub.text import pretty_json
from tests.library.test_schemas import FILES, changed, files, validate
from tests.support.pico import pico_set

__all__ = ["files"]

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
    *(
        (
            path,
            ("input", "channels"),
            count,
            f"The input has {count} channels; an image is grey (1) or RGB (3).",
        )
        for path in ("modhub.json", "modules/cat/module.json")
        for count in (0, 2, 4)
    ),
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


@pytest.mark.parametrize(("path", "at", "value", "message"), RANGES)
def test_what_the_schema_refuses_the_reader_refuses(
    files: dict[str, bytes], path: str, at: tuple[str | int, ...], value: Any, message: str
) -> None:
    content = lock_bytes() if path == "modhub.lock" else files[path]
    READERS[path](content)
    document = changed(json.loads(content), at, value)
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
    document = changed(json.loads(path.read_bytes()), at, value)
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
