"""Removed channels as affine maps of the kept ones, in closed form from moments.

With mean μ and covariance Σ of a value's channels, the best affine guess of the removed channels r from the
kept ones k is x̂_r = Σ_rk Σ_kk⁻¹ (x_k − μ_k) + μ_r (linear minimum mean square error). Folded into the layer
that reads the value it costs nothing when the network runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.nets import AffineMap, ChannelSpace, Mask, Network, Site, fold_affine, slice_network
from modhub.pruning.statistics import ClassStatistics, Moments, compensable_sites, positive

RIDGE = 1e-3
"""Share of the mean kept variance added to each kept variance, against collinear channels."""


def affine_map(moments: Moments, kept: Mask, ridge: float = RIDGE) -> AffineMap:
    """The map of the removed channels, where `kept` (channels,) is False; only means where covariances are
    not known."""
    removed = ~kept
    mean = moments.mean
    matrix: NDArray[np.float64]
    if moments.covariance.ndim == 1:
        matrix = np.zeros((int(removed.sum()), int(kept.sum())))
    else:
        inner = moments.covariance[np.ix_(kept, kept)]
        variance = np.diagonal(inner)
        inner = inner + np.eye(len(inner)) * (ridge * positive(variance.mean()) if len(inner) else 0)
        matrix = np.asarray(np.linalg.solve(inner, moments.covariance[np.ix_(kept, removed)]).T, np.float64)
    offset = mean[removed] - matrix @ mean[kept]
    return AffineMap(torch.from_numpy(matrix).float(), torch.from_numpy(offset).float())


def compensation(
    statistics: ClassStatistics, space: ChannelSpace, mask: Mask, places: Sequence[Site]
) -> dict[Site, AffineMap]:
    """A map for every layer of `places` that loses an input under `mask`; channels always zero stay zero.
    Where no input is left, it is a map to their means."""
    folds: dict[Site, AffineMap] = {}
    # Layers that read the same value share its map, which is costly.
    maps: dict[str, AffineMap] = {}
    for site in places:
        kept = space.kept(mask, site.channels)
        if kept.all():
            continue
        if site.channels not in maps:
            maps[site.channels] = affine_map(statistics.moments[site.channels], kept)
        folds[site] = maps[site.channels]
    return folds


def cut(
    trunk: Network,
    mask: Mask,
    space: ChannelSpace,
    statistics: ClassStatistics | None,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Network, Tensor, Tensor]:
    """The trunk sliced by `mask`, and a head (rows, features) fitted to the features that are left.

    With `statistics` the removed channels are folded into what reads them; without, they are zero.
    """
    mask = space.close(mask)
    kept = space.kept(mask, trunk.graph.output)
    folds = {}
    if statistics is not None:
        folds = compensation(statistics, space, mask, compensable_sites(trunk.graph, space))
        if not kept.all():
            affine = affine_map(statistics.moments[trunk.graph.output], kept)
            weight, bias = fold_affine(weight, bias, kept, affine)
    sliced = slice_network(trunk, mask, fold=folds, space=space)
    return sliced, weight[:, torch.from_numpy(kept.copy())], bias
