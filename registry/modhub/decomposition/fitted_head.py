"""Modules of classes that no classifier knows yet: a linear head fitted to features of a public backbone.

Each image is decoded and passed through the trunk once, plain and in an altered copy. The head is a
regularised discriminant (`modhub.decomposition.discriminant`). It is fitted to all images; calibrations and
figures come from logits by heads that had not seen the image, calibrations from one half, figures from the
other. The trunk stays whole, so that everyone's heads on it share one pass. Where a trunk has channels that
can go, a second pass records what a composer needs to choose some.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.calibration.calibrator import PLAIN_WEIGHT, Calibrator
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.data import ImageSet, without_unreadable
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.checkpoint import Checkpoint
from modhub.decomposition.discriminant import Discriminant, fit_discriminant
from modhub.decomposition.measurement import Answers, measurement, sizes_of
from modhub.decomposition.observations import Observations
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, wanted_rows
from modhub.decomposition.teaching import steadied
from modhub.errors import DataError, ParentError
from modhub.manifest import InputSpec, MethodInfo
from modhub.nets import Head, Network, Runner, channel_space, cost, fuse_batch_norm, split_head
from modhub.parents.weights import load_weights
from modhub.pruning.moments import correlation_numbers
from modhub.pruning.order import relevance_tensor
from modhub.pruning.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    Moments,
    correlation_tensors,
    observed_values,
    pool,
    stored_statistics,
)
from modhub.reporter import Reporter
from modhub.workers import Workers

FIT_HEAD = "fit-head"
"""The method's name in manifests."""
_PAPER = "J. H. Friedman, Regularized discriminant analysis, 1989"
Array = NDArray[np.float64]


def backbone_of(network: Network, name: str, *, classifier: bool) -> Network:
    """The network up to its features: without its head where it is a `classifier` or ends in a linear layer.
    Raises `ParentError` for features that have positions."""
    last = network.graph.node.get(network.graph.output)
    trunk = split_head(network)[0] if classifier or (last is not None and last.op == "linear") else network
    shape = trunk.graph.shapes[trunk.graph.output]
    if len(shape) != 1:
        raise ParentError(
            f"'{name}' gives features of the shape {list(shape)} per image; a head needs one vector.",
            hint="Let the model return pooled features (batch, features).",
        )
    return trunk


def head_of_file(path: Path, labels: Sequence[str] | None) -> tuple[tuple[str, ...], Head]:
    """The labels and rows of a head in a safetensors file: a tensor (features,) for each label, by name; or
    `weight` (labels, features) and perhaps `bias` (labels,), for `labels`. Raises `ParentError`."""
    tensors = {name: tensor.float() for name, tensor in load_weights(path).items()}
    if labels is None:
        labels = sorted(tensors)
        if len({tuple(tensor.shape) for tensor in tensors.values()}) != 1 or tensors[labels[0]].dim() != 1:
            raise ParentError(
                f"'{path}' should hold one tensor (features,) for each label; it holds {_shapes(tensors)}.",
                hint="Name the classes of 'weight' (labels, features) with --labels.",
            )
        return tuple(labels), Head(torch.stack([tensors[name] for name in labels]), torch.zeros(len(labels)))
    weight = tensors.get("weight", torch.zeros(0))
    bias = tensors.get("bias", torch.zeros(len(labels)))
    if weight.dim() != 2 or len(weight) != len(labels) or bias.shape != (len(labels),):
        raise ParentError(
            f"'{path}' should hold 'weight' ({len(labels)}, features) for {len(labels)} labels, and perhaps "
            f"'bias' ({len(labels)}); it holds {_shapes(tensors)}.",
            hint="Check --labels.",
        )
    return tuple(labels), Head(weight, bias)


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    shapes = [f"'{name}' {list(tensor.shape)}" for name, tensor in sorted(tensors.items())]
    return ", ".join(shapes[:3]) + (f" and {len(shapes) - 3} more" if len(shapes) > 3 else "") or "nothing"


@dataclass(frozen=True, slots=True)
class _Features:
    """(images, features) of the plain images and of an altered copy of each, with the images' targets."""

    plain: Array
    copies: Array
    targets: NDArray[np.int64]

    @classmethod
    def of(cls, runner: Runner, images: ImageSet, spec: InputSpec, options: DecomposeOptions) -> _Features:
        preprocess, device = Preprocess(spec), options.torch_device
        plain, copies, order = [], [], []
        with torch.inference_mode():
            for number, (pixels, indices) in enumerate(images.batches(options.batch)):
                harder = augmented(pixels, options.seed * 1_000_003 + number)
                plain.append(runner(preprocess(pixels).to(device)).double().cpu().numpy())
                copies.append(runner(preprocess(harder).to(device)).double().cpu().numpy())
                order.append(indices)
        targets = images.targets[np.concatenate(order)]
        return cls(np.concatenate(plain), np.concatenate(copies), targets)


