"""Ten CIFAR-100 classes taught to a CIFAR-10 parent, beside its ten, on the features of its whole trunk.

Features are computed once; what a module's row and statistics would be, and what a composer makes of them,
comes from the functions that `modhub teach` and `modhub compose` call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features import features, linear_head
from ledger import Ledger, Row
from modhub.composition.head_density import fit_densities, head_shifts
from modhub.decomposition.teaching import steadied, taught_head
from modhub.nets import channel_space
from modhub.pruning.statistics import Moments, read_statistics
from world import World

__all__ = ["taught_classes"]

Scores: TypeAlias = Callable[[Tensor], Tensor]
"""Features (batch, features) to (batch, 20), old classes first, in the order of their data set."""
SHOTS = (5, 20, 100)
SEEDS = 5
_OLD = 500
"""Training images of each old class that the joint probe sees; teaching sees none of them."""
_DRAW = 7


def new_classes(world: World) -> list[int]:
    """Ten classes of CIFAR-100 drawn with a fixed seed."""
    count = len(world.images("cifar100", "train").labels)
    return sorted(np.random.default_rng(_DRAW).permutation(count)[:10].tolist())


def taught_classes(world: World, ledger: Ledger, name: str) -> list[Row]:
    """Accuracy on new and on old classes in the classifier of twenty; `mean` weighs each class the same."""
    labels = world.images("cifar100", "train").labels
    chosen = ", ".join(labels[row] for row in new_classes(world))
    rows = []
    for shots in SHOTS:
        found = []
        for seed in range(SEEDS):

            def work(shots: int = shots, seed: int = seed) -> dict[str, list[float]]:
                return _measured(world, name, shots, seed)

            value = ledger.measure(f"teach/{name}/{shots}/{seed}", work)
            if value is not None:
                found.append(value)
        text = "not measured yet"
        if found:
            parts = []
            for method in found[0]:
                values = 100 * np.array([value[method] for value in found])
                new, old = values.mean(0)
                spread = values.mean(1).std()
                parts.append(f"{method} {new:.1f} / {old:.1f}, mean {values.mean():.1f} ± {spread:.1f}")
            text = "; ".join(parts) + f" % new / old ({len(found)} draws)"
        what = f"ten classes taught with {shots} images each"
        rows.append(Row(what, f"{name} + {chosen}", "beside nearest mean and joint probe", text, None))
    return rows


def _measured(world: World, name: str, shots: int, seed: int) -> dict[str, list[float]]:
    values, targets = features(world, name, "cifar100", "train")
    draw = np.random.default_rng([seed, shots])
    few = []
    for row in new_classes(world):
        own = torch.nonzero(targets == row)[:, 0].numpy()
        few.append(values[torch.from_numpy(draw.permutation(own)[:shots])].double().numpy())
    methods = answers(world, name, few, seed)
    found: dict[str, list[float]] = {}
    new_values, new_targets = features(world, name, "cifar100", "test")
    old_values, old_targets = features(world, name, "cifar10", "test")
    places = torch.full((100,), -1)
    places[torch.tensor(new_classes(world))] = 10 + torch.arange(10)
    mine = places[new_targets] >= 0
    for method, scores in methods.items():
        found[method] = [
            _right(scores(new_values[mine]), places[new_targets[mine]]),
            _right(scores(old_values), old_targets),
        ]
    return found


def answers(world: World, name: str, few: list[NDArray[np.float64]], seed: int) -> dict[str, Scores]:
    """By method. `rows alone` are the taught rows without what a composer adds to them."""
    moments, rows, order = _known(world, name)
    taught = [taught_head(moments, rows, images, seed) for images in few]
    weight = np.concatenate([rows[0][order], [row for row, _ in taught]])
    bias = np.concatenate([rows[1][order], [offset for _, offset in taught]])
    alone = _linear(weight, bias)
    means = np.stack([each.mean for each in moments] + [each.mean(0) for each in few])
    old_values, old_targets = features(world, name, "cifar10", "train", _OLD)
    every = torch.cat([old_values, *(torch.from_numpy(each).float() for each in few)])
    labels = torch.cat([old_targets, torch.repeat_interleave(10 + torch.arange(10), len(few[0]))])
    balance = torch.where(labels < 10, 1 / _OLD, 1 / len(few[0]))
    weight_of_probe, bias_of_probe = linear_head(every, labels, 20, decay=1e-3, weights=balance)
    own = [steadied(Moments(each.mean(0), np.cov(each.T, bias=True)), moments, len(each)) for each in few]
    return {
        "taught": _composed(world, name, alone, moments, own),
        "rows alone": alone,
        "nearest mean": _linear(2 * means, -(means**2).sum(1)),
        "joint probe": lambda values: values @ weight_of_probe.T + bias_of_probe,
    }


def _linear(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Scores:
    rows, offsets = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
    return lambda values: values @ rows.T + offsets


def _composed(world: World, name: str, logits: Scores, old: list[Moments], new: list[Moments]) -> Scores:
    """What a composer answers with the parent's classes in one head, and each taught one in its own."""
    known = fit_densities(
        [old, *([each] for each in new)], np.ones(len(old[0].mean), np.bool_), per_class=True
    )
    temperature = world.modules(name).modules[0].manifest.calibration.parameters["temperature"]
    sizes = [len(old), *(1 for _ in new)]

    def scores(values: Tensor) -> Tensor:
        said = logits(values)
        margins = (len(old) * said - said[:, : len(old)].sum(1, keepdim=True)) / (len(old) - 1)
        scaled = list(torch.split(temperature * margins, sizes, 1))
        moved = head_shifts(known, scaled, values)
        return torch.cat([each + shift for each, shift in zip(scaled, moved, strict=True)], 1)

    return scores


def _known(
    world: World, name: str
) -> tuple[list[Moments], tuple[NDArray[np.float64], NDArray[np.float64]], list[int]]:
    """Feature moments of the old classes, the parent's head, and its rows in the order of the data set."""
    modules, labels = world.modules(name), world.images("cifar10", "test").labels
    space, value = channel_space(modules.trunk), modules.trunk.graph.output
    moments = []
    for label in labels:
        stored = modules.module(label).parsed.statistics
        statistics = read_statistics(stored, modules.shared.correlations, modules.trunk.graph, space)
        if statistics is None:
            raise SystemExit(f"The modules of {name} carry no statistics.")
        moments.append(statistics.moments[value])
    head = modules.shared
    rows = head.parent_weight.double().numpy(), head.parent_bias.double().numpy()
    return moments, rows, [modules.manifest.parent.labels.index(label) for label in labels]


def _right(scores: Tensor, targets: Tensor) -> float:
    return float((scores.argmax(1) == targets).double().mean())
