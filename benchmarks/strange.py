"""A score for "none of these" that was tried: energy, and how much likelier the features are in a class than
anywhere in the parent's world (relative Mahalanobis distance, Ren et al. 2021, arXiv 2106.09022)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modhub.composition.head_density import fit_densities
from modhub.data.preprocessing import Preprocess
from modhub.nets import Runner, channel_space
from modhub.pruning.statistics import pool, read_statistics
from world import PARENTS, World

__all__ = ["energy_and_distance"]

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
