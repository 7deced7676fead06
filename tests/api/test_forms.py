"""Measuring on unseen images, and modules that stand alone, from decomposition to a composed classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import modhub
from modhub.api.decompose import decompose, decompose_to, write_standalone
from modhub.artifact import read_artifact, read_manifest
from modhub.composition import Budget, compose, parts_of
from modhub.data import open_data
from modhub.decomposition import DecomposeOptions
from modhub.decomposition.standalone import standalone
from modhub.errors import DataError
from modhub.nets import Runner
from tests.support.digit_parents import digit_parent

SETTINGS = {"mean": (0.3,), "std": (0.35,), "images_per_class": 40, "name": "digits"}


def trained() -> Runner:
    parent = digit_parent("0123456789")
    return Runner(parent.head.join(parent.trunk))


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("forms") / "delta"
    decompose_to(directory, trained(), "digits", DecomposeOptions(measure="digits", **SETTINGS))
    return directory


def test_figures_come_from_the_images_given_to_measure(delta: Path) -> None:
    test = open_data("digits", "test")
    for module in read_artifact(delta).modules:
        measurement = module.manifest.measurement
        assert measurement is not None
        assert (measurement.dataset, measurement.split) == ("digits", "test")
        counts = dict(zip(test.labels, test.counts().tolist(), strict=True))
        assert measurement.positives == counts[module.label]
        assert measurement.negatives == len(test) - counts[module.label]
        # Few images choose the masks here; a module decides almost as well as its parent, not as well.
        assert measurement.values["parent_recall"] >= 0.8
        assert measurement.values["recall"] >= 0.6
        assert 0.8 <= measurement.values["balanced_accuracy"] <= 1


def test_a_single_module_is_measured_among_all_classes_of_its_parent() -> None:
    made = decompose(trained(), "digits", measure="digits", only=["3"], **SETTINGS)
    (module,) = made.modules
    assert module.manifest.measurement is not None
    values = module.manifest.measurement.values
    # Among the classes of the set alone every image were a 3: recall 1, precision 0.1.
    assert 0.6 <= values["recall"] <= 1
    assert values["precision"] >= 0.6


def test_measuring_needs_images_of_every_class(tmp_path: Path) -> None:
    few = open_data("digits", "test").only([str(digit) for digit in range(9)])
    with pytest.raises(DataError, match="no images of '9'"):
        decompose_to(tmp_path / "out", trained(), "digits", DecomposeOptions(measure=few, **SETTINGS))
    assert not (tmp_path / "out").exists()


def test_standalone_modules_share_no_file_and_compose_with_delta_ones(delta: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    write_standalone(delta, alone)
    manifest = read_manifest(alone)
    assert manifest.trunk is None
    assert {entry.form for entry in manifest.modules} == {"standalone"}
    assert not (alone / "trunk").exists()
    hub = str(tmp_path / "hub")
    modhub.push(delta, "lab/delta", version="1", hub=hub)
    modhub.push(alone, "lab/alone", version="1", hub=hub)
    # Its size is that of all its files, its own trunk among them.
    three = sum(path.stat().st_size for path in (alone / "modules" / "3").iterdir())
    assert modhub.info("lab/alone/3", hub=hub).modules[0].bytes == manifest.module("3").bytes == three
    assert modhub.pull(["lab/alone/3"], hub=hub).modules[0].bytes == three
    images, _ = next(open_data("digits", "test").batches(20))
    together = modhub.compose({"3": "lab/alone/3", "7": "lab/delta/7"}, hub=hub)
    assert len(together.passes) == 2
    assert together(images).shape == (20, 2)
    one, same = (
        modhub.compose([ref], budget=Budget(multiple=1), hub=hub) for ref in ("lab/alone/3", "lab/delta/3")
    )
    torch.testing.assert_close(one(images), same(images), atol=1e-3, rtol=1e-3)


def test_a_module_stands_alone_with_what_follows_its_head() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    with torch.no_grad():
        layers[2].bias += 1.0
    images = open_data("digits", "train").only(list("012"))
    settings = {**SETTINGS, "labels": list("012"), "input_size": (1, 8, 8)}
    modules = modhub.decompose(nn.Sequential(*layers, nn.Flatten()), images, **settings)
    pixels, _ = next(images.batches(20))
    margins = compose(parts_of(modules, ["1"]), budget=Budget(multiple=1)).margins(pixels)
    assert margins.std() > 1e-3
    torch.testing.assert_close(compose(parts_of(standalone(modules, "1"))).margins(pixels), margins)


def test_what_stands_alone_already_is_copied(delta: Path, tmp_path: Path) -> None:
    write_standalone(delta, tmp_path / "one")
    write_standalone(tmp_path / "one", tmp_path / "two")
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
