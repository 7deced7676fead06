"""Rows about classes of one parent: all of them, few of them under a budget, one alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from ledger import Ledger, Row
from modhub.calibration.calibrator import log_odds
from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.composition import Budget, ComposedClassifier, Part, compose
from modhub.data import ImageSet
from world import PARENTS, World

__all__ = [
    "DRAWS",
    "TUNE_IMAGES",
    "Build",
    "all_classes",
    "alone",
    "class_sets",
    "flops_share",
    "frontier",
    "tuning_images",
]

Build = Callable[[list[Part], Budget], ComposedClassifier]

DRAWS = 5
"""Random choices of channels for each set of classes."""

TUNE_IMAGES = 300
"""Per class."""
_LISTED = 10**8
"""Sets of labels that are put in a random order; of more some are drawn."""


def all_classes(world: World, ledger: Ledger, names: Sequence[str]) -> Row:
    """All modules of a parent composed with default settings, against the parent."""
    found = []
    for name in names:

        def work(name: str = name) -> dict[str, float]:
            given, classifier = PARENTS[name], compose(world.parts(name), budget=Budget(multiple=1))
            scores, targets = world.scores(classifier, given.dataset, classifier.labels)
            logits, expected = world.test_logits(name)
            order = [world.parent(name).labels.index(label) for label in classifier.labels]
            return {
                "top1": _top(scores, targets, 1),
                "top5": _top(scores, targets, 5),
                "parent_top1": _top(logits, expected, 1),
                "parent_top5": _top(logits, expected, 5),
                "flops": flops_share(classifier),
                "ece": calibration_error(scores, targets),
                "parent_ece": calibration_error(logits[:, order], targets_in(expected, order)),
            }

        if (value := ledger.measure(f"all/{name}", work)) is not None:
            found.append((name, value))
    losses = [(100 * (v["parent_top1"] - v["top1"]), 100 * (v["parent_top5"] - v["top5"])) for _, v in found]
    text = "; ".join(
        f"{name} {100 * v['top1']:.2f} (parent {100 * v['parent_top1']:.2f}), top-5 {100 * v['top5']:.2f} "
        f"({100 * v['parent_top5']:.2f}), {100 * v['flops']:.0f} % FLOPs"
        for name, v in found
    )
    met = all(max(loss) <= 0.1 + 1e-9 for loss in losses) if found else None
    return Row(
        "all classes composed, default settings", ", ".join(names), "loss ≤ 0.1 pp top-1 and top-5", text, met
    )


def frontier(
    world: World,
    ledger: Ledger,
    name: str,
    sets: Sequence[tuple[str, ...]],
    budgets: Sequence[float],
    builds: Mapping[str, Build],
    *,
    limit: str = "flops",
) -> dict[float, dict[str, float]]:
    """For each budget the mean loss in pp against restricted logits, its standard error, and the FLOPs.

    Each set is composed by every one of `builds`, under its name: several are draws of something random.
    What a set loses is the mean over them; a set that not all of them have made does not count.
    """
    found: dict[float, dict[str, float]] = {}
    for budget in budgets:
        drawn: list[list[dict[str, float]]] = []
        for labels in sets:

            def work(
                build: Build, labels: tuple[str, ...] = labels, budget: float = budget
            ) -> dict[str, float]:
                start = time.perf_counter()
                classifier = build(world.parts(name, labels), Budget(**{limit: budget}))
                taken = time.perf_counter() - start
                return {
                    "accuracy": world.accuracy(classifier, PARENTS[name].dataset),
                    "restricted": world.restricted(name, labels),
                    "flops": flops_share(classifier),
                    "seconds": taken,
                }

            values = [
                ledger.measure(f"{kind}/{name}/{budget:g}/{'+'.join(labels)}", partial(work, build))
                for kind, build in builds.items()
            ]
            if None not in values:
                drawn.append(values)
        if drawn:
            lost = np.array(
                [[100 * (value["restricted"] - value["accuracy"]) for value in values] for values in drawn]
            )
            of_set, of_draw = lost.mean(1), lost.mean(0)
            every = [value for values in drawn for value in values]
            found[budget] = {
                "loss": float(lost.mean()),
                "worst": float(of_set.max()),
                "error": float(np.std(of_set) / np.sqrt(len(of_set))),
                "luckiest": float(of_draw.min()),
                "unluckiest": float(of_draw.max()),
                "flops": float(np.mean([value["flops"] for value in every])),
                "seconds": float(np.mean([value["seconds"] for value in every])),
                "sets": len(drawn),
                "draws": len(builds),
            }
    return found


def class_sets(labels: Sequence[str], size: int, count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """`count` different sets of `size` labels in a fixed random order; all of them when there are no more."""
    every, generator = math.comb(len(labels), size), np.random.default_rng([seed, size])
    if every <= _LISTED:
        ranks = generator.permutation(every)[:count].tolist()
    else:
        ranks = list(dict.fromkeys(generator.integers(every, size=2 * count).tolist()))[:count]
    return [_combination(labels, size, rank) for rank in ranks]


def _combination(labels: Sequence[str], size: int, rank: int) -> tuple[str, ...]:
    """That of `itertools.combinations(labels, size)` at `rank`, without those before it."""
    chosen, place = [], 0
    for left in range(size, 0, -1):
        while (starting_here := math.comb(len(labels) - place - 1, left - 1)) <= rank:
            rank -= starting_here
            place += 1
        chosen.append(labels[place])
        place += 1
    return tuple(chosen)


def tuning_images(world: World, name: str, labels: Sequence[str], seed: int = 0) -> ImageSet:
    """Training images of the wanted classes, whose labels the tuning does not read."""
    return world.images(PARENTS[name].dataset, "train").only(list(labels)).sample(TUNE_IMAGES, seed)


def alone(
    world: World,
    ledger: Ledger,
    name: str,
    budget: float,
    builds: Mapping[str, Build],
) -> dict[str, float] | None:
    """One module against all other classes: balanced accuracy of its log-odds > 0, mean over the classes
    and over `builds`, which are draws of something random where there are more than one; a class that not
    all of them have made does not count.

    The parent's own one-against-rest answer is its `argmax` being the class; a harder baseline are the
    `whole` parent's log-odds > 0, calibrated as the module's.
    """
    dataset, labels = PARENTS[name].dataset, world.parent(name).labels
    logits, _targets = world.test_logits(name)
    found = []
    for label in labels:

        def work(build: Build, label: str = label) -> dict[str, float]:
            part = world.parts(name, [label])
            images = world.images(dataset, "test")
            positive = images.targets == images.labels.index(label)
            row = labels.index(label)
            whole = log_odds(logits.double().numpy(), row, part[0].module.manifest.calibration)
            classifier = build(part, Budget(flops=budget))
            with torch.inference_mode():
                scores = torch.cat([classifier(pixels)[:, 0] for pixels, _ in images.batches(250)])
            report = classifier.trunk_passes[0].report
            return {
                "accuracy": balanced_accuracy(scores.numpy() > 0, positive),
                "argmax": balanced_accuracy(logits.argmax(1).numpy() == row, positive),
                "whole": balanced_accuracy(whole > 0, positive),
                "params": report.kept_params_fraction,
                "flops": report.flops / report.parent_flops,
            }

        values = [
            ledger.measure(f"{kind}/{name}/{budget:g}/{label}", partial(work, build))
            for kind, build in builds.items()
        ]
        if None not in values:
            found += values
    if not found:
        return None
    mean = {key: float(np.mean([value[key] for value in found])) for key in found[0]}
    return {**mean, "sets": len(found) // len(builds), "draws": len(builds)}


def calibration_error(scores: torch.Tensor, targets: torch.Tensor, bins: int = 15) -> float:
    """Expected calibration error of the softmax (Guo et al. 2017, §2)."""
    confidence, answers = scores.double().softmax(1).max(1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.double).index_add(
        0, place, confidence - (answers == targets).double()
    )
    return float(gap.abs().sum() / len(targets))


def targets_in(targets: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Targets counted as positions in `order`."""
    place = torch.empty(len(order), dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    return place[targets]


def _top(scores: torch.Tensor, targets: torch.Tensor, k: int) -> float:
    return float((scores.topk(k).indices == targets[:, None]).any(1).double().mean())


def flops_share(classifier: ComposedClassifier) -> float:
    """Multiply-adds of all its trunks together, as a fraction of their parents'."""
    reports = [each.report for each in classifier.trunk_passes]
    return sum(report.flops for report in reports) / sum(report.parent_flops for report in reports)
