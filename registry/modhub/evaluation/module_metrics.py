"""Metrics of modules and their parent on held-out images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modhub.artifact.modules import Decomposition, ModuleSet
from modhub.artifact.tensors import ModuleTensors
from modhub.calibration.calibrator import BY_ODDS
from modhub.composition import TrunkPass, parts_of
from modhub.composition.trunk_plan import positioned, trunk_plans
from modhub.data import ImageSet, without_unreadable
from modhub.data.disk_tensor import DiskTensor
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import Parent
from modhub.decomposition.measurement import Answers, measurement
from modhub.decomposition.parent import aligned
from modhub.nets import Runner, channel_space, head_logits
from modhub.pruning.compensation import cut
from modhub.reporter import SILENT, Reporter

_PER_CLASS = 100
"""A recall is then known to about five points."""
_BATCH = 100
_MEMORY = 1 << 30
"""Bytes of preprocessed images kept in memory; more lie on disk."""


def measure_modules(
    parent: Parent,
    modules: ModuleSet,
    decomposition: Decomposition,
    images: ImageSet,
    *,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Decomposition:
    """`decomposition` with every module's metrics measured on `images`, at most `_PER_CLASS` of each class.

    `modules` are its drafts assembled. `recall` and `precision` are of the class among all the parent's
    classes when the trunk is pruned to this one module; `balanced_accuracy` is that of its log-odds being
    positive; `parent_…` are the unpruned parent's on the same images. Each image is decoded and preprocessed
    once. Raises `DataError` when a module's class has no image.
    """
    labels = [draft.label for draft in decomposition.modules]
    sample = aligned(parent, images, labels, minimum=1).sample(_PER_CLASS, seed)
    inputs, targets = without_unreadable(lambda read: _preprocessed(parent, read), sample, reporter)
    logits = _outputs(_network(parent), inputs)
    parts = parts_of(modules)
    (plan,) = trunk_plans(parts)
    names = [part.name for part in plan.parts]
    dense = positioned(plan.trunk, plan.parts)
    # As in `TrunkPlan.compile`, but here the set may lack classes whose logits are needed.
    space = plan.space if dense is plan.trunk else channel_space(dense)
    statistics = plan.statistics if dense is plan.trunk else None
    drafts = []
    for draft in reporter.track(decomposition.modules, f"measure on {images.name}"):
        row = parent.labels.index(draft.label)
        mask = plan.space.close(ModuleTensors.from_dict(draft.tensors).mask.bool().numpy())
        pruned = plan.compile(mask)
        folded = cut(
            dense,
            mask,
            space,
            None if mask.all() else statistics,
            parent.head.weight,
            parent.head.bias,
        )[1:]
        scores = _Scores(pruned, *folded, parent.head.tail)
        outputs = _outputs(nn.Sequential(pruned.trunk, scores), inputs)
        answers = Answers.of(outputs[:, len(names) :], row, draft.calibration)
        if draft.calibration.kind != BY_ODDS:
            numbers = draft.calibration.parameters
            odds = numbers["slope"] * outputs[:, names.index(draft.label)] + numbers["intercept"]
            answers = dataclasses.replace(answers, accepted=odds.numpy() > 0)
        metrics = measurement(
            answers,
            Answers.of(logits, row, draft.calibration),
            targets == row,
            draft.calibration,
            dataset=images.name,
            # The caller says that the parent was not trained on a folder without splits.
            split="test" if images.split == "all" else images.split,
        )
        drafts.append(dataclasses.replace(draft, measurement=metrics))
    return dataclasses.replace(decomposition, modules=tuple(drafts))


class _Scores(nn.Module):
    """Features to the margins of a pruned trunk's only head, followed by the logits of all the parent's
    classes."""

    def __init__(self, compiled: TrunkPass, weight: Tensor, bias: Tensor, tail: Sequence[str]) -> None:
        super().__init__()
        self.head, self.tail = compiled.heads[0], tail
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        logits = head_logits(features, self.get_buffer("weight"), self.get_buffer("bias"), self.tail)
        return torch.cat([self.head.margins(features), logits], 1)


def _network(parent: Parent) -> nn.Module:
    return Runner(parent.head.join(parent.trunk))


def _preprocessed(parent: Parent, images: ImageSet) -> tuple[DiskTensor, NDArray[np.int64]]:
    """The parent's inputs (images, channel, height, width), and the targets in the same order."""
    spec, preprocess = parent.input, Preprocess(parent.input)
    inputs = DiskTensor(len(images), (spec.channels, spec.height, spec.width), _MEMORY)
    order: list[NDArray[np.int64]] = []
    start = 0
    with torch.inference_mode():
        for pixels, indices in images.batches(_BATCH):
            inputs.put(start, preprocess(pixels))
            order.append(indices)
            start += len(indices)
    return inputs, images.targets[np.concatenate(order)]


def _outputs(network: nn.Module, inputs: DiskTensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in inputs.split(_BATCH)])
