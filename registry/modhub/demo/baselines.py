"""What stands beside every accuracy: the parents' restricted logits, and random masks of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from modhub.composition import Budget, ComposedClassifier, Part, compose
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.trunk_plan import trunk_plans
from modhub.evaluation.baselines import RestrictedParent
from modhub.nets import ChannelSpace, Mask
from modhub.parents import ParentSource


class SideBySide(nn.Module):
    """Several classifiers of different labels as one: the highest raw score wins."""

    def __init__(self, classifiers: Sequence[RestrictedParent]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)
        self.labels = tuple(label for classifier in classifiers for label in classifier.labels)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([classifier(images) for classifier in self.classifiers], 1)


def restricted(parents: Sequence[tuple[ParentSource, Sequence[str], Sequence[str]]]) -> SideBySide:
    """The parents whole, their logits compared as they are: (source, its labels, the labels wanted) each."""
    return SideBySide(
        [
            RestrictedParent(source.model, source.input, labels, wanted)
            for source, labels, wanted in parents
            if source.input is not None and isinstance(source.model, nn.Module)
        ]
    )


def random_twin(
    parts: Sequence[Part], budget: Budget | None, seed: int, synthesizer: ImageSynthesizer | None = None
) -> ComposedClassifier:
    """The same modules on random channels, as many as the composer would keep, made up for in the same way.

    Without a budget the union of the modules' masks is shuffled inside every group of channels.
    """
    if budget is not None:
        return compose(parts, budget=budget, control=seed, synthesizer=synthesizer)
    dice = np.random.default_rng(seed)
    by_name = {}
    for plan in trunk_plans(parts):
        mask = torch.from_numpy(_shuffled(ChannelChooser(plan).mask(None), plan.space, dice).astype(np.uint8))
        for part in plan.parts:
            module = replace(part.module, tensors=replace(part.tensors, mask=mask).to_dict())
            by_name[part.name] = replace(part, module=module)
    return compose([by_name[part.name] for part in parts])


def _shuffled(mask: Mask, space: ChannelSpace, dice: np.random.Generator) -> Mask:
    return space.close(space.join({name: dice.permutation(kept) for name, kept in space.split(mask).items()}))
