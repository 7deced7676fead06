"""What modules carry of how the images of their classes look, and how far from it own images may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.tensors import TextureStatistics
from modhub.calibration.feature_distance import ClassGaussians
from modhub.data.preprocessing import Preprocess
from modhub.data.texture import texture
from modhub.decomposition.held_out import HeldOut
from modhub.manifest import InputSpec
from modhub.pruning.statistics import Moments, packed_correlation, read_texture

_POOLED = 0.5
"""Of a class's covariance, the share that is the mean of all classes': of few images it says little."""
_ACCEPTED = 0.98
"""Share of the held-out images within the limit. Noise, plain colours and letters are far beyond it."""
_LEAST = 2.0
"""The least limit, in average distances; that of few images may be smaller by chance."""


def texture_statistics(
    looks: Mapping[int, Moments], held: HeldOut, spec: InputSpec, batch: int
) -> dict[int, TextureStatistics]:
    """By row of the head, from the moments of `texture` over its images; the limit is one for all of them,
    fitted on the validation images of `held` that are of these rows."""
    mean_covariance = np.mean([moments.covariance for moments in looks.values()], axis=0)
    unlimited = {
        row: _stored(
            Moments(moments.mean, _POOLED * mean_covariance + (1 - _POOLED) * moments.covariance),
            torch.tensor(1.0),
        )
        for row, moments in looks.items()
    }
    limit = _limit(unlimited, held, spec, batch)
    return {row: replace(of_row, limit=limit) for row, of_row in unlimited.items()}


def _stored(moments: Moments, limit: Tensor) -> TextureStatistics:
    return TextureStatistics(
        mean=torch.from_numpy(moments.mean).float(),
        deviation=torch.from_numpy(np.sqrt(moments.variance.clip(0))).float(),
        correlation=packed_correlation(moments),
        limit=limit,
    )


def _limit(statistics: Mapping[int, TextureStatistics], held: HeldOut, spec: InputSpec, batch: int) -> Tensor:
    preprocess = Preprocess(spec)
    plain = held.validation[: held.plain] & np.isin(held.targets[: held.plain], list(statistics))
    chosen = np.flatnonzero(plain)
    if not len(chosen):
        return torch.tensor(_LEAST)
    looks = torch.cat(
        [
            texture(preprocess.pixels(held.images[chosen[start : start + batch]]))
            for start in range(0, len(chosen), batch)
        ]
    )
    distances = np.zeros(len(chosen))
    targets: NDArray[np.int64] = held.targets[chosen]
    for row, of_row in statistics.items():
        moments = read_texture(of_row, looks.shape[1])
        distance = ClassGaussians.of([moments.mean], [moments.covariance]).distance()
        distances[targets == row] = distance(looks[targets == row])[:, 0].double().numpy()
    return torch.tensor(max(float(np.quantile(distances, _ACCEPTED)), _LEAST))
