"""Mutation analysis of clusters of channels.

A. Ghanbari, *Decomposition of Deep Neural Networks into Modules via Mutation Analysis* (Incite), ISSTA 2024,
https://2024.issta.org/details/issta-2024-papers/133/. Channels of one layer that respond alike to the classes
form a cluster; each cluster is mutated (here: set to zero), and what that does to the output for a class, on
images of the class, is its contribution. A module keeps the clusters that contribute most, per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from modhub.decomposition.method import WorkbenchMethod
from modhub.decomposition.method_options import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modhub.artifact.modules import ModuleDraft
    from modhub.decomposition.workbench import Workbench


_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Incite(WorkbenchMethod):
    """Keeps the clusters of channels whose mutation changes the class's margin most."""

    share: float = option(0.9, "Share of the channels that is kept.", minimum=0, maximum=1)
    clusters: int = option(6, "Clusters of each group of channels, at most.", minimum=1)
    images: int = option(20, "Images per class on which mutants are run.", minimum=1)
    name: ClassVar[str] = "incite"
    paper: ClassVar[str | None] = "https://2024.issta.org/details/issta-2024-papers/133/"
    citation: ClassVar[str | None] = (
        "A. Ghanbari, Decomposition of Deep Neural Networks into Modules via Mutation Analysis, ISSTA 2024"
    )
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    cost: ClassVar[str] = "one pass over some images for each cluster of channels"

    def drafts(self, bench: Workbench) -> list[ModuleDraft]:
        from modhub.decomposition.mutants import class_profiles, contributions
        from modhub.pruning.baselines import best_slots

        profiles = class_profiles(bench)
        draw = np.random.default_rng(bench.options.seed)
        clusters = [
            group.start + members
            for group in bench.space.groups
            if group.cuttable
            for members in clusters_of(profiles[group.slots], self.clusters, draw)
        ]
        worth = contributions(bench, clusters, self.images)
        return [
            bench.draft(
                row,
                best_slots(worth[row], bench.space, self.share),
                bench.statistics(row),
                relevance=worth[row],
            )
            for row in bench.rows
        ]


def clusters_of(
    profiles: NDArray[np.float64], most: int, draw: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Indices of `profiles` (channels, features) in `most` clusters at most: k-means of their directions."""
    size = np.linalg.norm(profiles, axis=1, keepdims=True)
    points = profiles / np.where(size > 0, size, 1)
    centres = points[np.sort(draw.permutation(len(points))[:most])]
    nearest = np.zeros(len(points), np.int64)
    for _ in range(_ROUNDS):
        distances = ((points[:, None] - centres[None]) ** 2).sum(2)
        before, nearest = nearest, distances.argmin(1)
        if (before == nearest).all():
            break
        for number in range(len(centres)):
            if (nearest == number).any():
                centres[number] = points[nearest == number].mean(0)
    members = [np.flatnonzero(nearest == number) for number in range(len(centres))]
    return [part for part in members if len(part)]
