"""Results are frozen, become JSON under their attributes' names, and have a short repr."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import modhub
from modhub.api import fsck as fsck_verb
from modhub.api.diff import Diff
from modhub.api.predict import ImagePrediction, Predictions
from modhub.api.pull import PulledModule, PullReport
from modhub.api.versions import ReleaseInfo, Versions
from modhub.manifest import Sample
from modhub.results import Result, plain
from modhub.schemas import document_schema

API = Path(modhub.__file__).parent / "api"
MODULE = PulledModule(
    label="cat",
    repository="lab/pets",
    version=None,
    commit="0" * 40,
    trunk="a" * 64,
    path=Path("cache/a"),
    bytes=100,
)


def results() -> list[type[Result]]:
    """Every result that a module of the API defines."""
    found = []
    for path in sorted(API.glob("*.py")):
        module = importlib.import_module(f"modhub.api.{path.stem}".removesuffix(".__init__"))
        found += [
            kind
            for _, kind in inspect.getmembers(module, inspect.isclass)
            if issubclass(kind, Result) and kind.__module__ == module.__name__
        ]
    return found


@pytest.mark.parametrize("kind", results(), ids=lambda kind: kind.__name__)
def test_results_are_frozen_and_have_the_short_repr(kind: type[Result]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert kind.__repr__ is Result.__repr__


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("cache.CacheReport", "cache"),
        ("builds.BuildReport", "compose"),
        ("builds.BuildReport", "replace"),
        ("convert.ConvertReport", "convert"),
        ("decompose.DecomposeReport", "decompose"),
        ("diff.Diff", "diff"),
        ("info.Info", "info"),
        ("pull.PullReport", "pull"),
        ("push.PushReport", "push"),
        ("release.RemovedRelease", "release-remove"),
        ("search.SearchResult", "search"),
        ("teach.TeachReport", "teach"),
        ("verify.Verified", "verify"),
        ("versions.Versions", "versions"),
        ("yank.YankReport", "yank"),
        ("export.ExportReport", "export"),
    ],
)
def test_the_attributes_are_the_keys_of_the_schema(kind: str, command: str) -> None:
    module, _, name = kind.partition(".")
    fields = dataclasses.fields(getattr(importlib.import_module(f"modhub.api.{module}"), name))
    document = document_schema(command)
    if reference := document.get("$ref"):
        document = document["$defs"][reference.rpartition("/")[2]]
    assert [field.name for field in fields] == list(document["properties"])


def test_every_verb_has_the_file_of_its_name() -> None:
    for name in modhub.__all__:
        home = getattr(getattr(modhub, name), "__module__", "")
        if home.startswith("modhub.api."):
            assert home == f"modhub.api.{name.removesuffix('_to')}"
    assert fsck_verb.fsck.__module__ == "modhub.api.fsck"


def test_nested_results_become_json() -> None:
    report = PullReport(modules=(MODULE,), downloaded_bytes=100, cached_bytes=0)
    assert report.to_dict() == {
        "modules": [
            {
                "label": "cat",
                "repository": "lab/pets",
                "version": None,
                "commit": "0" * 40,
                "trunk": "a" * 64,
                "path": "cache/a",
                "bytes": 100,
            }
        ],
        "downloaded_bytes": 100,
        "cached_bytes": 0,
    }
    sample = Sample(dataset="cifar10", split="test", positives=1, negatives=9)
    assert plain({"sample": sample, "pair": (1, [Path("x")])}) == {
        "sample": sample.to_dict(),
        "pair": [1, ["x"]],
    }


def test_a_repr_is_short() -> None:
    report = PullReport(modules=(MODULE,) * 50, downloaded_bytes=100, cached_bytes=0)
    assert repr(report) == "PullReport(modules=(50 × PulledModule), downloaded_bytes=100, cached_bytes=0)"
    assert len(repr(MODULE)) < 250
    labels = tuple(f"class {number}" for number in range(1000))
    diff = Diff(added=labels, removed=(), changed={})
    assert repr(diff) == "Diff(added=('class 0', 'class 1', 'class 2', ...), removed=(), changed={})"


def test_some_results_are_sequences() -> None:
    releases = tuple(ReleaseInfo(version=f"1.{n}", commit="0" * 40, yanked=None) for n in (1, 0))
    versions = Versions(repository="lab/pets", releases=releases)
    assert ([each.version for each in versions], len(versions), versions[1:]) == (
        ["1.1", "1.0"],
        2,
        releases[1:],
    )
    image = ImagePrediction(path="x.png", label=None, probabilities={"cat": 0.4, "dog": 0.6})
    predictions = Predictions(images=(image,), false_accept={"cat": 0.1})
    assert predictions[0].probability == 0.6
    assert predictions.to_dict() == {
        "images": [{"path": "x.png", "label": None, "probabilities": {"cat": 0.4, "dog": 0.6}}],
        "false_accept": {"cat": 0.1},
    }


def test_a_result_answers_to_its_json_keys_as_dictionaries_of_0_1_0_did() -> None:
    assert MODULE["label"] == MODULE.label == "cat"
    assert MODULE["path"] == "cache/a"
    with pytest.raises(KeyError):
        MODULE["classes"]
