"""A module for a class its parent never knew, in closed form on the parent's features.

The known classes' modules say how features vary inside a class. With that covariance W (pooled, shrunk) and
class means μ, the linear discriminant of class c is μ_cᵀW⁻¹f − ½ μ_cᵀW⁻¹μ_c (Fisher 1936), for the new class
as for the known ones. One factor, fitted on the known classes, brings discriminants to the scale of the
parent's logits; the new row is the parent's mean row plus the new class's scaled excess over the mean
discriminant. An offset then makes the images it misses and the (normally distributed) features it takes from
known classes as few as possible. Its margin is counted like those of the known classes, so all rank together.

How few images vary says little of the class: what the module records of the features' covariance is drawn to
that of the known classes, as a composer tells classes apart by it (`modhub.composition.head_density`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.modules import ClassModule, Decomposition, ModuleDraft, ModuleSet
from modhub.artifact.tensors import ModuleTensors
from modhub.calibration.calibrator import PLAIN_WEIGHT, fit_calibration
from modhub.calibration.margins import margin_head, margin_head_beside, margins
from modhub.calibration.one_against_rest import log_share, log_sum_exp
from modhub.data import ImageSet
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.assembly import assemble
from modhub.decomposition.held_out import normalised
from modhub.decomposition.measurement import sizes_of
from modhub.decomposition.parent import Parent
from modhub.devices import torch_defaults
from modhub.errors import CompositionError, DataError
from modhub.labels import LabelIndex
from modhub.manifest import Calibration, MethodInfo
from modhub.nets import Runner, channel_space, cost
from modhub.pruning.compensation import cut
from modhub.pruning.order import mask_after, pruning_order, relevance_tensor, slot_costs
from modhub.pruning.statistics import (
    CORRELATION_LIMIT,
    ClassStatistics,
    Moments,
    observe,
    positive,
    read_statistics,
    stored_statistics,
)
from modhub.reporter import SILENT, Reporter

SHRINKAGE = 0.05
"""Share of the within-class covariance that is replaced by its diagonal."""
_STEADY = 20
"""As many images does the mean covariance of the known classes count for in that of a new one."""
_DRAWN = 60
"""Features of each known class that stand for its images."""
_PAPER = "R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936"


@torch_defaults()
def teach(
    modules: ModuleSet,
    label: str,
    images: ImageSet,
    *,
    seed: int = 0,
    date: str | None = None,
    reporter: Reporter = SILENT,
) -> ModuleSet:
    """A set of one module that answers for `label`, on the trunk of `modules`; all `images` are of it.

    `modules` are made by `relevance`, at least two of them. Raises `DataError` for fewer than two images, and
    `CompositionError` when the parent knows the class or its modules do not tell enough.
    """
    started = time.perf_counter()
    known, parent = _known(modules, label)
    if len(images) < 2:
        raise DataError(
            f"There are {len(images)} images of '{label}'; at least 2 are needed.", hint="Add images of it."
        )
    space = channel_space(parent.trunk)
    runner, preprocess = Runner(parent.trunk), Preprocess(parent.input)
    with reporter.step(f"look at {label}"), torch.inference_mode():
        plain = _features(runner, list(normalised(images, preprocess, 50)))
        copies = [augmented(pixels, seed + number) for number, (pixels, _) in enumerate(images.batches(50))]
        harder = _features(runner, [preprocess(batch) for batch in copies])
    moments = [statistics.moments[parent.trunk.graph.output] for statistics in known]
    rows = parent.head.weight.double().numpy(), parent.head.bias.double().numpy()
    weight, bias = taught_head(moments, rows, plain, seed)
    head = margin_head_beside(parent.head, weight, bias)
    with reporter.step("find its channels"):
        seen = observe(runner, normalised(images, preprocess, 50), space, margin_head(head))
    value = parent.trunk.graph.output
    calm = steadied(seen.moments[value], moments, len(images))
    statistics = ClassStatistics({**seen.moments, value: calm}, seen.sensitivity)
    removal = pruning_order(statistics, space, slot_costs(parent.trunk, space))
    kept = float(np.mean([module.manifest.sizes.kept_channels_fraction for module in modules.modules]))
    mask = mask_after(removal, min(round((1 - kept) * space.slots), len(removal.slots)), space)
    sliced, _, _ = cut(parent.trunk, mask, space, statistics, *head)
    own = sum(len(each.mean) * (len(each.mean) - 1) // 2 for each in statistics.moments.values())
    draft = ModuleDraft(
        label=label,
        tensors=ModuleTensors(
            mask=torch.from_numpy(mask.astype(np.uint8)),
            head_weight=head[0],
            head_bias=head[1],
            relevance=relevance_tensor(statistics, space),
            statistics=stored_statistics(statistics, correlations=own <= CORRELATION_LIMIT),
        ).to_dict(),
        calibration=_calibration(modules.modules[0], known, parent, head, plain, harder, seed),
        measurement=None,
        sizes=sizes_of(mask, cost(sliced), cost(parent.trunk)),
    )
    done = Decomposition(
        method=MethodInfo(name="teach", parameters={"images": len(images)}, paper=_PAPER),
        modules=(draft,),
        statistics=modules.statistics,
        seconds=time.perf_counter() - started,
        images=len(images),
    )
    return assemble(parent, done, seed=seed, date=date)


def taught_head(
    known: Sequence[Moments],
    rows: tuple[NDArray[np.float64], NDArray[np.float64]],
    features: NDArray[np.float64],
    seed: int = 0,
) -> tuple[NDArray[np.float64], float]:
    """Weight (features,) and bias of the new class's logit beside the parent's, from its `features` (images,
    features); `known` and `rows` as in `taught_row`."""
    weight, bias = taught_row(known, rows, features.mean(0))
    return weight, bias + _offset(known, rows, (weight, bias), features, seed)


def taught_row(
    known: Sequence[Moments], rows: tuple[NDArray[np.float64], NDArray[np.float64]], mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weight (features,) and bias of the new class's logit, on the scale of the parent's logits.

    `known` are the feature moments of known classes, `rows` the parent's head (labels, features) and
    (labels,), `mean` (features,) that of the new class.
    """
    within = _within(known)
    spread = np.diagonal(within)
    ridge = np.diag(SHRINKAGE * spread + 1e-3 * positive(spread.mean()))
    inverse = np.linalg.inv((1 - SHRINKAGE) * within + ridge)
    means = np.stack([each.mean for each in known])
    weights = means @ inverse
    biases = -0.5 * (weights * means).sum(1)
    found = means @ weights.T + biases
    logits = means @ rows[0].T + rows[1]
    # Each mean against the average of all: what discriminants and logits say of the same images.
    excess = found.diagonal() - found.mean(1)
    own = np.sort(logits, 1)[:, ::-1][:, 0] - logits.mean(1)
    factor = float((excess * own).sum() / positive((excess**2).sum()))
    new = mean @ inverse
    weight = rows[0].mean(0) + factor * (new - weights.mean(0))
    bias = float(rows[1].mean() + factor * (-0.5 * new @ mean - biases.mean()))
    return weight, bias


