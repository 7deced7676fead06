"""Images of nothing that a classifier knows: noise, plain colours, letters and photographs for digits."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images
from torch import Tensor

from modhub.artifact.tensors import TextureStatistics
from modhub.calibration.feature_distance import WIDEST, ClassGaussians, FeatureDrift
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.build import load_build
from modhub.data.preprocessing import Preprocess
from modhub.data.texture import texture, texture_size
from modhub.errors import BudgetError, IntegrityError
from modhub.manifest import InputSpec
from modhub.reporter import Reporter
from tests.support.digit_parents import digit_modules, digits, pixels_of
from tests.support.quick import QUICK

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZabdefghknqrt?&%#@"


def noise(count: int = 200) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    even = torch.randint(0, 256, (count // 2, 1, 8, 8), generator=draw).byte()
    gaussian = (128 + 50 * torch.randn(count // 2, 1, 8, 8, generator=draw)).clamp(0, 255).byte()
    return torch.cat([even, gaussian])


def plain() -> Tensor:
    return torch.arange(0, 256, 3).byte()[:, None, None, None].expand(-1, 1, 8, 8).clone()


@cache
def letters() -> Tensor:
    """Written as the digits are: white on black, as large as the picture."""
    pictures = []
    for size in (32, 48, 64):
        font = ImageFont.load_default(size)
        for letter in LETTERS:
            page = Image.new("L", (2 * size, 2 * size))
            ImageDraw.Draw(page).text((size // 2, size // 3), letter, fill=255, font=font)
            page = page.crop(page.getbbox())
            square = Image.new("L", (max(page.size), max(page.size)))
            square.paste(page, ((square.width - page.width) // 2, (square.height - page.height) // 2))
            pictures.append(np.array(square.resize((8, 8), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(pictures))[:, None]


@cache
def photographs() -> Tensor:
    """Pieces of two photographs, as raw RGB, of many sizes."""
    pieces = []
    for photograph in load_sample_images().images:
        for side in (64, 160, 320):
            for top in range(0, photograph.shape[0] - side + 1, 60):
                for left in range(0, photograph.shape[1] - side + 1, 90):
                    piece = Image.fromarray(photograph[top : top + side, left : left + side])
                    pieces.append(np.array(piece.resize((8, 8), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2)


STRANGE = {"noise": noise, "plain colours": plain, "letters": letters, "photographs": photographs}


def both() -> ComposedClassifier:
    parts = [*parts_of(digit_modules()), *parts_of(digit_modules("456789", 10, 1), ["6", "7", "8", "9"])]
    return compose(parts, reject=True)


def looking(part: Part, texture: TextureStatistics | None) -> Part:
    """The module whose images look so."""
    tensors = replace(part.tensors, texture=texture).to_dict()
    return replace(part, module=replace(part.module, tensors=tensors))


CLASSIFIERS = {
    "six classes": lambda: compose(parts_of(digit_modules()), reject=True),
    "two classes": lambda: compose(parts_of(digit_modules(), ["1", "4"]), reject=True),
    "one class": lambda: compose(parts_of(digit_modules(), ["3"]), reject=True),
    "two parents": both,
}


def accepted(classifier: ComposedClassifier, images: Tensor) -> float:
    answers = [prediction.label is not None for prediction in classifier.predict(images)]
    return sum(answers) / len(answers)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_images_of_nothing_are_refused_and_its_own_are_not(name: str) -> None:
    """These networks learned in seconds; by their margins they take half of it for digits."""
    classifier = CLASSIFIERS[name]()
    shares = {kind: accepted(classifier, images()) for kind, images in STRANGE.items()}
    assert max(shares.values()) <= 0.1, shares
    assert accepted(classifier, pixels_of(digits("".join(classifier.labels), "test"))[0]) >= 0.93


def test_modules_that_do_not_say_how_their_images_look_go_by_features() -> None:
    """As those of earlier versions do."""
    classifier = compose([looking(part, None) for part in parts_of(digit_modules())], reject=True)
    (head,) = classifier.heads
    assert head.texture is None
    assert head.distance is not None
    shares = {kind: accepted(classifier, images()) for kind, images in STRANGE.items()}
    assert max(shares.values()) <= 0.3, shares
    assert accepted(classifier, pixels_of(digits("012345", "test"))[0]) >= 0.9


@pytest.mark.parametrize("channels", [1, 3])
def test_a_texture_does_not_hang_on_how_pixels_are_normalised(channels: int) -> None:
    pixels = torch.randint(0, 256, (3, channels, 9, 11), generator=torch.Generator().manual_seed(0)).byte()
    plain = texture(pixels.float() / 255)
    assert plain.shape == (3, texture_size(channels, 9, 11)) == (3, channels * 18)
    spec = InputSpec(
        channels=channels,
        height=9,
        width=11,
        mean=(90,) * channels,
        std=(60,) * channels,
        value_range=(0, 255),
    )
    preprocess = Preprocess(spec)
    torch.testing.assert_close(texture(preprocess.pixels(preprocess(pixels))), plain)
    flat = texture(torch.full((1, channels, 9, 11), 0.5))
    assert float(flat[:, channels:].max()) <= 2e-3, "a plain image has no edges"


def test_a_texture_of_another_size_is_refused() -> None:
    part, *others = parts_of(digit_modules())
    assert part.tensors.texture is not None
    short = replace(part.tensors.texture, mean=part.tensors.texture.mean[:-1])
    with pytest.raises(IntegrityError) as caught:
        compose([looking(part, short), *others], reject=True)
    assert caught.value.message == "The tensor 'texture.mean' of a module is [17]; its trunk needs [18]."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0.0}, "The tensor 'texture.limit' of a module is 0; a distance is more than 0."),
        ({"limit": -1.0}, "The tensor 'texture.limit' of a module is -1; a distance is more than 0."),
        ({"correlation": 9.0}, "The correlations that a module records are not those of any images."),
        ({"correlation": -1.0}, "The correlations that a module records are not those of any images."),
    ],
    ids=str,
)
def test_a_texture_that_no_images_have_is_refused(changes: dict[str, float], message: str) -> None:
    part, *others = parts_of(digit_modules())
    assert part.tensors.texture is not None
    [(name, value)] = changes.items()
    wrong = torch.full_like(getattr(part.tensors.texture, name), value)
    with pytest.raises(IntegrityError) as caught:
        compose([looking(part, replace(part.tensors.texture, **{name: wrong})), *others], reject=True)
    assert caught.value.message == message


class Heard(Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_networks_that_were_cut_on_images_or_not_at_all_are_not_warned_of() -> None:
    heard, parts = Heard(), parts_of(digit_modules(), ["1", "4"])
    compose(parts, reject=True, reporter=heard)
    tune = digits("14").sample(20, 0)
    compose(parts, budget=Budget(flops=0.6), tune=tune, reject=True, settings=QUICK, reporter=heard)
    assert heard.warnings == []


def test_a_network_cut_without_images_refuses_what_is_of_nothing_and_not_its_own(tmp_path: Path) -> None:
    heard = Heard()
    classifier = compose(
        parts_of(digit_modules(), ["1", "4"]), budget=Budget(flops=0.5), reject=True, reporter=heard
    )
    assert heard.warnings == [
        "What is 'none of these' to networks that were cut without images is estimated: they may refuse "
        "more images of their own classes than others do. Measure it with 'modhub evaluate', or give images "
        "with --tune."
    ]
    shares = {kind: accepted(classifier, images()) for kind, images in STRANGE.items()}
    assert max(shares.values()) <= 0.1, shares
    assert accepted(classifier, pixels_of(digits("14", "test"))[0]) >= 0.95
    before = classifier.assess(noise())[1]
    assert torch.equal(load_build(classifier.save(tmp_path / "build")).assess(noise())[1], before)


def test_a_network_cut_too_far_without_images_may_not_refuse() -> None:
    parts = parts_of(digit_modules(), ["1", "4"])
    with pytest.raises(BudgetError) as caught:
        compose(parts, budget=Budget(flops=0.25), reject=True, settings=QUICK)
    assert re.sub(r"of \d+\.\d %", "of N %", str(caught.value)) == (
        "Without images, a network of N % of the multiply-adds of 'digits-012345-12' cannot tell what is "
        "'none of these': it may refuse most images of its own classes. Give images with --tune, leave out "
        "--reject, or keep 40.0 % or more."
    )
    compose(parts, budget=Budget(flops=0.25), tune=digits("14").sample(20, 0), reject=True, settings=QUICK)


def test_a_classifier_that_must_answer_measures_no_distance() -> None:
    (head,) = compose(parts_of(digit_modules(), ["1", "4"])).heads
    assert head.distance is None
    assert head.texture is None


@pytest.mark.parametrize("features", [5, WIDEST + 1])
def test_the_distance_is_1_on_average_and_follows_the_features(features: int) -> None:
    draw = torch.Generator().manual_seed(0)
    mixing = torch.eye(features).double() + 0.1 * torch.randn(features, features, generator=draw).double()
    samples = torch.randn(4000, features, generator=draw).double() @ mixing + 3
    covariance = samples.T.cov()
    if features > WIDEST:
        covariance = covariance.diagonal()
    gaussians = ClassGaussians(samples.mean(0)[None], covariance[None])
    distance = gaussians.distance()(samples.float())
    assert float(distance.mean()) == pytest.approx(1, abs=0.05)
    drift = FeatureDrift.measured(samples, 2 * samples - 1, torch.ones(len(samples)))
    assert torch.allclose(drift.noise, torch.zeros(features, features).double(), atol=1e-9)
    moved = gaussians.drifted(drift).distance()((2 * samples - 1).float())
    assert torch.allclose(moved, distance, rtol=1e-3)


def test_a_feature_that_vanished_is_all_noise() -> None:
    before = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    drift = FeatureDrift.measured(before, torch.zeros(50, 2).double(), torch.ones(50))
    gaussians = ClassGaussians(torch.ones(1, 2).double(), torch.eye(2).double()[None])
    assert torch.equal(gaussians.drifted(drift).means, torch.zeros(1, 2).double())
