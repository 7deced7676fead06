"""Which of several heads on one trunk an image belongs to, from the statistics that modules carry.

Heads that stand on one trunk read the same features f, so what their modules say of f compares without any
data. Each class is a Gaussian of f (class-conditional Gaussians); the density of a head is their sum:

    p(f | head) = Σ_c N(f; μ_c, Σ_c)          over the head's composed classes

A class that was taught is a head by itself: its row was fitted without those of other taught classes.

Σ_c is half the class's own covariance and half the mean of all classes on the trunk (regularised
discriminant analysis, Friedman 1989), with 5 % of it replaced by its diagonal. On trunks whose modules carry
no correlations per class, it is the mean of all classes alone.
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
from modhub.pruning.statistics import Moments, positive, read_statistics

Matrix: TypeAlias = NDArray[np.float64]
_POOLED = 0.5
_DIAGONAL = 0.05
_WIDEST = 512
"""With more features than this all classes share one covariance: one matrix instead of many."""


@dataclass(frozen=True, slots=True)
class HeadDensity:
    """Gaussian densities of the features of one head's classes, up to a factor common to the trunk.

    `means` (classes, features); `whitening` (classes or 1, features, features) with W Wᵀ = Σ⁻¹, 1 where all
    classes share one covariance; `volume` (classes,) is log det W.
    """

    means: Tensor
    whitening: Tensor
    volume: Tensor

    def to_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> HeadDensity:
        return cls(tensors["means"], tensors["whitening"], tensors["volume"])

    def class_log_densities(self, features: Tensor) -> Tensor:
        """(batch, classes) of features (batch, features)."""
        centred = features - self.means[:, None]
        distance = torch.matmul(centred, self.whitening).square().sum(2)
        return (self.volume[:, None] - 0.5 * distance).T

    def log_density(self, features: Tensor) -> Tensor:
        """(batch,) of the sum of all classes."""
        return self.class_log_densities(features).logsumexp(1)


def head_densities(heads: Sequence[Sequence[Part]], mask: Mask) -> list[HeadDensity | None]:
    """The density of each head on one trunk cut to `mask`; None for a single head, for features that have
    positions, and where a module carries no statistics."""
    graph = heads[0][0].trunk.graph
    value = graph.output
    none: list[HeadDensity | None] = [None] * len(heads)
    if len(heads) < 2 or len(graph.shapes[value]) != 1:
        return none
    space = channel_space(heads[0][0].trunk)
    layout = space.of(value)
    moments: list[list[Moments]] = []
    per_class = True
    for head in heads:
        moments.append([])
        for part in head:
            stored = part.tensors.statistics
            statistics = read_statistics(stored, part.shared.correlations, graph, space)
            if statistics is None or (layout < 0).any():
                return none
            per_class = per_class and stored[value].correlation is not None
            moments[-1].append(statistics.moments[value])
    return [*fit_densities(moments, mask[layout], per_class=per_class)]


def fit_densities(
    heads: Sequence[Sequence[Moments]], kept: NDArray[np.bool_], *, per_class: bool
) -> list[HeadDensity]:
    """One per head, from the feature moments of its classes; `kept` (features,) are those the network has.

    `per_class` says that every class brings its correlations; otherwise one covariance is shared.
    """
    chosen = np.flatnonzero(kept)
    square = np.ix_(chosen, chosen)
    pooled: Matrix = np.zeros((len(chosen), len(chosen)))
    for moments in (moments for head in heads for moments in head):
        # One after the other: a list of a hundred wide matrices would not fit.
        pooled += _full(moments)[square] / sum(len(head) for head in heads)
    mixed = per_class and len(chosen) <= _WIDEST
    common = None if mixed else _whitening(pooled)[None]
    densities = []
    for head in heads:
        whitening = common
        if whitening is None:
            class_shares = [(1 - _POOLED) * _full(moments)[square] for moments in head]
            whitening = np.stack([_whitening(_POOLED * pooled + share) for share in class_shares])
        volume = np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(1)
        densities.append(
            HeadDensity(
                torch.from_numpy(np.stack([moments.mean[chosen] for moments in head])).float(),
                torch.from_numpy(whitening).float(),
                torch.from_numpy(np.broadcast_to(volume, len(head)).copy()).float(),
            )
        )
    return densities


def head_shifts(
    densities: Sequence[HeadDensity | None], scaled: Sequence[Tensor], features: Tensor
) -> list[Tensor]:
    """(batch, 1) for each head, to be added to its margins `scaled` (batch, classes) at `features` (batch,
    features): 0 when it is the only one or one of them has no density.

    There are two estimates for an image: the softmax of all scaled margins, and P(head | features) · P(class
    | head) with the first factor from the densities. Their geometric mean is the first one's logits plus
    this.
    """
    present = [density for density in densities if density is not None]
    if len(densities) < 2 or len(present) < len(densities):
        return [torch.zeros_like(margin[:, :1]) for margin in scaled]
    by_density = torch.stack([density.log_density(features) for density in present], 1).log_softmax(1)
    by_margin = torch.stack([margin.logsumexp(1) for margin in scaled], 1)
    # The level of all scores together stays, so that scores of other trunks still compare.
    shift = 0.5 * (by_density - by_margin + by_margin.logsumexp(1, keepdim=True))
    return list(torch.split(shift, 1, 1))


def _full(moments: Moments) -> Matrix:
    covariance = moments.covariance
    return np.diag(covariance) if covariance.ndim == 1 else covariance


def _whitening(covariance: Matrix) -> Matrix:
    """Upper triangular W with W Wᵀ = Σ⁻¹, (features, features): (f − μ) W has the covariance 1."""
    spread = np.diagonal(covariance)
    floor = 1e-3 * positive(spread.mean())
    solid = (1 - _DIAGONAL) * covariance + np.diag(_DIAGONAL * spread + floor)
    lower = np.linalg.cholesky(solid)
    return np.asarray(np.linalg.inv(lower).T)