def steadied(own: Moments, known: Sequence[Moments], images: int) -> Moments:
    """What `images` of a class say of its features, the covariance drawn to the mean of those `known`."""
    share = images / (images + _STEADY)
    return Moments(own.mean, share * own.covariance + (1 - share) * _within(known, own.covariance.ndim))


def _within(known: Sequence[Moments], dimensions: int = 2) -> NDArray[np.float64]:
    """The mean covariance inside a class, (features, features) or with one dimension its diagonal."""
    if dimensions == 1:
        return np.asarray(np.mean([each.variance for each in known], axis=0))
    full = [each.covariance if each.covariance.ndim == 2 else np.diag(each.covariance) for each in known]
    return np.asarray(np.mean(full, axis=0))


def _offset(
    known: Sequence[Moments],
    rows: tuple[NDArray[np.float64], NDArray[np.float64]],
    new: tuple[NDArray[np.float64], float],
    features: NDArray[np.float64],
    seed: int,
) -> float:
    """What to add to the new logit so that it misses few of its `features` and takes few of known classes,
    every class weighing the same."""
    draw = np.random.default_rng([seed, 2])

    def lead(values: NDArray[np.float64]) -> NDArray[np.float64]:
        others = values @ rows[0].T + rows[1]
        return np.asarray(values @ new[0] + new[1] - others.max(1))

    others = np.stack([np.sort(lead(each.drawn(_DRAWN, draw))) for each in known])
    own = np.sort(lead(features))
    candidates = -np.concatenate([own, others.ravel()])
    scale = positive(own.std()) / 4
    # A soft count, so that a handful of images gives a smooth answer.
    best = np.unique(np.quantile(candidates, np.linspace(0, 1, 201)))
    missed = _soft(-(own[:, None] + best) / scale).mean(0)
    taken = sum(_soft((each[:, None] + best) / scale).mean(0) for each in others)
    return float(best[int(np.argmin(missed + taken))])


