"""Replacing modules as the papers report it: what the class gains, and what the others lose.

A class of one classifier is replaced by the same class of another parent: of a better one where the parent
is weak; of a sound one where it was damaged by label noise on that class; of an equal one, where nothing is
wrong. Across data sets the same class of another set takes its place. Which classes are replaced is fixed
beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ledger import Ledger
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.composition import Part, compose, parts_of
from modhub.data import as_batch
from modhub.nets.architectures import ARCHITECTURES
from replacing import CLASS, TOUCHED, damaged_weights
from training import Recipe, train, trained
from world import PARENTS, World

__all__ = ["SHARED", "measure"]

SHARED = {
    "bee": "n02206856",
    "chimpanzee": "n02481823",
    "cockroach": "n02233338",
    "elephant": "n02504458",
    "lawn_mower": "n03649909",
    "lion": "n02129165",
    "mushroom": "n07734744",
    "orange": "n07747607",
    "plate": "n07579787",
    "snail": "n01944390",
}
"""Classes of CIFAR-100 that Tiny ImageNet has, too: bee, chimpanzee, cockroach, African elephant, lawn mower,
lion, mushroom, orange, plate, snail."""
AMONG = 10
"""Classes of a classifier in which a class is replaced across data sets."""
WEAK = Recipe(epochs=4, rate=0.1, batch=64)
WEAK_IMAGES = 1000
"""Training images of each class for the weak parent."""


def weak_weights(world: World) -> Path:
    """A ResNet-20 that has seen little: four epochs of a fifth of CIFAR-10."""
    path, given = world.out / "weak.safetensors", PARENTS["C10-R20"]

    def fit(module: torch.nn.Module) -> None:
        images = world.images(given.dataset, "train").sample(WEAK_IMAGES, 0)
        pixels, targets = as_batch(images.images(range(len(images)))), torch.from_numpy(images.targets)
        checkpoint = path.with_suffix(".checkpoint")
        train(module, pixels, targets, WEAK, mean=given.mean, std=given.std, checkpoint=checkpoint)

    torch.manual_seed(0)
    trained(path, lambda: ARCHITECTURES["resnet20"].build(10), fit)
    return path


def parts_with(world: World, weights: Path) -> dict[str, Part]:
    """The modules of CIFAR-10 ResNet-20 with other weights, by label."""
    given, directory = PARENTS["C10-R20"], world.out / "parents" / weights.stem
    if not directory.exists():
        settings = replace(world.settings("C10-R20"), weights=weights, name=weights.stem)
        decompose_to(directory, given.architecture, world.images(given.dataset, "train"), settings)
    return {part.name: part for part in parts_of(read_artifact(directory))}


def change(world: World, dataset: str, before: Sequence[Part], after: Sequence[Part]) -> dict[str, float]:
    """Mean recall of the classes that were replaced and of the others, on the test images of `dataset`."""
    test = world.images(dataset, "test")
    fresh = [new is not old for old, new in zip(before, after, strict=True)]
    found: dict[str, float] = {}
    for when, parts in (("before", before), ("after", after)):
        classifier, seen = compose(list(parts)), []
        for row, part in enumerate(before):
            images = test.only([part.name])
            with torch.inference_mode():
                answers = torch.cat([classifier(pixels).argmax(1) for pixels, _ in images.batches(250)])
            seen.append(float((answers == row).double().mean()))
        found[f"target_{when}"] = float(np.mean([one for one, new in zip(seen, fresh, strict=True) if new]))
        found[f"others_{when}"] = float(
            np.mean([one for one, new in zip(seen, fresh, strict=True) if not new])
        )
    return found


def within(
    world: World, parts: Callable[[], Mapping[str, Part]], donor: str, labels: Sequence[str]
) -> dict[str, float]:
    """All ten classes, of which `labels` are replaced by those of `donor`."""
    known = parts()
    better = {part.name: part for part in world.parts(donor, labels)}
    before = list(known.values())
    return change(world, "cifar10", before, [better.get(part.name, part) for part in before])


def between(world: World, name: str, label: str, donor: str, theirs: str) -> dict[str, float]:
    """The class among nine others of its parent, replaced by what another data set calls `theirs`."""
    labels = [other for other in world.parent(name).labels if other != label]
    rest = [labels[row] for row in np.random.default_rng(0).permutation(len(labels))[: AMONG - 1]]
    before = world.parts(name, [label, *rest])
    (part,) = world.parts(donor, [theirs])
    new = replace(part, label=label) if part.name != label else part
    return change(world, PARENTS[name].dataset, before, [new, *before[1:]])


def measure(world: World, ledger: Ledger, names: Sequence[str], *, quick: bool, first: bool) -> None:
    """Every cell of it; the first class of each case before the others."""
    if "C10-R20" not in names:
        return
    labels = world.parent("C10-R20").labels
    some = (labels[3:4] if quick else labels[2:5]) if first else labels

    def by_label() -> Mapping[str, Part]:
        return {part.name: part for part in world.parts("C10-R20")}

    for label in some if world.has("C10-R32") else ():
        ledger.measure(
            f"paper/replace-equal/C10-R20<C10-R32/{label}",
            lambda label=label: within(world, by_label, "C10-R32", [label]),
        )
    if quick:
        return
    for touched in ([CLASS], TOUCHED) if world.has("C10-R32") else ():
        ledger.measure(
            f"paper/replace-damaged/C10-R20<C10-R32/{'+'.join(touched)}",
            lambda touched=touched: within(
                world, lambda: parts_with(world, damaged_weights(world)), "C10-R32", touched
            ),
        )
    for label in some if "C10-R56" in names else ():
        ledger.measure(
            f"paper/replace-weak/C10-R20<C10-R56/{label}",
            lambda label=label: within(
                world, lambda: parts_with(world, weak_weights(world)), "C10-R56", [label]
            ),
        )
    if "C100-R20" not in names or "TINY-R20" not in names:
        return
    for ours, theirs in list(SHARED.items())[: 3 if first else None]:
        ledger.measure(
            f"paper/replace-inter/C100-R20<TINY-R20/{ours}",
            lambda ours=ours, theirs=theirs: between(world, "C100-R20", ours, "TINY-R20", theirs),
        )
        ledger.measure(
            f"paper/replace-inter/TINY-R20<C100-R20/{theirs}",
            lambda ours=ours, theirs=theirs: between(world, "TINY-R20", theirs, "C100-R20", ours),
        )
