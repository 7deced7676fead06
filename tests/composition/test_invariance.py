"""The scale of a parent's logits and of its pixels has no natural unit: it changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import modhub
from modhub.calibration.calibrator import Calibrator, log_odds
from modhub.composition import Budget, compose, parts_of
from modhub.decomposition import Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.nets import Head, Network
from tests.support.digit_parents import OPTIONS, digit_modules, digit_parent, digits, pixels_of
from tests.support.quick import SHORT


@given(st.floats(-25, 25), st.integers(0, 2**16), st.booleans())
@settings(max_examples=25, deadline=None)
def test_calibrated_numbers_do_not_depend_on_the_scale_of_the_logits(
    exponent: float, seed: int, odds: bool
) -> None:
    draw = np.random.default_rng(seed)
    targets = np.repeat(np.arange(4), 30)
    logits = draw.normal(size=(120, 4)) * 2 + 3 * (np.arange(4) == targets[:, None])
    weights = draw.uniform(0.2, 1, 120)

    def calibrated(scale: float) -> tuple[float, list[float]]:
        calibrator = Calibrator(scale * logits, targets, weights, weights, odds=odds)
        numbers = calibrator.calibration(2)
        rates = [numbers.parameters[key] for key in ("threshold", "threshold_all", "false_accept")]
        return calibrator.temperature * scale, [*log_odds(scale * logits, 2, numbers), *rates]

    (plain, plain_numbers), (scaled, scaled_numbers) = calibrated(1.0), calibrated(10**exponent)
    assert scaled == pytest.approx(plain, rel=1e-6)
    np.testing.assert_allclose(scaled_numbers, plain_numbers, rtol=1e-4, atol=1e-4)


def louder(parent: Parent, by: float) -> Parent:
    """The same classifier with logits `by` times as large."""
    return replace(parent, head=Head(by * parent.head.weight, by * parent.head.bias, parent.head.tail))


def shifted(parent: Parent) -> Parent:
    """The same classifier, with a score of the features added to the logits of all classes alike."""
    weight, bias = parent.head.weight, parent.head.bias
    return replace(parent, head=Head(weight + weight.flip(0)[0], bias + 7, parent.head.tail))


def brighter(parent: Parent, by: float) -> Parent:
    """The same classifier, of normalised pixels `by` times as large."""
    spec, graph = parent.input, parent.trunk.graph
    first = next(node for node in graph.nodes if graph.input in node.inputs)
    name = first.tensors["weight"]
    tensors = {**parent.trunk.tensors, name: parent.trunk.tensors[name] / by}
    return replace(
        parent, trunk=Network(graph, tensors), input=replace(spec, std=tuple(each / by for each in spec.std))
    )


# Pixels by powers of two: these multiply exactly, and the steps of synthesis multiply rounding errors.
WAYS = {
    "louder": lambda parent: louder(shifted(parent), 300),
    "darker": lambda parent: brighter(parent, 1 / 256),
}


def answers(folder: Path, way: str | None) -> tuple[Tensor, Tensor]:
    """Scores of classes of this parent and of another, and of classes of this one alone within a budget."""
    mine = digit_modules()
    if way is not None:
        parent = WAYS[way](digit_parent())
        mine = assemble(parent, decompose(parent, digits("012345"), options=OPTIONS))
    hub = str(folder / "hub")
    modhub.push(mine, "lab/mine", version="1.0.0", hub=hub)
    modhub.push(digit_modules("6789"), "lab/other", version="1.0.0", hub=hub)
    wanted = {**dict.fromkeys("0123", "lab/mine"), **dict.fromkeys("678", "lab/other")}
    both = modhub.compose(wanted, hub=hub, reject=True)
    slim = compose(parts_of(mine, list("024")), budget=Budget(flops=0.5), settings=SHORT)
    pixels = pixels_of(digits("0123456789", "test"))[0]
    with torch.inference_mode():
        return both(pixels), slim(pixels)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor]:
    return answers(tmp_path_factory.mktemp("usual"), None)


@pytest.mark.parametrize("way", WAYS)
def test_builds_do_not_depend_on_the_scale_of_logits_or_pixels(
    tmp_path: Path, usual: tuple[Tensor, Tensor], way: str
) -> None:
    both, slim = answers(tmp_path, way)
    torch.testing.assert_close(both, usual[0], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(slim, usual[1], rtol=1e-2, atol=2e-2)
    assert torch.equal(slim.argmax(1), usual[1].argmax(1))
