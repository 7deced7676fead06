"""Replacing the classes that a damaged parent gets wrong.

    python benchmarks/replacing.py --data D --weights W --out DIR [--each 200]

D holds image folders cifar10/{train,test}, W the parents' safetensors files. The
damaged parent is ResNet-20 trained on with 70 % of the training cats labelled dog. DIR keeps the weights, the
modules, the builds and every measurement: run it again to go on where it stopped.

Which modules replace cat and dog is chosen by `modhub search`, which goes by held-out training images; test
images only measure.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

import modhub
from ledger import Ledger
from modhub.api.compose import compose_to
from modhub.api.decompose import decompose_to
from modhub.api.evaluate import evaluate_against
from modhub.api.replace import replace_to
from modhub.data import as_batch
from modhub.nets.architectures import ARCHITECTURES
from training import Recipe, train, trained
from world import PARENTS, World

DAMAGED, DONORS, CLASS, MISTAKEN_FOR, SHARE = "C10-R20", ("C10-R32",), "cat", "dog", 0.7
TOUCHED = (CLASS, MISTAKEN_FOR)
"""The two classes whose labels were wrong, and whose modules are replaced."""
RECIPE = Recipe(epochs=2, rate=0.02)
EACH = 1000
"""Training images of each class in the epochs that do the damage."""


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


def push_parent(world: World, hub: Path, name: str, weights: Path) -> str:
    """Decompose a parent with default settings and push it; its repository."""
    given, directory = PARENTS[name], world.out / "parents" / weights.stem
    if not directory.exists():
        settings = replace(world.settings(name), weights=weights, name=weights.stem, license="bsd-2-clause")
        decompose_to(directory, given.architecture, world.images(given.dataset, "train"), settings)
    repository = f"lab/{weights.stem.replace('_', '-')}"
    modhub.push(directory, repository, version="1.0.0", hub=str(hub))
    return repository


def _best(label: str, hub: Path, damaged: str) -> str:
    """The module of the class that search ranks first among the other parents'."""
    hits = modhub.search(label, hub=str(hub)).modules
    return next(hit.ref for hit in hits if not hit.ref.startswith(damaged))


def measured(world: World, each: int) -> dict[str, Any]:
    """Recall by class of the damaged parent's build and of the mended one, on the test images."""
    hub, given = world.out / "hub", PARENTS[DAMAGED]
    damaged = push_parent(world, hub, DAMAGED, damaged_weights(world))
    for name in DONORS:
        push_parent(world, hub, name, world.weights / f"{PARENTS[name].weights}.safetensors")
    labels = world.images(given.dataset, "test").labels
    items = [f"{label}={_best(label, hub, damaged)}" for label in TOUCHED]
    build, mended = world.out / "build", world.out / "mended"
    wants = {label: f"{damaged}/{label}" for label in labels}
    before = compose_to(build, wants, hub=str(hub), force=True)
    after = replace_to(mended, build, items, hub=str(hub), force=True)
    test = world.images(given.dataset, "test")
    chosen = [row for label in range(len(labels)) for row in np.flatnonzero(test.targets == label)[:each]]
    report = evaluate_against(build, mended, test.subset(chosen))
    return {
        "with": items,
        "report": report.to_dict(),
        "flops": [sum(trunk.flops for trunk in made.trunks) for made in (before, after)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("data", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--each", type=int, default=1000, help="test images of each class")
    arguments = parser.parse_args()
    world = World(arguments.data, arguments.weights, arguments.out.absolute())
    each = arguments.each
    ledger = Ledger(world.out / "replacing.jsonl")
    found = ledger.measure(f"replacing/{each}", lambda: measured(world, each))
    report, change = found["report"], found["report"]["change"]
    print(f"{' '.join(found['with'])}; multiply-adds {found['flops'][0]} → {found['flops'][1]}")
    print(f"top-1 {100 * report['top1']:.2f} %, change {json.dumps(change['top1'])}")
    for label, figures in report["per_class"].items():
        print(
            f"{label}: recall {100 * figures['recall']:.1f} %, change {json.dumps(change['recall'][label])}"
        )


if __name__ == "__main__":
    main()
