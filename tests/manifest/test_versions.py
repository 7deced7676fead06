"""A manifest says the first version whose readers do all that it asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from modhub.errors import SchemaVersionError
from modhub.manifest import MODULE_SCHEMA_VERSION, InputSpec, ModuleManifest
from modhub.schemas import schema
from modhub.text import parse_json, pretty_json

GOLDEN = Path(__file__).parent.parent / "golden/0.1.0/modules/relevance/modules/0/module.json"


def manifest() -> ModuleManifest:
    return ModuleManifest.from_bytes(GOLDEN.read_bytes(), "module.json")


@pytest.mark.parametrize(
    ("change", "version"),
    [
        ({}, 1),
        ({"resize": 10, "crop": True}, 1),
        ({"resize": 10, "crop": True, "crop_floor": True}, 2),
        ({"resize": (10, 12), "crop": True}, 2),
    ],
)
def test_the_input_decides(change: dict[str, object], version: int) -> None:
    changed = replace(manifest(), input=replace(manifest().input, **change))  # type: ignore[arg-type]
    document = changed.to_dict()
    assert document["schema_version"] == version
    jsonschema.validate(document, schema("module"))
    again = ModuleManifest.from_bytes(changed.to_bytes(), "module.json")
    assert again == changed
    assert isinstance(again.input, InputSpec)


def test_a_newer_one_is_refused() -> None:
    document = parse_json(GOLDEN.read_bytes(), "module.json") | {"schema_version": MODULE_SCHEMA_VERSION + 1}
    with pytest.raises(SchemaVersionError, match="has schema version 3; this modhub reads up to 2"):
        ModuleManifest.from_bytes(pretty_json(document), "module.json")
