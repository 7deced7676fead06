"""Two parents that each know five classes of CIFAR-10, composed to ten, against one parent trained on all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

from ledger import Ledger, Row
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.composition import ComposedClassifier, Part, compose, parts_of
from modhub.data import ImageSet, split_indices
from modhub.decomposition import DecomposeOptions
from subsets import calibration_error
from training import Recipe, train, trained
from world import IMAGENET, World

__all__ = ["RECIPE", "halves", "ten_of_two"]

RECIPE = Recipe(epochs=8, rate=0.1, seed=0)
KEPT_BACK = 500
"""Training images of each class that no parent sees; calibration images are drawn from them."""
SEEDS = 5
_DRAW = 2022


def small_network(classes: int) -> nn.Sequential:
    """Four 3×3 convolutions of 32, 64, 64 and 128 channels with batch-norm, (batch, 3, 32, 32) -> (batch,
    classes): 5 million multiply-adds."""
    layers: list[nn.Module] = []
    for channels_in, channels_out, stride in ((3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers.append(nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def halves(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Five and five of `labels`, drawn with a fixed seed, each in the order of `labels`; and all of them."""
    order = np.random.default_rng(_DRAW).permutation(len(labels))
    cut = len(labels) // 2
    return {
        "first": tuple(labels[index] for index in sorted(order[:cut])),
        "second": tuple(labels[index] for index in sorted(order[cut:])),
        "all": tuple(labels),
    }


def _split(world: World) -> tuple[ImageSet, ImageSet]:
    """Training images for the parents, and those kept back."""
    images = world.images("cifar10", "train")
    back, used = split_indices(images.targets, (KEPT_BACK, 5000 - KEPT_BACK), _DRAW)
    return images.subset(used), images.subset(back)


def _network(world: World, half: str) -> nn.Module:
    labels = halves(world.images("cifar10", "train").labels)[half]

    def fit(module: nn.Module) -> None:
        own = _split(world)[0].only(labels)
        pixels = torch.from_numpy(np.stack(own.images(range(len(own))))).permute(0, 3, 1, 2).contiguous()
        mean, std = IMAGENET
        train(
            module,
            pixels,
            torch.from_numpy(own.targets),
            RECIPE,
            mean=mean,
            std=std,
            say=lambda text: print(f"  {half}: {text}", file=sys.stderr, flush=True),
        )

    path = world.out / "trained" / f"small-cifar10-{half}.safetensors"

    def build() -> nn.Module:
        torch.manual_seed(RECIPE.seed)
        return small_network(len(labels))

    return trained(path, build, fit)


def _parts(world: World, half: str) -> list[Part]:
    """The modules of one small parent, decomposed with default settings."""
    directory = world.out / "modules" / f"small-{half}"
    if not directory.exists():
        labels = halves(world.images("cifar10", "train").labels)[half]
        mean, std = IMAGENET
        decompose_to(
            directory,
            _network(world, half),
            _split(world)[0].only(labels),
            DecomposeOptions(name=f"small-{half}", labels=labels, mean=mean, std=std),
        )
    return parts_of(read_artifact(directory))


def ten_of_two(world: World, ledger: Ledger) -> list[Row]:
    """Without data, and with 10 and 50 labelled images per class that no parent has seen, for each seed."""
    split = cache(lambda: _split(world))
    sets = halves(world.images("cifar10", "train").labels)

    def parent() -> dict[str, float]:
        network = _network(world, "all")
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in IMAGENET)
        right = dict.fromkeys(sets, 0.0)
        count = dict(right)
        with torch.inference_mode():
            for pixels, indices in world.images("cifar10", "test").batches(250):
                logits = network((pixels.float() / 255 - mean) / std)
                targets = torch.from_numpy(world.images("cifar10", "test").targets[indices])
                for name, labels in sets.items():
                    rows = torch.tensor([sets["all"].index(label) for label in labels])
                    mine = torch.isin(targets, rows)
                    right[name] += float((rows[logits[mine][:, rows].argmax(1)] == targets[mine]).sum())
                    count[name] += float(mine.sum())
        return {name: right[name] / count[name] for name in sets}

    def composed(shots: int, seed: int) -> dict[str, float]:
        parts = [part for half in ("first", "second") for part in _parts(world, half)]
        calibrate = split()[1].sample(shots, seed) if shots else None
        return _measured(world, compose(parts, calibrate=calibrate), sets)

    one = ledger.measure("halves/parent", parent)
    rows = []
    for shots in (0, 10, 50):
        found = []
        for seed in range(SEEDS if shots else 1):
            value = ledger.measure(f"halves/{shots}/{seed}", lambda s=shots, n=seed: composed(s, n))
            if value is not None:
                found.append(value)
        what = "five classes each of two small parents, " + (
            f"{shots} images per class" if shots else "no data"
        )
        text = "not measured yet"
        if one is not None and found:
            mean = {key: 100 * float(np.mean([value[key] for value in found])) for key in found[0]}
            spread = 100 * float(np.std([value["all"] for value in found]))
            text = (
                f"{mean['all']:.2f} % ± {spread:.2f} ({len(found)} draws), one parent trained on all ten "
                f"{100 * one['all']:.2f} %: {mean['all'] - 100 * one['all']:+.2f} pp (published: −7.6 pp); "
                f"inside the halves {mean['first']:.2f} and {mean['second']:.2f} % (the one parent "
                f"restricted: {100 * one['first']:.2f} and {100 * one['second']:.2f} %); calibration error "
                f"{mean['ece']:.1f} %"
            )
        rows.append(Row(what, "small CNN, 5 million multiply-adds", "as close as possible", text, None))
    return rows


def _measured(
    world: World, classifier: ComposedClassifier, sets: dict[str, tuple[str, ...]]
) -> dict[str, float]:
    """Test accuracy over all ten, and inside each half among its own five."""
    scores, targets = world.scores(classifier, "cifar10", classifier.labels)
    found = {"ece": calibration_error(scores, targets)}
    for name, labels in sets.items():
        rows = torch.tensor([classifier.labels.index(label) for label in labels])
        mine = torch.isin(targets, rows)
        found[name] = float((rows[scores[mine][:, rows].argmax(1)] == targets[mine]).double().mean())
    return found
