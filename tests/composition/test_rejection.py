"""Images of nothing that a classifier knows: noise, plain colours, letters and photographs for digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images
from torch import Tensor

from modhub.composition import Budget, ComposedClassifier, compose, parts_of
from modhub.composition.build import load_build
from modhub.composition.feature_distance import WIDEST, ClassGaussians, FeatureDrift
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
    """These networks learned in seconds; without the distance they took half of it for digits."""
    classifier = CLASSIFIERS[name]()
    shares = {kind: accepted(classifier, images()) for kind, images in STRANGE.items()}
    assert max(shares.values()) <= 0.3, shares
    assert sum(shares.values()) / len(shares) <= 0.15, shares
    assert accepted(classifier, pixels_of(digits("".join(classifier.labels), "test"))[0]) >= 0.9


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


def test_a_slim_network_refuses_by_its_own_features(tmp_path: Path) -> None:
    heard = Heard()
    classifier = compose(
        parts_of(digit_modules(), ["1", "4"]), budget=Budget(flops=0.3), reject=True, reporter=heard
    )
    assert heard.warnings == [
        "What is 'none of these' to networks that were cut without images is estimated: they may refuse "
        "many images of their own classes. Measure it with 'modhub evaluate', or give images with --tune."
    ]
    assert accepted(classifier, noise()) <= 0.2
    assert accepted(classifier, pixels_of(digits("14", "test"))[0]) >= 0.85
    before = classifier.assess(noise())[1]
    assert torch.equal(load_build(classifier.save(tmp_path / "build")).assess(noise())[1], before)


def test_a_classifier_that_must_answer_measures_no_distance() -> None:
    (head,) = compose(parts_of(digit_modules(), ["1", "4"])).heads
    assert head.distance is None


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
