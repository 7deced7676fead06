"""Modules of a parent trained to be modular, beside post hoc modules of the same network trained plainly.

    python benchmarks/modular.py --out DIR [--seeds 3]

The network is the demo's first, on the digits that come with modhub, with the demo's recipe; once as it is,
and once with `modhub.training.ModularityLoss` added to the loss. Either is decomposed by `activation` (the
module rule of MODA, which the loss is from), by `relevance` and by `random`; ten, five and two classes are
composed without images: at the method's own size, and at 70, 50 and 35 % of the multiply-adds as in
methods.py. Beside each stands the whole parent restricted to the same classes. Test images measure only;
nothing is chosen by them. DIR keeps every measurement: run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modhub
from evaluation import modular_parents
from ledger import Ledger
from methods import OWN, at_share
from modhub.artifact.modules import ModuleSet
from modhub.composition import compose, parts_of
from modhub.data import as_batch, open_data
from modhub.training import ModularityLoss
from subsets import class_sets, flops_share

METHODS = ("activation", "relevance", "random")
SHARES = ("0.7", "0.5", "0.35")
SETS = {10: 1, 5: 5, 2: 10}
EPOCHS, BATCH, RATE = 12, 32, 6e-3
"""As the demo trains."""
LABELS = tuple("0123456789")


def network() -> nn.Sequential:
    """`modhub:digits-plain` with its activation functions as modules."""
    layers: list[nn.Module] = []
    for before, after in ((1, 24), (24, 32), (32, 48)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if after > 24:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 4, 64), nn.ReLU(), nn.Linear(64, 10))


def pixels_of(split: str) -> tuple[Tensor, Tensor]:
    """Raw images and targets."""
    images = open_data("digits", split)
    return as_batch(images.images(range(len(images)))), torch.from_numpy(images.targets)


@cache
def parent(modular: bool, seed: int) -> nn.Module:
    pixels, targets = pixels_of("train")
    inputs = pixels.float() / 255
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs=EPOCHS, steps_per_epoch=steps)
    with ModularityLoss(model) as modularity:
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(inputs)).split(BATCH):
                loss = F.cross_entropy(model(inputs[chosen]), targets[chosen], label_smoothing=0.05)
                if modular:
                    loss = loss + modularity(targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@cache
def modules(modular: bool, seed: int, method: str) -> ModuleSet:
    return modhub.decompose(
        parent(modular, seed),
        open_data("digits", "train"),
        labels=LABELS,
        input_size=(1, 8, 8),
        method=method,
        seed=seed,
    )


def measured(modular: bool, seed: int, method: str, size: str, count: int) -> dict[str, float]:
    """Means over the sets of so many classes: top-1 of the composition and of the whole parent restricted to
    them, and the share of the multiply-adds."""
    (pixels, targets), whole_parent = pixels_of("test"), parent(modular, seed)
    with torch.inference_mode():
        logits = whole_parent(pixels.float() / 255)
    rows: list[tuple[float, float, float]] = []
    for labels in class_sets(LABELS, count, SETS[count]):
        parts = parts_of(modules(modular, seed, method), labels)
        classifier = compose(parts) if size == OWN else at_share(parts, float(size), method)
        wanted = torch.tensor([LABELS.index(label) for label in classifier.labels])
        chosen = torch.isin(targets, wanted)
        with torch.inference_mode():
            said = wanted[classifier(pixels[chosen]).argmax(1)]
        whole = wanted[logits[chosen][:, wanted].argmax(1)]
        right = [float((answers == targets[chosen]).double().mean()) for answers in (said, whole)]
        rows.append((right[0], right[1], flops_share(classifier)))
    means = np.mean(rows, axis=0).tolist()
    return dict(zip(("accuracy", "parent", "flops"), means, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.out / "modular.jsonl")
    for seed in range(options.seeds):
        for modular in (False, True):
            for method in METHODS:
                for size in (OWN, *SHARES):
                    for count in SETS:
                        kind = "modular" if modular else "plain"
                        ledger.measure(
                            f"modular/{kind}/{seed}/{method}/{size}/{count}",
                            lambda modular=modular, seed=seed, method=method, size=size, count=count: (
                                measured(modular, seed, method, size, count)
                            ),
                        )
    print(modular_parents(ledger.known))


if __name__ == "__main__":
    main()