def _soft(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-values.clip(-40, 40))))


def _known(modules: ModuleSet, label: str) -> tuple[list[ClassStatistics], Parent]:
    about = modules.manifest.parent
    if LabelIndex(about.labels).find(label):
        raise CompositionError(
            f"'{about.name}' knows the class '{label}' already.", hint="Use its own module, or another label."
        )
    shared, space = modules.shared, channel_space(modules.trunk)
    read = [
        read_statistics(module.parsed.statistics, shared.correlations, modules.trunk.graph, space)
        for module in modules.modules
    ]
    known = [each for each in read if each is not None]
    if shared.parent_weight is None or shared.parent_bias is None or len(known) < 2:
        raise CompositionError(
            f"The modules of '{about.name}' do not carry what teaching a class needs: the statistics of at "
            "least two classes and the parent's head.",
            hint="Decompose the parent with the method 'relevance', all its classes.",
        )
    if modules.modules[0].parsed.head_tail:
        raise CompositionError(
            f"The head of '{about.name}' is applied at every position of its features.",
            hint="Teach on a parent whose last layer is linear.",
        )
    return known, Parent.of_modules(modules)


def _features(runner: Runner, batches: Sequence[Tensor]) -> NDArray[np.float64]:
    return np.asarray(torch.cat([runner(batch) for batch in batches]).double().numpy())


def _calibration(
    sibling: ClassModule,
    known: Sequence[ClassStatistics],
    parent: Parent,
    head: tuple[Tensor, Tensor],
    plain: NDArray[np.float64],
    harder: NDArray[np.float64],
    seed: int,
) -> Calibration:
    """Positives are the images and their copies; negatives are drawn from the known classes' moments."""
    value, draw = parent.trunk.graph.output, np.random.default_rng([seed, 4])
    negatives = [statistics.moments[value].drawn(_DRAWN, draw) for statistics in known]
    features = np.concatenate([plain, harder, *negatives])
    margin = features @ (head[0][0] - head[0][1]).double().numpy() + float(head[1][0] - head[1][1])
    logits = features @ parent.head.weight.double().numpy().T + parent.head.bias.double().numpy()
    positive = np.arange(len(margin)) < len(plain) + len(harder)
    weights = np.ones(len(margin))
    weights[: len(plain)] = PLAIN_WEIGHT
    weights[len(plain) : len(plain) + len(harder)] = 1 - PLAIN_WEIGHT
    temperature = sibling.manifest.calibration.parameters.get("temperature", 1.0)
    total = log_sum_exp(temperature * np.column_stack([margin, margins(logits)]))
    share = log_share(temperature * margin, total)
    return fit_calibration(margin, positive, weights, temperature, share=share)
