"""What a network takes where nobody says it, and images that are not alike or cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import modhub
from modhub.artifact import write_artifact
from modhub.data import ImageSet, open_data
from modhub.decomposition.network_input import input_shape
from modhub.errors import DataError, ParentError
from modhub.reporter import Reporter


class Said(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None:
        self.said.append(text)


def pictures(*shapes: tuple[int, int, int]) -> ImageSet:
    read = {number: np.zeros(shape, np.uint8) for number, shape in enumerate(shapes)}
    return ImageSet("pets", "all", ("cat", "dog"), np.arange(len(shapes)) % 2, read.__getitem__)


def flexible(channels: int) -> nn.Module:
    layers = [nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 2))


def fixed(channels: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.Flatten(), nn.Linear(2 * (side - 2) ** 2, 2))


class Widening(nn.Module):
    """Makes three channels of one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = flexible(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images.repeat(1, 3, 1, 1))  # type: ignore[no-any-return]


GREY, RGB = (8, 8, 1), (8, 8, 3)


@pytest.mark.parametrize(
    ("network", "shapes", "wanted"),
    [
        (lambda: flexible(3), [GREY, GREY, RGB], "3 channels (the network's), 8 × 8 pixels"),
        (lambda: flexible(1), [RGB, RGB, RGB], "1 channel (the network's), 8 × 8 pixels"),
        (Widening, [GREY, GREY, RGB], "1 channel (of most images), 8 × 8 pixels"),
        (lambda: nn.Flatten(), [GREY, RGB, RGB], "3 channels (the network's), 8 × 8 pixels"),
        (lambda: flexible(3), [(500, 333, 3), RGB, RGB], "3 channels (the network's), 8 × 8 pixels"),
    ],
    ids=[
        "grey pictures first",
        "a grey network",
        "widened inside",
        "no convolution",
        "a large picture first",
    ],
)
def test_the_network_tells_its_input_then_most_images(
    network: Callable[[], nn.Module], shapes: list[tuple[int, int, int]], wanted: str
) -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert str(input_shape(model, pictures(*shapes))) == f"{wanted} (the size of most images)"
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_size_that_the_images_do_not_tell_is_the_networks_or_asked_for() -> None:
    photos = pictures((30, 40, 3), (40, 30, 3), (20, 20, 1), (50, 60, 3))
    assert str(input_shape(fixed(3, 32), photos)) == (
        "3 channels (the network's), 32 × 32 pixels (the only usual one that the network takes)"
    )
    assert str(input_shape(flexible(3), photos, size=(64, 48))).endswith("64 × 48 pixels (given)")
    with pytest.raises(DataError) as caught:
        input_shape(flexible(3), photos)
    assert str(caught.value) == (
        "The images of 'pets' have 4 sizes or more, so they do not tell the network's. "
        "Say it with --input-size."
    )


MODES = ("L", "RGBA", "P", "LA", "RGB", "RGB", "RGB", "RGB")


@pytest.mark.parametrize("first", range(4))
def test_grey_rgba_and_palette_pictures_and_a_broken_one_stand_in_an_rgb_folder(
    tmp_path: Path, first: int
) -> None:
    generator = np.random.default_rng(0)
    for label, level in (("cat", 40), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(16):
            pixels = np.clip(generator.normal(level, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).convert(MODES[(number + first) % len(MODES)])
            image.save(tmp_path / label / f"{number:02}.png")
    (tmp_path / "dog" / "07.png").write_bytes(b"broken")
    said = Said()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = flexible(3).eval()
    modules = modhub.decompose(network, str(tmp_path), images_per_class=20, reporter=said)
    assert modules.manifest.input.channels == 3
    assert "Input: 3 channels (the network's), 8 × 8 pixels (the size of most images)." in said.said
    assert any(text.startswith("Unreadable images") for text in said.said)
    if first:
        return
    said = Said()
    write_artifact(tmp_path.parent / "modules", modules)
    classifier = modhub.compose(tmp_path.parent / "modules")
    evaluation = modhub.evaluate(classifier, str(tmp_path), reporter=said)
    assert (evaluation.count, evaluation.left_out, evaluation.unreadable) == (31, 0, 1)
    assert said.said[-1] == f"Unreadable images of '{tmp_path.name}' are passed over: 1 of 32."
    assert open_data(str(tmp_path)).counts().tolist() == [16, 16]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "Images of values from 0 to 1 have no mean of 123.7."),
        ({"std": (58.4, 57.1, 57.4)}, "Images of values from 0 to 1 have no standard deviation of 58.4."),
        ({"mean": -0.5, "input_size": (1, 8, 8)}, "Images of values from 0 to 1 have no mean of -0.5."),
        ({"mean": 0.5, "value_range": (1.0, 255.0)}, "Images of values from 1 to 255 have no mean of 0.5."),
    ],
)
def test_means_that_images_cannot_have_are_refused(given: dict[str, object], message: str) -> None:
    channels = 1 if isinstance(given.get("mean"), float) else 3
    settings = {"input_size": (channels, 8, 8), "labels": ["cat", "dog"], **given}
    with pytest.raises(ParentError) as caught:
        modhub.decompose(flexible(channels), None, **settings)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"{message} Say what black and white are before they are normalised: --value-range 0,255, say."
    )


def test_means_of_pixels_as_bytes_say_their_range() -> None:
    bytes_ = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4), "value_range": (0.0, 255.0)}
    made = modhub.decompose(flexible(3), None, input_size=(3, 8, 8), labels=["cat", "dog"], **bytes_)
    assert (made.manifest.input.mean, made.manifest.input.value_range) == (bytes_["mean"], (0.0, 255.0))
