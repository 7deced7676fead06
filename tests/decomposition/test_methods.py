"""What every method that chooses channels must do, and what is each one's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhub.artifact import read_artifact, write_artifact
from modhub.artifact.modules import Decomposition
from modhub.composition import Budget, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.trunk_plan import trunk_plans
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import METHODS, DecomposeOptions, Workbench, method_of
from modhub.decomposition.assembly import assemble
from modhub.decomposition.firing import firing_rates
from modhub.nets import Runner
from modhub.pruning.baselines import best_slots
from modhub.reporter import SILENT
from tests.support.digit_parents import INPUT, digit_parent, digits, pixels_of

OPTIONS = DecomposeOptions(images_per_class=20, calibration_images=20, only=("0", "1"))
SMALL: dict[str, dict[str, Any]] = {}
"""Options with which a method works in a moment."""
CHANNELS = sorted(METHODS.keys() - {"relevance", "concern"})


def decomposed(name: str, **options: Any) -> Decomposition:
    method = METHODS[name](**{**SMALL.get(name, {}), **options})
    return method.decompose(digit_parent(), digits("012345"), OPTIONS, SILENT)


drafts = cache(decomposed)


@pytest.mark.parametrize("name", CHANNELS)
def test_modules_are_written_read_and_composed(name: str, tmp_path: Path) -> None:
    parent, done = digit_parent(), drafts(name)
    assert done.method.name == name
    assert done.method.parameters.items() >= {**method_of(name).parameters(), **SMALL.get(name, {})}.items()  # type: ignore[attr-defined]
    write_artifact(tmp_path / "out", assemble(parent, done))
    modules = read_artifact(tmp_path / "out")
    pixels, targets = pixels_of(digits("01", "test"))
    for module in modules.modules:
        assert module.manifest.measurement is not None
        assert module.tensors["relevance"].max() == 1
        assert any(key.startswith("statistics.") for key in module.tensors)
    with torch.inference_mode():
        scores = compose(parts_of(modules))(pixels)
    assert float((scores.argmax(1).numpy() == targets).mean()) > 0.9
    (plan,) = trunk_plans(parts_of(modules))
    report = plan.compile(ChannelChooser(plan).mask(Budget(flops=0.6))).report
    assert report.flops <= 0.6 * report.parent_flops


@pytest.mark.parametrize("name", CHANNELS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    for one, other in zip(drafts(name).modules, decomposed(name).modules, strict=True):
        assert one.calibration == other.calibration
        assert one.measurement == other.measurement
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)


# -- random -----------------------------------------------------------------------------------------------


def test_random_keeps_the_same_share_of_channels_for_every_class() -> None:
    first, second = drafts("random", share=0.5).modules
    assert torch.equal(first.tensors["mask"], second.tensors["mask"])
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    free = np.concatenate([np.full(group.size, group.cuttable) for group in space.groups])
    kept = first.tensors["mask"].bool().numpy()
    assert kept[~free].all()
    assert abs(kept[free].mean() - 0.5) < 0.02
    # Less is a part of more.
    more = drafts("random", share=0.8).modules[0].tensors["mask"].bool().numpy()
    assert (more | ~kept).all()


def test_the_best_slots_are_those_worth_most() -> None:
    space = Workbench(digit_parent(), digits("012345"), OPTIONS).space
    worth = np.random.default_rng(0).random(space.slots)
    assert best_slots(worth, space, 1.0).all()
    assert (best_slots(worth, space, 0.0) == space.close(np.zeros(space.slots, np.bool_))).all()
    half = best_slots(worth, space, 0.5)
    free = np.concatenate([np.full(group.size, group.cuttable) for group in space.groups])
    assert worth[half & free].min() > worth[~half].max()


# -- activation -------------------------------------------------------------------------------------------


def test_rates_are_those_counted_image_by_image() -> None:
    parent = digit_parent()
    bench = Workbench(parent, digits("012345"), OPTIONS)
    rates = firing_rates(bench)
    assert list(rates) == bench.rows
    runner, space = Runner(parent.trunk), bench.space
    relus = [node.name for node in parent.trunk.graph.nodes if node.op == "relu"]
    for row in bench.rows:
        anywhere, share = np.full((2, space.slots), -1.0)
        for relu in relus:
            counted = [
                (runner.observe(Preprocess(INPUT)(pixels), [relu])[relu] > 0).flatten(2)
                for pixels, _ in bench.images_of(row).batches(1)
            ]
            fired = torch.cat(counted).double()
            slots = space.of(relu)
            anywhere[slots] = np.maximum(anywhere[slots], fired.amax(2).mean(0).numpy())
            share[slots] = np.maximum(share[slots], fired.mean((0, 2)).numpy())
        behind = anywhere >= 0
        assert np.allclose(rates[row].images[behind], anywhere[behind])
        assert np.allclose(rates[row].positions[behind], share[behind])
        assert (rates[row].images[~behind] == 1).all()


def test_activation_keeps_what_is_active_in_most_images() -> None:
    bench = Workbench(digit_parent(), digits("012345"), OPTIONS)
    rates = firing_rates(bench)
    for row, draft in zip(bench.rows, drafts("activation", share=0.99).modules, strict=True):
        assert (draft.tensors["mask"].bool().numpy() == bench.space.close(rates[row].images >= 0.99)).all()
