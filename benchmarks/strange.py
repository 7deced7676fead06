"""Images that show none of the classes: how many of them builds with `reject` take for one, and how many of
their own they refuse.

    python benchmarks/strange.py --data $D --weights $W --out DIR

prints a table for the demo's two networks on digits and for a ResNet-20 on CIFAR-10, whole and slim. Test
images measure; limits are chosen on synthetic images alone. `energy_and_distance` is a score that was tried:
energy, and how much likelier the features are in a class than anywhere in the parent's world (relative
Mahalanobis distance, Ren et al. 2021, arXiv 2106.09022).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from modhub.api.decompose import decompose
from modhub.composition import Budget, ComposedClassifier, compose, parts_of
from modhub.composition.head_density import fit_densities
from modhub.data import ImageSet, open_data
from modhub.data.preprocessing import Preprocess
from modhub.demo.parents import train_parent
from modhub.nets import Runner, channel_space
from modhub.pruning.statistics import pool, read_statistics
from world import PARENTS, World

__all__ = ["energy_and_distance"]

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZabdefghknqrt?&%#@"
MOST = 400
"""Images of a kind, and of the own classes."""

_SHARE = 0.5
"""Of the distance, in standard deviations of training images each; chosen on images of Tiny-ImageNet."""


def energy_and_distance(world: World, name: str) -> Callable[[Tensor], Tensor]:
    """Raw images (batch, 3, height, width) to scores (batch,), from the parent's head and what its modules
    carry; both terms are standardised on 100 training images of each class (20 of a hundred classes)."""
    parent, modules = world.parent(name), world.modules(name)
    runner, preprocess = Runner(parent.trunk), Preprocess(parent.input)
    space, value = channel_space(modules.trunk), modules.trunk.graph.output
    moments = []
    for module in modules.modules:
        found = read_statistics(
            module.parsed.statistics, modules.shared.correlations, modules.trunk.graph, space
        )
        if found is not None:
            moments.append(found.moments[value])
    every = np.ones(len(moments[0].mean), np.bool_)
    (near,) = fit_densities([moments], every, per_class=False)
    (far,) = fit_densities([[pool(moments)]], every, per_class=False)

    def terms(images: Tensor) -> tuple[Tensor, Tensor]:
        features = runner(preprocess(images))
        energy = (features @ parent.head.weight.T + parent.head.bias).logsumexp(1)
        return energy, near.class_log_densities(features).max(1).values - far.log_density(features)

    own = world.images(PARENTS[name].dataset, "train").sample(100 if len(parent.labels) <= 10 else 20, 99)
    with torch.inference_mode():
        seen = [terms(pixels) for pixels, _ in own.batches(200)]
    energies, distances = (torch.cat(each) for each in zip(*seen, strict=True))

    def score(images: Tensor) -> Tensor:
        energy, distance = terms(images)
        return (energy - energies.mean()) / energies.std() + _SHARE * (
            distance - distances.mean()
        ) / distances.std()

    return score


def noise(channels: int, side: int) -> Tensor:
    """Even and Gaussian, drawn otherwise than those that limits are chosen on."""
    draw = torch.Generator().manual_seed(7)
    shape = MOST // 2, channels, side, side
    even = torch.randint(0, 256, shape, generator=draw)
    gaussian = (128 + 50 * torch.randn(shape, generator=draw)).clamp(0, 255)
    return torch.cat([even, gaussian]).byte()


def plain(channels: int, side: int) -> Tensor:
    """Grey, and of three channels any colour."""
    draw = torch.Generator().manual_seed(8)
    return torch.randint(0, 256, (MOST, channels, 1, 1), generator=draw).byte().expand(-1, -1, side, side)


def letters(channels: int, side: int) -> Tensor:
    """White on black, as large as the picture."""
    pictures = []
    for size in (32, 48, 64):
        font = ImageFont.load_default(size)
        for letter in LETTERS:
            page = Image.new("L", (2 * size, 2 * size))
            ImageDraw.Draw(page).text((size // 2, size // 3), letter, fill=255, font=font)
            page = page.crop(page.getbbox())
            square = Image.new("L", (max(page.size), max(page.size)))
            square.paste(page, ((square.width - page.width) // 2, (square.height - page.height) // 2))
            pictures.append(np.array(square.resize((side, side), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(pictures))[:, None].expand(-1, channels, -1, -1)


def photographs(channels: int, side: int) -> Tensor:
    """Pieces of scikit-learn's two photographs, of many sizes."""
    from sklearn.datasets import load_sample_images

    pieces = []
    for photograph in load_sample_images().images:
        for wide in (64, 160, 320):
            for top in range(0, photograph.shape[0] - wide + 1, 60):
                for left in range(0, photograph.shape[1] - wide + 1, 90):
                    piece = Image.fromarray(photograph[top : top + wide, left : left + wide])
                    piece = piece.convert("L" if channels == 1 else "RGB")
                    pixels = np.array(piece.resize((side, side), Image.Resampling.BILINEAR))
                    pieces.append(pixels.reshape(side, side, channels))
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2)


