"""A linear head in closed form: the regularised discriminant of features (Friedman 1989).

With class means μ and the covariance W inside classes, class c has the logit μ_cᵀS⁻¹f − ½ μ_cᵀS⁻¹μ_c, where
S = (1 − λ) W + λ · mean variance · 1. One eigendecomposition of W serves every λ. The λ is taken, and with it
a temperature, that gives images which were left out the greatest likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modhub.calibration.one_against_rest import log_sum_exp
from modhub.calibration.temperature import fit_temperature

__all__ = ["Discriminant", "fit_discriminant"]

_SHRINKAGES = (*np.logspace(-4, -0.5, 8).tolist(), 0.5, 0.7, 0.9, 1.0)
_FOLDS = 5
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Discriminant:
    """`weight` (classes, features) and `bias` (classes,), fitted to all images; `left_out` (images, classes)
    are logits of each image by a head that it had no say in, `left_out_copies` (copies, classes) those of
    its copies."""

    weight: Array
    bias: Array
    shrinkage: float
    left_out: Array
    left_out_copies: Array


def fit_discriminant(
    features: Array, targets: NDArray[np.int64], copies: Array | None = None, *, seed: int = 0
) -> Discriminant:
    """Fit `features` (images, features) of classes `targets` (images,), 0 to K − 1, two images of each at
    least. `copies` are features of one altered copy of each image, which are only asked."""
    count = int(targets.max()) + 1
    mean, scale = features.mean(0), features.std(0)
    scale = scale + 1e-6 * (float(scale.max()) or 1.0)
    space = (features - mean) / scale
    basis: Array | None = None
    if len(space) < space.shape[1]:
        # Means and covariances lie in the span of the images.
        basis = np.linalg.qr(space.T)[0]
        space = space @ basis
    asked = space if copies is None else np.concatenate([space, _within(copies, mean, scale, basis)])
    fold = _folds(targets, seed)
    logits = np.zeros((len(_SHRINKAGES), len(asked), count))
    folds = np.tile(fold, len(asked) // len(space))
    for number in np.unique(fold).tolist():
        used, left = fold != number, folds == number
        for place, (weight, bias) in enumerate(_paths(space[used], targets[used], count, features.shape[1])):
            logits[place][left] = asked[left] @ weight.T + bias
    plain, weights = logits[:, : len(space)], np.full(len(space), 1 / len(space))
    temperatures = [fit_temperature(each, targets, weights) for each in plain]
    losses = [_loss(heat * each, targets) for heat, each in zip(temperatures, plain, strict=True)]
    best = int(np.argmin(losses))
    weight, bias = list(_paths(space, targets, count, features.shape[1]))[best]
    row = temperatures[best] * (weight if basis is None else weight @ basis.T) / scale
    found = temperatures[best] * logits[best]
    return Discriminant(
        row,
        temperatures[best] * bias - row @ mean,
        _SHRINKAGES[best],
        found[: len(space)],
        found[len(space) :],
    )


def _within(features: Array, mean: Array, scale: Array, basis: Array | None) -> Array:
    space = (features - mean) / scale
    return np.asarray(space if basis is None else space @ basis)


def _paths(
    features: Array, targets: NDArray[np.int64], count: int, dimensions: int
) -> Iterator[tuple[Array, Array]]:
    """Weight and bias for each shrinkage; `dimensions` are those that the covariance has in all."""
    means = np.zeros((count, features.shape[1]))
    np.add.at(means, targets, features)
    means /= np.bincount(targets, minlength=count)[:, None]
    rest = features - means[targets]
    values, vectors = np.linalg.eigh(rest.T @ rest / max(len(features) - count, 1))
    level = float(values.clip(0).sum()) / dimensions or 1.0
    inside = means @ vectors
    for share in _SHRINKAGES:
        solved = inside / ((1 - share) * values.clip(0) + share * level)
        yield solved @ vectors.T, -0.5 * (solved * inside).sum(1)


def _folds(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(images,) stratified: of a class of few images never all are in one."""
    fold = np.zeros(len(targets), np.int64)
    for label in np.unique(targets).tolist():
        members = np.flatnonzero(targets == label)
        order = np.random.default_rng([seed, label]).permutation(members)
        fold[order] = (label + np.arange(len(members))) % _FOLDS
    return fold


def _loss(logits: Array, targets: NDArray[np.int64]) -> float:
    return float((log_sum_exp(logits) - logits[np.arange(len(targets)), targets]).mean())
