"""Rows about classes of several parents in one classifier, and about images that belong to none of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from features import features
from ledger import Ledger, Row
from modhub.composition import Budget, compose
from modhub.data import ImageSet
from strange import energy_and_distance
from subsets import calibration_error, class_sets, tuning_images
from world import PARENTS, World

__all__ = [
    "class_pairs",
    "few_shot",
    "mixed_calibration",
    "none_of_these",
    "pairs_across",
    "probe_of_pairs",
]

_IMAGES = 200
"""Test images of each class of a pair; CIFAR-100 has 100 of each."""


def class_pairs(world: World, one: str, other: str, count: int, seed: int) -> list[tuple[str, str]]:
    """`count` random pairs, one class of each parent, in a fixed order."""
    generator = np.random.default_rng(seed)
    ours, theirs = world.parent(one).labels, world.parent(other).labels
    every = generator.permutation(len(ours) * len(theirs))[:count]
    return [(ours[index // len(theirs)], theirs[index % len(theirs)]) for index in every]


def pairs_across(
    world: World,
    ledger: Ledger,
    one: str,
    other: str,
    pairs: Sequence[tuple[str, str]],
    *,
    shots: int = 0,
    whole: bool = False,
) -> Row:
    """Two modules, one of each parent; the mean over the pairs of the mean recall of the two classes.

    With `shots`, that many labelled training images of each class calibrate the composition. `whole` keeps
    all channels of both trunks, as `--budget flops=1` does, instead of those of the two modules' masks.
    """
    kind = f"across{shots or ''}{'-whole' if whole else ''}"
    accuracies, scores_of, rights = [], [], []
    for pair in pairs:

        def work(pair: tuple[str, str] = pair) -> dict[str, object]:
            parts = world.parts(one, [pair[0]]) + world.parts(other, [pair[1]])
            calibrate = few_shot(world, ((one, pair[0]), (other, pair[1])), shots) if shots else None
            classifier = compose(parts, calibrate=calibrate, budget=Budget(flops=1.0) if whole else None)
            recalls, chances, right = [], [], []
            for number, (name, label) in enumerate(((one, pair[0]), (other, pair[1]))):
                images = world.images(PARENTS[name].dataset, "test").only([label]).sample(_IMAGES, 0)
                with torch.inference_mode():
                    scores = torch.cat([classifier(pixels) for pixels, _ in images.batches(200)])
                answers = scores.argmax(1)
                recalls.append(float((answers == number).double().mean()))
                chances += scores.double().softmax(1).max(1).values.tolist()
                right += (answers == number).tolist()
            return {"accuracy": float(np.mean(recalls)), "chances": chances, "right": right}

        value = ledger.measure(f"{kind}/{one}x{other}/{'+'.join(pair)}", work)
        if value is not None:
            accuracies.append(value["accuracy"])
            scores_of += value["chances"]
            rights += value["right"]
    what = "one class of each parent, " + (
        f"{shots} images per class" if shots else "no sample of the partner"
    )
    what += ", whole trunks" if whole else ""
    target = "mean ≥ 99 %" if shots else "mean ≥ 98 %"
    if not accuracies:
        return Row(what, f"{one} × {other}", target, "not measured yet", None)
    mean = 100 * float(np.mean(accuracies))
    chance = torch.tensor(scores_of, dtype=torch.double)
    gap = torch.zeros(15, dtype=torch.double).index_add(
        0, (chance * 15).long().clamp(max=14), chance - torch.tensor(rights, dtype=torch.double)
    )
    error = 100 * np.std(accuracies) / np.sqrt(len(accuracies))
    text = (
        f"{mean:.2f} % ± {error:.2f} over {len(accuracies)} pairs (worst {100 * min(accuracies):.1f}); "
        f"calibration error {100 * float(gap.abs().sum()) / len(chance):.1f} %"
    )
    return Row(what, f"{one} × {other}", target, text, mean >= (99 if shots else 98))


def probe_of_pairs(
    world: World, ledger: Ledger, one: str, other: str, pairs: Sequence[tuple[str, str]]
) -> Row:
    """What these parents could know of such pairs at best: a linear discriminant on the features of both
    trunks together, fitted to 500 labelled training images of each class."""

    def work() -> list[float]:
        names, splits = (one, other), (("train", 500), ("test", None))
        seen = {}
        for split, count in splits:
            for number, side in enumerate(names):
                given = [features(world, name, PARENTS[side].dataset, split, count) for name in names]
                seen[split, number] = torch.cat([each for each, _ in given], 1).double(), given[0][1]
        found = []
        for pair in pairs:
            rows = {}
            for (split, number), (values, targets) in seen.items():
                rows[split, number] = values[
                    targets == world.parent(names[number]).labels.index(pair[number])
                ]
            ours, theirs = rows["train", 0], rows["train", 1]
            spread = (torch.cov(ours.T) + torch.cov(theirs.T)) / 2
            level = 0.1 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.double)
            weight = torch.linalg.solve(0.9 * spread + level, ours.mean(0) - theirs.mean(0))
            middle = (ours.mean(0) + theirs.mean(0)) @ weight / 2
            recalls = [
                ((rows["test", number] @ weight > middle) == (number == 0)).double().mean()
                for number in (0, 1)
            ]
            found.append(float(torch.stack(recalls).mean()))
        return found

    value = ledger.measure(f"across-probe/{one}x{other}/{len(pairs)}", work)
    what = "one class of each parent, linear discriminant on both trunks, 500 labelled images per class"
    text = "not measured yet"
    if value is not None:
        text = f"{100 * np.mean(value):.2f} % over {len(value)} pairs (worst {100 * min(value):.1f})"
    return Row(what, f"{one} × {other}", "a ceiling, to compare with", text, None)


def few_shot(world: World, classes: Sequence[tuple[str, str]], shots: int, seed: int = 0) -> ImageSet:
    """`shots` labelled training images of each (parent, class), as one set."""
    parts = [
        world.images(PARENTS[name].dataset, "train").only([label]).sample(shots, seed)
        for name, label in classes
    ]
    pixels = [image for part in parts for image in part.images(range(len(part)))]
    targets = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return ImageSet("few", "train", [label for _, label in classes], targets, lambda index: pixels[index])


def none_of_these(
    world: World,
    ledger: Ledger,
    name: str,
    foreign: str,
    size: int | None = None,
    sets: int = 10,
    *,
    flops: float | None = None,
    tuned: Literal["own", "all"] | None = None,
) -> Row:
    """AUROC of the acceptance of classifiers of `size` classes (None: of all), images of these classes
    against another set's; the mean over `sets` of them. With `flops` they are cut, without data or `tuned` on
    300 images of each of their own classes or of each class of the parent.

    Beside it, on the parent's logits of the same classes: the maximal softmax probability (Hendrycks & Gimpel
    2017) and the energy score (Liu et al. 2020); of all classes also a mixture that was tried.
    """
    parent, dataset = world.parent(name), PARENTS[name].dataset
    chosen = [parent.labels] if size is None else class_sets(parent.labels, size, sets)

    def work(labels: tuple[str, ...]) -> dict[str, float]:
        budget = None if flops is None else Budget(flops=flops)
        parts = world.parts(name, labels)
        seen = labels if tuned == "own" else parent.labels
        tune = None if tuned is None else tuning_images(world, name, seen)
        classifier = compose(
            parts,
            budget=budget,
            tune=tune,
            reject=True,
            synthesizer=world.synthesizer,
            device=world.device,
        )
        rows = torch.tensor([parent.labels.index(label) for label in labels])
        own = world.images(dataset, "test").only(list(labels))
        own = own.sample(max(2000 // len(parent.labels), 2000 // len(labels) // 2), 0)
        other_set = world.images(foreign, "test")
        other = other_set.sample(2000 // len(other_set.labels), 0)
        found: dict[str, list[Tensor]] = {"acceptance": [], "msp": [], "energy": [], "mixed": []}
        mixed = energy_and_distance(world, name) if size is None else None
        for images in (own, other):
            accepted, logits, both = [], [], []
            with torch.inference_mode():
                for pixels, _ in images.batches(200):
                    accepted.append(classifier.assess(pixels)[1])
                    logits.append(world.network(name)(pixels)[:, rows])
                    both.append(accepted[-1] if mixed is None else mixed(pixels))
            stacked = torch.cat(logits)
            found["acceptance"].append(torch.cat(accepted))
            found["msp"].append(stacked.softmax(1).max(1).values)
            found["energy"].append(stacked.logsumexp(1))
            found["mixed"].append(torch.cat(both))
        values = {key: auroc(*scores) for key, scores in found.items()}
        if flops is not None:
            values["accuracy"] = world.accuracy(classifier, dataset)
        values["false_accept"] = float((found["acceptance"][1] >= 0).double().mean())
        values["accepted"] = float((found["acceptance"][0] >= 0).double().mean())
        if size is not None:
            rest = [label for label in parent.labels if label not in labels]
            siblings = world.images(dataset, "test").only(rest).sample(max(2000 // len(rest), 1), 0)
            with torch.inference_mode():
                said = torch.cat([classifier.assess(pixels)[1] for pixels, _ in siblings.batches(200)])
            values["siblings"] = float((said >= 0).double().mean())
        return values

    kind = "reject" if flops is None else f"reject-{flops:g}"
    if tuned is not None:
        kind += f"-tuned-{tuned}"
    every = [
        ledger.measure(
            f"{kind}/{name}/{foreign}/{'+'.join(labels) if size else 'all'}", partial(work, labels)
        )
        for labels in chosen
    ]
    known = [value for value in every if value is not None]
    what = f"AUROC of “none of these”, {foreign} images, {size or 'all'} of {len(parent.labels)} classes"
    if flops is not None:
        what += f", {100 * flops:.0f} % FLOPs, "
        what += "no data" if tuned is None else f"tuned on images of {tuned.replace('own', 'these')} classes"
    if not known:
        return Row(what, name, "≥ .90", "not measured yet", None)
    mean = {key: float(np.mean([value[key] for value in known])) for key in known[0]}
    tried = f", energy and relative Mahalanobis distance {mean['mixed']:.3f}" if size is None else ""
    text = (
        f"{mean['acceptance']:.3f} (maximum softmax probability {mean['msp']:.3f}, energy "
        f"{mean['energy']:.3f}{tried}; {len(known)} sets); at the threshold {100 * mean['accepted']:.0f} % "
        f"of its own and {100 * mean['false_accept']:.0f} % of the others are accepted"
        + ("" if flops is None else f"; {100 * mean['accuracy']:.2f} % right")
        + (f", and {100 * mean['siblings']:.1f} % of its parent's other classes" if size is not None else "")
    )
    return Row(what, name, "≥ .90", text, mean["acceptance"] >= 0.9)


def mixed_calibration(world: World, ledger: Ledger, one: str, other: str) -> Row:
    """Expected calibration error of all classes of two parents composed into one classifier."""

    def work() -> dict[str, float]:
        parts = world.parts(one) + [
            part for part in world.parts(other) if part.name not in world.parent(one).labels
        ]
        classifier = compose(parts)
        all_scores, all_targets = [], []
        for name, count in ((one, 100), (other, 10)):
            images = world.images(PARENTS[name].dataset, "test").sample(count, 0)
            places = torch.tensor([classifier.labels.index(label) for label in images.labels])
            with torch.inference_mode():
                for pixels, indices in images.batches(200):
                    all_scores.append(classifier(pixels))
                    all_targets.append(places[torch.from_numpy(images.targets[indices])])
        scores, targets = torch.cat(all_scores), torch.cat(all_targets)
        return {
            "ece": calibration_error(scores, targets),
            "accuracy": float((scores.argmax(1) == targets).double().mean()),
        }

    value = ledger.measure(f"mixed/{one}+{other}", work)
    what, target = "calibration error, all classes of both parents", "≤ 5 %"
    if value is None:
        return Row(what, f"{one} + {other}", target, "not measured yet", None)
    text = f"{100 * value['ece']:.1f} % at {100 * value['accuracy']:.1f} % accuracy"
    return Row(what, f"{one} + {other}", target, text, value["ece"] <= 0.05)


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Chance that a random positive scores above a random negative; ties count half."""
    scores = torch.cat([positive, negative]).double()
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    upper = counts.cumsum(0).double()
    ranks = (upper - (counts.double() - 1) / 2)[inverse]
    total = float(ranks[: len(positive)].sum())
    return (total - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative))
