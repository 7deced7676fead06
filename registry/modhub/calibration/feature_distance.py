"""How far the features of an image lie from those of the classes of a head.

A margin says which class an image resembles most, not whether it resembles any: networks of ReLUs are the
surer the farther an image is from all that they were trained on (Hein et al. 2019, arXiv 1812.05720). A
Mahalanobis distance to the nearest class (Lee et al. 2018, arXiv 1807.03888, §2.1) says the other half. It is
counted in the average distance of a class's own images, so that numbers of networks of any width compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.errors import IntegrityError

WIDEST = 512
"""With more features than this they count one by one: no matrix for each class."""
_DIAGONAL = 0.1
"""Of a covariance, the share that its diagonal alone takes: tens of features are estimated from hundreds of
images."""
_FLOOR = 0.5
"""Added to every variance, as a share of their mean."""


@dataclass(frozen=True, slots=True)
class FeatureDistance:
    """Of one head: `centres` (classes, features); `scales` (classes, features, features), or (classes,
    features) where features count one by one."""

    centres: Tensor
    scales: Tensor

    def to_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> FeatureDistance:
        return cls(tensors["centres"], tensors["scales"])

    def __call__(self, features: Tensor) -> Tensor:
        """(batch, 1): the squared distance of features (batch, features) from the nearest class; about 1 for
        the images of a class, unless it is `limited`."""
        centred = features - self.centres[:, None]
        if self.scales.dim() == 3:
            scaled = torch.matmul(centred, self.scales)
        else:
            scaled = centred * self.scales[:, None]
        return scaled.square().sum(2).amin(0)[:, None]

    def limited(self, limit: float) -> FeatureDistance:
        """In units of `limit`."""
        return FeatureDistance(self.centres, self.scales / limit**0.5)


DISTANCE_FIELDS = tuple(FeatureDistance.__slots__)


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """What features of a slim network are to the unpruned one's: `slope` and `offset` (features,) of a line
    each, and `noise` (features, features), the covariance of what is beside the lines."""

    slope: Tensor
    offset: Tensor
    noise: Tensor

    @classmethod
    def measured(cls, before: Tensor, after: Tensor, weights: Tensor) -> FeatureDrift:
        """By least squares, from features (images, features) before and after; `weights` (images,)."""
        shares = (weights.double() / weights.sum())[:, None]
        before, after = before.double(), after.double()
        mean_before, mean_after = (shares * before).sum(0), (shares * after).sum(0)
        before, after = before - mean_before, after - mean_after
        slope = (shares * before * after).sum(0) / (shares * before.square()).sum(0).clamp(min=1e-12)
        rest = after - slope * before
        return cls(slope, mean_after - slope * mean_before, (shares * rest).T @ rest)


@dataclass(frozen=True, slots=True)
class ClassGaussians:
    """The features of one head's classes, float64: `means` (classes, features); `covariances` (classes,
    features, features), or (classes, features) of more than `WIDEST` features."""

    means: Tensor
    covariances: Tensor

    @classmethod
    def of(
        cls, means: Sequence[NDArray[np.float64]], covariances: Sequence[NDArray[np.float64]]
    ) -> ClassGaussians:
        """Of a mean (features,) for each class, and a covariance (features, features), or its diagonal."""
        if len(means[0]) > WIDEST:
            of_classes = [each if each.ndim == 1 else np.diagonal(each) for each in covariances]
        else:
            of_classes = [np.diag(each) if each.ndim == 1 else each for each in covariances]
        return cls(torch.from_numpy(np.stack(means)), torch.from_numpy(np.stack(of_classes)))

    def drifted(self, drift: FeatureDrift) -> ClassGaussians:
        """Of the slim network whose features drifted so."""
        means = drift.slope * self.means + drift.offset
        if self.covariances.dim() == 2:
            return ClassGaussians(means, drift.slope**2 * self.covariances + drift.noise.diagonal())
        return ClassGaussians(means, drift.slope[:, None] * drift.slope * self.covariances + drift.noise)

    def distance(self) -> FeatureDistance:
        """Raises `IntegrityError` for a matrix that is no covariance."""
        scales = torch.stack([_scale(covariance) for covariance in self.covariances])
        return FeatureDistance(self.means.float(), scales.float())


def _scale(covariance: Tensor) -> Tensor:
    """What makes squares of centred features, multiplied by it, have the sum 1 on average."""
    variance = covariance if covariance.dim() == 1 else covariance.diagonal()
    floor = _FLOOR * float(variance.mean()) + 1e-12
    if covariance.dim() == 1:
        return ((variance + floor) * (variance / (variance + floor)).sum().clamp(min=1e-6)).rsqrt()
    solid = (1 - _DIAGONAL) * covariance + torch.diag(_DIAGONAL * variance + floor)
    triangle, failed = torch.linalg.cholesky_ex(solid)
    if int(failed):
        raise IntegrityError(
            "The correlations that a module records are not those of any images.",
            hint="Decompose the parent again, or pull the module again.",
        )
    whitening = torch.linalg.inv(triangle).T
    average = (covariance @ whitening * whitening).sum().clamp(min=1e-6)
    scale: Tensor = whitening / average.sqrt()
    return scale
