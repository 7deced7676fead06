"""Decomposing decodes each image once and passes it through the parent once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import modhub
from modhub.api.decompose import decompose_to
from modhub.data import ImageSet
from modhub.decomposition import DecomposeOptions
from modhub.nets import Runner, channel_space
from tests.support.digit_parents import INPUT, DigitNet, digit_parent, digits
from tests.support.packages import ACTIVITY

METHODS = ("relevance", "concern", "random", f"{ACTIVITY}:Activity")
OPTIONS = DecomposeOptions(
    mean=INPUT.mean, std=INPUT.std, images_per_class=12, calibration_images=8, max_loss=0.2
)
FIT, HELD = 6 * 12, 6 * 8


class Counted:
    """Images of digits, and how often each was decoded."""

    def __init__(self, split: str = "train") -> None:
        source = digits("012345", split).sample(20, 0)
        self.decoded: Counter[int] = Counter()

        def read(index: int) -> NDArray[np.uint8]:
            self.decoded[index] += 1
            return source.images([index])[0]

        self.images = ImageSet(source.name, split, source.labels, source.targets, read)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images went through the unpruned trunk, with gradients (`observe`) and without."""
    parent = digit_parent()
    trunk = channel_space(parent.trunk).slots
    names = {trunk: "trunk", channel_space(parent.head.join(parent.trunk)).slots: "with its head"}
    images: Counter[str] = Counter()
    forward, observe = Runner.forward, Runner.observe

    def counted_forward(runner: Runner, batch: Tensor) -> Tensor:
        images[names.get(channel_space(runner.network).slots, "pruned")] += len(batch)
        return forward(runner, batch)

    def counted_observe(runner: Runner, batch: Tensor, values: object) -> object:
        assert channel_space(runner.network).slots == trunk
        images["observe"] += len(batch)
        return observe(runner, batch, values)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "forward", counted_forward)
    monkeypatch.setattr(Runner, "observe", counted_observe)
    return images


def model() -> torch.nn.Module:
    """A network that is no `Runner`, so that importing it is not counted."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return DigitNet(6, 12).eval()


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_decoded_once_and_asked_about_once(method: str, passes: Counter[str]) -> None:
    data = Counted()
    made = modhub.decompose(model(), data.images, OPTIONS, method=method)
    if method != "concern":
        # What keeps all channels is not told from the parent by the counter.
        assert all(m.manifest.sizes.kept_channels_fraction < 1 for m in made.modules)
        # Held-out images: plain, in a harder copy, and (up to a hundred) in a mirror.
        assert passes["trunk"] == 3 * HELD
    assert passes["observe"] == FIT
    assert data.decoded == Counter(range(FIT + HELD))


def test_checkpoints_and_measuring_decode_nothing_again(tmp_path: Path, passes: Counter[str]) -> None:
    data, unseen = Counted(), Counted("test")
    made = decompose_to(
        tmp_path / "out",
        model(),
        data.images,
        DecomposeOptions(
            mean=INPUT.mean,
            std=INPUT.std,
            images_per_class=12,
            calibration_images=8,
            max_loss=0.2,
            measure=unseen.images,
        ),
    )
    assert made is not None
    assert data.decoded == Counter(range(FIT + HELD))
    assert set(unseen.decoded.values()) == {1}
    assert passes["observe"] == FIT
    assert passes["trunk"] == 3 * HELD
    # On the images to measure on, and on two examples when it was imported.
    assert passes["with its head"] == len(unseen.decoded) + 2
