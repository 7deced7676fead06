"""Which of several modules of one class is taken to be the best."""

from __future__ import annotations

from pathlib import Path

import pytest

from modhub.api.info import info
from modhub.api.search import search
from modhub.catalog.catalog import Catalog
from modhub.catalog.measurements import remember_measurements
from modhub.catalog.publish import push
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.manifest import (
    MANIFEST_NAME,
    Measurement,
    ModuleEntry,
    RepositoryManifest,
    Sample,
    at_least,
    ranking_key,
    shown_bound,
)
from modhub.manifest.fields import Fields
from modhub.refs import RepositoryId, parse_version
from tests.support.paper import write_paper_artifact


def images(split: str, positives: int, negatives: int = 900) -> Sample:
    return Sample(dataset="cifar10", split=split, positives=positives, negatives=negatives)


@pytest.mark.parametrize(
    ("metrics", "sample", "expected"),
    [
        # E. B. Wilson: of 100 tries all, of 100 tries half, of none.
        ({"balanced_accuracy": 1.0}, images("test", 50), 1 / (1 + 1.96**2 / 100)),
        ({"balanced_accuracy": 0.5}, images("test", 50), 0.4038),
        ({"balanced_accuracy": 0.9}, images("test", 0), 0.0),
        ({"balanced_accuracy": 0.5, "recall": 1.0}, images("test", 900, 50), 0.4038),
        ({"recall": 0.4, "precision": 0.6}, images("test", 100), 0.4038),
        ({"recall": 0.5}, images("test", 100), 0.4038),
        ({"recall": 0.5}, None, 0.3174),
        ({"precision": 0.5}, images("test", 100), None),
        ({}, None, None),
    ],
)
def test_what_a_module_reaches_at_the_least(
    metrics: dict[str, float], sample: Sample | None, expected: float | None
) -> None:
    found = at_least(metrics, sample)
    assert found == (None if expected is None else pytest.approx(expected, abs=2e-4))


@pytest.mark.parametrize(
    ("metrics", "sample", "shown"),
    [
        ({"balanced_accuracy": 0.5}, images("test", 50), "≥ 40.4 %"),
        ({"balanced_accuracy": 0.961}, images("train", 50), "96.1 % on training images"),
        ({"balanced_accuracy": 0.961}, images("all", 50), "96.1 % on training images"),
        ({"recall": 0.8, "precision": 0.9}, None, "85.0 % on unnamed images"),
        ({}, images("test", 50), "–"),
    ],
)
def test_a_bound_is_shown_of_unseen_images_only(
    metrics: dict[str, float], sample: Sample | None, shown: str
) -> None:
    assert shown_bound(metrics, sample) == shown


def test_the_order() -> None:
    """The best first."""
    ordered = [
        ({"balanced_accuracy": 0.90}, images("test", 1000)),
        ({"balanced_accuracy": 0.95}, images("val", 20)),
        ({"balanced_accuracy": 0.60, "recall": 1.0}, images("test", 1000)),
        ({"balanced_accuracy": 0.99}, images("train", 1000)),
        ({"balanced_accuracy": 1.00}, images("train", 50)),
        ({"balanced_accuracy": 1.00}, None),
        ({"recall": 0.8, "precision": 0.1}, images("all", 50)),
        ({}, images("test", 1000)),
    ]
    ranks = [ranking_key(metrics, sample) for metrics, sample in ordered]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(ranks)


def test_search_says_on_what_its_order_rests(tmp_path: Path) -> None:
    catalog = Catalog(DirectoryHub(tmp_path / "hub"), Cache(tmp_path / "cache"))
    for name, recall, sample in (
        ("heart", 1.0, images("train", 50)),
        ("test", 0.8, images("test", 100)),
        ("older", 0.9, None),
    ):
        artifact = write_paper_artifact(tmp_path / name, {"cat": recall}, trunk=name, sample=sample)
        push(catalog, artifact, RepositoryId("lab", name), parse_version("1.0.0"))
    found = search("cat", hub=catalog).modules
    assert [hit.repository for hit in found] == ["lab/test", "lab/heart", "lab/older"]
    assert found[0].sample == images("test", 100)
    assert found[0].at_least == pytest.approx(0.684, abs=1e-3)
    assert found[2].sample is None
    # What was measured on this machine comes first, in a column of its own.
    assert [hit.measured for hit in found] == [None, None, None]
    mine = Measurement(dataset="d", split="test", positives=30, negatives=30, values={"recall": 0.4})
    older = info("lab/older/cat", hub=catalog)
    manifest = catalog.manifest(RepositoryId("lab", "older"), older.commit)
    remember_measurements({manifest.modules[0].manifest.sha256: mine})
    found = search("cat", hub=catalog).modules
    assert [hit.repository for hit in found] == ["lab/older", "lab/test", "lab/heart"]
    assert [hit.measured for hit in found] == [mine, None, None]
    assert found[0].recall == 0.9
    assert info("lab/older", hub=catalog).modules[0].measured == mine
    # Of a single module its own manifest says it, in older repositories too.
    assert info("lab/older", hub=catalog).modules[0].sample is None
    sample = info("lab/older/cat", hub=catalog).modules[0].sample
    assert sample is not None
    assert (sample.split, sample.positives) == ("calibration", 9)


def test_an_entry_without_a_sample_is_written_as_it_was(tmp_path: Path) -> None:
    for sample in (None, images("test", 7)):
        content = (
            write_paper_artifact(tmp_path / f"{sample}", {"cat": 0.5}, sample=sample) / MANIFEST_NAME
        ).read_bytes()
        manifest = RepositoryManifest.from_bytes(content)
        assert manifest.modules[0].sample == sample
        assert (b"sample" in content) is (sample is not None)
        assert manifest.to_bytes() == content
        assert ModuleEntry.from_dict(Fields(manifest.modules[0].to_dict(), "entry")) == manifest.modules[0]