def fit_head(
    trunk: Network,
    spec: InputSpec,
    images: ImageSet,
    options: DecomposeOptions,
    named: Callable[[Network], Parent],
    reporter: Reporter,
) -> tuple[Parent, Decomposition]:
    """A classifier of all classes of `images`, and drafts of those that are wanted.

    `named` makes the parent of a network, the `trunk` with the head. Raises `DataError` for a class of fewer
    than two images.
    """
    started = time.perf_counter()
    images = images.sample(options.images_per_class, options.seed)
    for label, count in zip(images.labels, images.counts().tolist(), strict=True):
        if count < 2:
            raise DataError(
                f"The data set '{images.name}' has {count} images of '{label}'; at least 2 are needed.",
                hint="Add images of that class.",
            )
    runner = Runner(fuse_batch_norm(trunk)).to(options.torch_device)
    with reporter.step("compute features"):
        seen = without_unreadable(lambda read: _Features.of(runner, read, spec, options), images, reporter)
    with reporter.step("fit the head"):
        fitted = fit_discriminant(seen.plain, seen.targets, seen.copies, seed=options.seed)
    head = Head(torch.from_numpy(fitted.weight).float(), torch.from_numpy(fitted.bias).float())
    parent = named(head.join(trunk))
    rows = wanted_rows(parent, options)
    statistics, correlations, per_class = _statistics(parent, runner, images, seen, options, rows, reporter)
    space, price = channel_space(trunk), cost(trunk)
    mask, figures = space.full_mask(), _Figures(fitted, seen.targets)
    drafts = []
    for row in rows:
        weight, bias = one_against_rest_head(head.weight, head.bias, row)
        calibration = figures.calibrator.calibration(row)
        answers = Answers.of(torch.from_numpy(fitted.left_out[figures.test]), row, calibration)
        drafts.append(
            ModuleDraft(
                label=parent.labels[row],
                tensors=ModuleTensors(
                    mask=torch.from_numpy(mask.astype(np.uint8)),
                    head_weight=weight,
                    head_bias=bias,
                    relevance=relevance_tensor(statistics[row], space),
                    statistics=stored_statistics(statistics[row], correlations=per_class),
                ).to_dict(),
                calibration=calibration,
                # Nothing is removed: the module answers as its parent does.
                measurement=measurement(
                    answers,
                    answers,
                    seen.targets[figures.test] == row,
                    calibration,
                    dataset=images.name,
                    split=images.split,
                ),
                sizes=sizes_of(mask, price, price),
            )
        )
    shared = TrunkTensors(parent_weight=head.weight, parent_bias=head.bias, correlations=correlations)
    said = {"fit_images": options.images_per_class, "shrinkage": fitted.shrinkage}
    return parent, Decomposition(
        method=MethodInfo(name=FIT_HEAD, parameters=said, paper=_PAPER),
        modules=tuple(drafts),
        statistics=shared.to_dict(),
        seconds=time.perf_counter() - started,
        images=len(seen.targets),
    )


class _Figures:
    """Calibrations from every other left-out image of each class and its copy; `test` are the others."""

    def __init__(self, fitted: Discriminant, targets: NDArray[np.int64]) -> None:
        rank = np.zeros(len(targets), np.int64)
        for label in np.unique(targets):
            rank[targets == label] = np.arange(int((targets == label).sum()))
        self.test = rank % 2 == 1
        used = ~self.test
        weights = np.repeat([PLAIN_WEIGHT, 1 - PLAIN_WEIGHT], int(used.sum()))
        logits = np.concatenate([fitted.left_out[used], fitted.left_out_copies[used]])
        self.calibrator = Calibrator(logits, np.tile(targets[used], 2), weights, weights, odds=True)


def _statistics(
    parent: Parent,
    runner: Runner,
    images: ImageSet,
    seen: _Features,
    options: DecomposeOptions,
    rows: list[int],
    reporter: Reporter,
) -> tuple[dict[int, ClassStatistics], dict[str, Tensor], bool]:
    """By row, with the pooled correlations where classes carry none; covariances of features drawn to their
    mean over the classes, as of few images they say little."""
    graph, space, output = parent.trunk.graph, channel_space(parent.trunk), parent.trunk.graph.output
    every = [_moments(seen.plain[seen.targets == row]) for row in range(len(parent.labels))]
    counts = np.bincount(seen.targets)
    calm = {row: steadied(every[row], every, int(counts[row])) for row in rows}
    if observed_values(graph, space) == (output,):
        weight = parent.head.weight.double().numpy()
        others = (weight.sum(0) - weight) / max(len(weight) - 1, 1)
        slopes = (weight - others) ** 2
        per_class = correlation_numbers(graph, space) <= CORRELATION_LIMIT
        shared = {} if per_class else correlation_tensors({output: pool(list(calm.values()))})
        found = {row: ClassStatistics({output: calm[row]}, {output: slopes[row]}) for row in rows}
        return found, shared, per_class
    observations = Observations(
        runner,
        parent,
        images,
        space,
        options,
        rows,
        workers=Workers.here(),
        checkpoint=Checkpoint(None, None),
        reporter=reporter,
    )
    observations.observe()
    found = {}
    for row in rows:
        statistics = observations.statistics(row, covariances=False)
        moments = dict(statistics.moments)
        if moments[output].covariance.ndim == 2:
            moments[output] = calm[row]
        found[row] = ClassStatistics(moments, statistics.sensitivity)
    return found, observations.correlations, observations.per_class


def _moments(features: Array) -> Moments:
    mean = features.mean(0)
    rest = features - mean
    return Moments(mean, rest.T @ rest / len(features))