def written_digits(channels: int, side: int) -> Tensor:
    """scikit-learn's test digits, enlarged."""
    images = open_data("digits", "test")
    pictures = [Image.fromarray(image[:, :, 0]) for image in images.images(range(min(len(images), MOST)))]
    large = [np.array(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(large))[:, None].expand(-1, channels, -1, -1)


KINDS: Mapping[str, Callable[[int, int], Tensor]] = {
    "noise": noise,
    "plain colours": plain,
    "letters": letters,
    "photographs": photographs,
    "digits": written_digits,
}


def accepted(classifier: ComposedClassifier, images: Tensor) -> float:
    """The share that is given a class."""
    with torch.inference_mode():
        acceptance = torch.cat([classifier.assess(part)[1] for part in torch.split(images, 100)])
    return float((acceptance >= 0).double().mean())


def table_row(name: str, classifier: ComposedClassifier, test: ImageSet, kinds: Sequence[str]) -> str:
    spec = classifier.trunk_passes[0].spec
    own = test.only(list(classifier.labels))
    own = own.subset(np.linspace(0, len(own) - 1, min(len(own), MOST)).astype(np.int64))
    (pixels,) = (pixels for pixels, _ in own.batches(len(own)))
    shares = [
        f"{100 * accepted(classifier, KINDS[kind](spec.channels, spec.height)):.0f} %"
        if kind in kinds
        else "own"
        for kind in KINDS
    ]
    return " | ".join([name, *shares, f"{100 * (1 - accepted(classifier, pixels)):.1f} %"])


def demo_rows(kinds: Sequence[str] = tuple(kind for kind in KINDS if kind != "digits")) -> list[str]:
    """The demo's networks, ten digits each, and slim builds of two of them."""
    rows = []
    test = open_data("digits", "test")
    labels = [str(digit) for digit in range(10)]
    for name in ("digits-plain", "digits-residual"):
        with tempfile.TemporaryDirectory() as folder:
            weights = train_parent(name, labels, Path(folder, "w.safetensors"))
            modules = decompose(f"modhub:{name}", "digits", weights=weights, labels=labels)
        for text, wanted, budget in (
            ("ten", labels, None),
            ("two", ["3", "7"], None),
            ("two, a half", ["3", "7"], Budget(flops=0.5)),
        ):
            classifier = compose(parts_of(modules, wanted), budget=budget, reject=True)
            rows.append(table_row(f"{name}, {text}", classifier, test, kinds))
    return rows


def cifar_rows(world: World, name: str = "C10-R20") -> list[str]:
    rows = []
    test = world.images("cifar10", "test")
    for text, wanted, budget in (
        ("ten", None, None),
        ("cat and dog", ["cat", "dog"], None),
        ("cat and dog, a half", ["cat", "dog"], Budget(flops=0.5)),
    ):
        classifier = compose(world.parts(name, wanted), budget=budget, reject=True)
        rows.append(table_row(f"{name}, {text}", classifier, test, tuple(KINDS)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="Folders of images, as for composition.py; without: digits only."
    )
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("strange-out"))
    arguments = parser.parse_args()
    print(f"| network and classes | {' | '.join(KINDS)} | own refused |\n|---|{'--:|' * (len(KINDS) + 1)}")
    for row in demo_rows():
        print(f"| {row} |", flush=True)
    if arguments.data is not None:
        for row in cifar_rows(World(arguments.data, arguments.weights, arguments.out)):
            print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
