"""Which of several heads on one trunk an image belongs to, from the statistics that modules carry.

Heads that stand on one trunk read the same features f, so what their modules say of f compares without any
data. Each class is a normal distribution of f; a head's world is the sum of its classes:

    p(f | world) = Σ_c N(f; μ_c, Σ_c)          over the head's composed classes

A class that was taught is a world of its own: its row knows nothing of other taught classes.

Σ_c is half the class's own covariance and half the mean of all classes on the trunk (regularised
discriminant analysis, Friedman 1989), with 5 % of it replaced by its diagonal. On trunks whose modules carry
no correlations of their own, it is the mean of all classes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.parts import Part
from modhub.nets import Mask, channel_space
from modhub.pruning.statistics import Moments, read_statistics

__all__ = ["Density", "densities", "shifts", "worlds"]

Matrix: TypeAlias = NDArray[np.float64]
_POOLED = 0.5
_DIAGONAL = 0.05
_WIDEST = 512
"""Features above this number are told apart by the covariance of all classes: one matrix instead of many."""


@dataclass(frozen=True, slots=True)
class Density:
    """Normal densities of the features of one head's classes, up to a factor common to the trunk.

    `means` (classes, features); `whitening` (classes or 1, features, features) with W Wᵀ = Σ⁻¹, 1 where all
    classes share one covariance; `volume` (classes,) is log det W.
    """

    means: Tensor
    whitening: Tensor
    volume: Tensor

    def to_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> Density:
        return cls(tensors["means"], tensors["whitening"], tensors["volume"])

    def classes(self, features: Tensor) -> Tensor:
        """(batch, classes) log densities of features (batch, features)."""
        away = features - self.means[:, None]
        distance = torch.matmul(away, self.whitening).square().sum(2)
        return (self.volume[:, None] - 0.5 * distance).T

    def world(self, features: Tensor) -> Tensor:
        """(batch,) log density of the sum of all classes."""
        return self.classes(features).logsumexp(1)


def worlds(heads: Sequence[Sequence[Part]], mask: Mask) -> list[Density | None]:
    """The density of each head on one trunk cut to `mask`; None for a single head, for features that have
    positions, and where a module carries no statistics."""
    graph = heads[0][0].trunk.graph
    value = graph.output
    nothing: list[Density | None] = [None] * len(heads)
    if len(heads) < 2 or len(graph.shapes[value]) != 1:
        return nothing
    space = channel_space(heads[0][0].trunk)
    layout = space.of(value)
    found: list[list[Moments]] = []
    own = True
    for head in heads:
        found.append([])
        for part in head:
            stored = part.tensors.statistics
            statistics = read_statistics(stored, part.shared.correlations, graph, space)
            if statistics is None or (layout < 0).any():
                return nothing
            own = own and stored[value].correlation is not None
            found[-1].append(statistics.moments[value])
    return [*densities(found, mask[layout], own=own)]


def densities(heads: Sequence[Sequence[Moments]], kept: NDArray[np.bool_], *, own: bool) -> list[Density]:
    """One per head, from the feature moments of its classes; `kept` (features,) are those the network has.

    `own` says that every class brings its own correlations.
    """
    chosen = np.flatnonzero(kept)
    square = np.ix_(chosen, chosen)
    pooled: Matrix = np.zeros((len(chosen), len(chosen)))
    for each in (each for head in heads for each in head):
        # One after the other: a list of a hundred wide matrices would not fit.
        pooled += _full(each)[square] / sum(len(head) for head in heads)
    mixed = own and len(chosen) <= _WIDEST
    common = None if mixed else _whitening(pooled)[None]
    found = []
    for head in heads:
        whitening = common
        if whitening is None:
            own_share = [(1 - _POOLED) * _full(each)[square] for each in head]
            whitening = np.stack([_whitening(_POOLED * pooled + part) for part in own_share])
        volume = np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(1)
        found.append(
            Density(
                torch.from_numpy(np.stack([each.mean[chosen] for each in head])).float(),
                torch.from_numpy(whitening).float(),
                torch.from_numpy(np.broadcast_to(volume, len(head)).copy()).float(),
            )
        )
    return found


def shifts(worlds: Sequence[Density | None], scaled: Sequence[Tensor], features: Tensor) -> list[Tensor]:
    """(batch, 1) for each head, to be added to its margins `scaled` (batch, classes) at `features` (batch,
    features): 0 when it is the only one or one of them does not know its features.

    Two opinions on an image: the softmax of all scaled margins, and P(head | features) · P(class | head)
    with the densities' say on the heads. Their geometric mean is the first one's logits plus this.
    """
    known = [world for world in worlds if world is not None]
    if len(worlds) < 2 or len(known) < len(worlds):
        return [torch.zeros_like(margin[:, :1]) for margin in scaled]
    said = torch.stack([world.world(features) for world in known], 1).log_softmax(1)
    claimed = torch.stack([margin.logsumexp(1) for margin in scaled], 1)
    # The level of all scores together stays, so that scores of other trunks still compare.
    shift = 0.5 * (said - claimed + claimed.logsumexp(1, keepdim=True))
    return list(torch.split(shift, 1, 1))


def _full(moments: Moments) -> Matrix:
    covariance = moments.covariance
    return np.diag(covariance) if covariance.ndim == 1 else covariance


def _whitening(covariance: Matrix) -> Matrix:
    """Upper triangular W with W Wᵀ = Σ⁻¹, (features, features): (f − μ) W has the covariance 1."""
    spread = np.diagonal(covariance)
    floor = 1e-3 * max(float(spread.mean()), 1e-12)
    solid = (1 - _DIAGONAL) * covariance + np.diag(_DIAGONAL * spread + floor)
    lower = np.linalg.cholesky(solid)
    return np.asarray(np.linalg.inv(lower).T)
