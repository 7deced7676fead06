"""How good modules are on images that had no say in their parent's training or in making them."""

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
from modhub.composition.trunk_plan import plans, positioned
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import Parent
from modhub.decomposition.measurement import Answers, measurement
from modhub.decomposition.parent import aligned
from modhub.nets import Runner, channel_space, head_logits
from modhub.pruning.compensation import cut
from modhub.reporter import SILENT, Reporter

__all__ = ["measured"]

_MOST = 100
"""Images per class: enough to know a recall to about five points."""


def measured(
    parent: Parent,
    modules: ModuleSet,
    decomposition: Decomposition,
    images: ImageSet,
    *,
    per_class: int = _MOST,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Decomposition:
    """`decomposition` with every module's figures measured on `images`, `per_class` of each class at most.

    `modules` are its drafts assembled. `recall` and `precision` are the class's among all the parent's
    classes when the trunk is cut to this one module; `balanced_accuracy` is that of its log-odds being
    positive; `parent_…` are the whole parent's on the same images. Raises `DataError` when a module's class
    has none.
    """
    labels = [draft.label for draft in decomposition.modules]
    sample = aligned(parent, images, labels, minimum=1).sample(per_class, seed)
    batches = list(sample.batches(100))
    targets = np.concatenate([sample.targets[indices] for _, indices in batches])
    logits = _answers(_whole(parent), batches)
    parts = parts_of(modules)
    (plan,) = plans(parts)
    names = [part.name for part in plan.parts]
    dense = positioned(plan.trunk, plan.parts)
    # As in `TrunkPlan.compile`, but here the set may lack classes whose rows have a say in the answers.
    space = plan.space if dense is plan.trunk else channel_space(dense)
    statistics = plan.statistics if dense is plan.trunk else None
    drafts = []
    for draft in reporter.track(decomposition.modules, f"measure on {images.name}"):
        row = parent.labels.index(draft.label)
        mask = plan.space.close(ModuleTensors.from_dict(draft.tensors).mask.bool().numpy())
        one = plan.compile(mask)
        folded = cut(
            dense,
            mask,
            space,
            None if mask.all() else statistics,
            parent.head.weight,
            parent.head.bias,
        )[1:]
        found = _answers(nn.Sequential(one, _Scores(one, *folded, parent.head.tail)), batches)
        said = Answers.of(found[:, len(names) :], row, draft.calibration)
        if draft.calibration.kind != BY_ODDS:
            numbers = draft.calibration.parameters
            own = numbers["slope"] * found[:, names.index(draft.label)] + numbers["intercept"]
            said = dataclasses.replace(said, accepted=own.numpy() > 0)
        figures = measurement(
            said,
            Answers.of(logits, row, draft.calibration),
            targets == row,
            draft.calibration,
            dataset=images.name,
            # A folder without splits was said to hold images that the parent was not trained on.
            split="test" if images.split == "all" else images.split,
        )
        drafts.append(dataclasses.replace(draft, measurement=figures))
    return dataclasses.replace(decomposition, modules=tuple(drafts))


class _Scores(nn.Module):
    """Features to the margins of the classes of a compiled trunk's only head, and then the logits of all."""

    def __init__(self, compiled: TrunkPass, weight: Tensor, bias: Tensor, tail: Sequence[str]) -> None:
        super().__init__()
        self.head, self.tail = compiled.heads[0], tail
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        logits = head_logits(features, self.get_buffer("weight"), self.get_buffer("bias"), self.tail)
        return torch.cat([self.head.margins(features), logits], 1)


def _whole(parent: Parent) -> nn.Module:
    return nn.Sequential(Preprocess(parent.input), Runner(parent.head.join(parent.trunk)))


def _answers(network: nn.Module, batches: list[tuple[Tensor, NDArray[np.int64]]]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network(pixels) for pixels, _ in batches])
