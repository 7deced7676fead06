"""A linear head fitted to features: the regularised discriminant (Friedman 1989), refined where that helps.

With class means μ and the covariance W inside classes, class c has the logit μ_cᵀS⁻¹f − ½ μ_cᵀS⁻¹μ_c, where
S = (1 − λ) W + λ · mean variance · 1. One eigendecomposition of W serves every λ. The λ is taken, and with it
a temperature, that gives images which were left out the greatest likelihood. Logistic regression around that
head (`modhub.decomposition.logistic`) takes its place where these images are likelier by it: with many images
the classes need not be normal any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modhub.calibration.one_against_rest import log_sum_exp
from modhub.calibration.temperature import fit_temperature
from modhub.decomposition.logistic import refined_head, refinement_work

_SHRINKAGES = (*np.logspace(-4, -0.5, 8).tolist(), 0.5, 0.7, 0.9, 1.0)
_FOLDS = 5
_STRENGTH = 30.0
"""Of the pull to the discriminant, in images; chosen on training images of CIFAR-100."""
_REFINEMENT_IMAGES = 10
"""Images of a class, on average, from which on refining is tried."""
_REFINEMENT_WORK = 1e12
"""Multiply-adds that refining may take, with all its folds."""
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
    dimensions = features.shape[1]
    for number in np.unique(fold).tolist():
        used, left = fold != number, folds == number
        solutions = _solutions(space[used], targets[used], count, dimensions, _SHRINKAGES)
        for place, (weight, bias) in enumerate(solutions):
            logits[place][left] = asked[left] @ weight.T + bias
    heats = [_temperature(each[: len(space)], targets) for each in logits]
    losses = [_loss(heat * each[: len(space)], targets) for heat, each in zip(heats, logits, strict=True)]
    best = int(np.argmin(losses))
    shrinkage = _SHRINKAGES[best]

    def fitted(used: NDArray[np.bool_], *, refine: bool) -> tuple[Array, Array]:
        ((weight, bias),) = _solutions(space[used], targets[used], count, dimensions, [shrinkage])
        weight, bias = heats[best] * weight, heats[best] * bias
        return refined_head(space[used], targets[used], weight, bias, _STRENGTH) if refine else (weight, bias)

    left_out, heat = heats[best] * logits[best], 1.0
    refines = False
    work = _FOLDS * refinement_work(len(space), space.shape[1], count)
    if len(space) >= _REFINEMENT_IMAGES * count and work <= _REFINEMENT_WORK:
        refined = np.zeros_like(left_out)
        for number in np.unique(fold).tolist():
            weight, bias = fitted(fold != number, refine=True)
            refined[folds == number] = asked[folds == number] @ weight.T + bias
        heat = _temperature(refined[: len(space)], targets)
        refines = _loss(heat * refined[: len(space)], targets) < losses[best]
        left_out, heat = (heat * refined, heat) if refines else (left_out, 1.0)
    weight, bias = fitted(np.ones(len(space), np.bool_), refine=refines)
    row = heat * (weight if basis is None else weight @ basis.T) / scale
    return Discriminant(
        row, heat * bias - row @ mean, shrinkage, left_out[: len(space)], left_out[len(space) :]
    )


def _temperature(logits: Array, targets: NDArray[np.int64]) -> float:
    return fit_temperature(logits, targets, np.full(len(logits), 1 / len(logits)))


def _within(features: Array, mean: Array, scale: Array, basis: Array | None) -> Array:
    space = (features - mean) / scale
    return np.asarray(space if basis is None else space @ basis)


def _solutions(
    features: Array,
    targets: NDArray[np.int64],
    count: int,
    dimensions: int,
    shrinkages: Sequence[float],
) -> Iterator[tuple[Array, Array]]:
    """Weight and bias for each of `shrinkages`; `dimensions` are those that the covariance has in all."""
    means = np.zeros((count, features.shape[1]))
    np.add.at(means, targets, features)
    means /= np.bincount(targets, minlength=count)[:, None]
    rest = features - means[targets]
    values, vectors = np.linalg.eigh(rest.T @ rest / max(len(features) - count, 1))
    level = float(values.clip(0).sum()) / dimensions or 1.0
    inside = means @ vectors
    for share in shrinkages:
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
