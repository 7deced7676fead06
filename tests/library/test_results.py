"""Results are dataclasses, and answer to their JSON keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from modhub.results import Result


@dataclass(frozen=True, slots=True, repr=False)
class Inner(Result):
    label: str


@dataclass(frozen=True, slots=True, repr=False)
class Outer(Result):
    path: Path
    modules: tuple[Inner, ...]


def test_attributes_keys_and_json_agree() -> None:
    result = Outer(Path("a/b"), (Inner("cat"), Inner("dog")))
    document = {"path": "a/b", "modules": [{"label": "cat"}, {"label": "dog"}]}
    assert result.to_dict() == json.loads(json.dumps(document)) == document
    # As callers of 0.1.0 have it, where results were dictionaries.
    assert [module["label"] for module in result["modules"]] == ["cat", "dog"]
    assert result.modules[0]["label"] == "cat"
    with pytest.raises(KeyError):
        result["classes"]
    assert repr(result) == "Outer(path=PosixPath('a/b'), modules=(2 × Inner))"
