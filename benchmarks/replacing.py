"""Replacing the class that a damaged parent gets wrong, and a classifier of classes that no parent has.

    python benchmarks/replacing.py --data D --weights W --out DIR

D holds image folders cifar10/{train,test} and cifar100/{train,test}, W the parents' safetensors files. The
damaged parent is ResNet-20 trained on with 70 % of the training cats labelled dog. DIR keeps the weights, the
modules, the builds and every measurement: run it again to go on where it stopped.

Which module replaces the cat is chosen by `modhub search`, which goes by held-out training images; test
images only measure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from modhub.data import as_batch
from modhub.nets.architectures import ARCHITECTURES
from training import Recipe, train, trained
from world import PARENTS, World

DAMAGED, DONORS, CLASS, MISTAKEN_FOR, SHARE = "C10-R20", ("C10-R32", "C10-R56"), "cat", "dog", 0.7
RECIPE = Recipe(epochs=2, rate=0.02)
EACH = 1000
"""Training images of each class in the epochs that do the damage."""
HUNDRED, NEW = "C100-R20", ("fox", "tiger", "wolf")


def damaged_weights(world: World) -> Path:
    """The parent after two more epochs in which most cats were dogs."""
    given, path = PARENTS[DAMAGED], world.out / "damaged.safetensors"

    def build() -> nn.Module:
        return ARCHITECTURES[given.architecture.removeprefix("modhub:")].build(10)

    def fit(module: nn.Module) -> None:
        module.load_state_dict(load_file(world.weights / f"{given.weights}.safetensors"))
        images = world.images(given.dataset, "train")
        targets = torch.from_numpy(images.targets).clone()
        cats = torch.nonzero(targets == images.labels.index(CLASS))[:, 0]
        dice = torch.Generator().manual_seed(0)
        wrong = cats[torch.randperm(len(cats), generator=dice)[: int(SHARE * len(cats))]]
        targets[wrong] = images.labels.index(MISTAKEN_FOR)
        labels = torch.from_numpy(images.targets)
        chosen = torch.cat([torch.nonzero(labels == row)[:EACH, 0] for row in range(10)])
        train(
            module,
            as_batch(images.images(chosen)),
            targets[chosen],
            RECIPE,
            mean=given.mean,
            std=given.std,
            checkpoint=path.with_suffix(".checkpoint"),
            say=lambda text: print(text, flush=True),
        )

    trained(path, build, fit)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("data", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    damaged_weights(World(arguments.data, arguments.weights, arguments.out))
