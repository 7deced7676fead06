"""From modules to one network per trunk, and those to one classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modhub.composition.budget import Budget
from modhub.composition.classifier import ComposedClassifier, TrunkPass
from modhub.composition.few_shot import adjust
from modhub.composition.fitting.synthetic_images import Imagination
from modhub.composition.parts import Part, distinct_parts
from modhub.composition.trunk_plan import Fitting, TrunkPlan, plans
from modhub.data import ImageSet
from modhub.devices import CPU, torch_defaults
from modhub.reporter import SILENT, Reporter

__all__ = ["compose", "joined"]


@torch_defaults()
def compose(
    parts: Sequence[Part],
    *,
    budget: Budget | None = None,
    tune: ImageSet | None = None,
    calibrate: ImageSet | None = None,
    reject: bool = False,
    seed: int = 0,
    control: int | None = None,
    imagination: Imagination | None = None,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> ComposedClassifier:
    """One classifier over the labels of `parts`, in their order.

    Modules are grouped by the content of their trunk: one union of masks, one network, one pass each. With a
    `budget` channels are chosen again, for the set, and what is left is fitted to answer as the parent does:
    on the images of `tune`, whose labels are not looked at, or on synthetic ones. `calibrate` are a few
    labelled images of every class (see `adjusting`), which may be called as its module is. `control` draws
    the channels that go at random with that seed, to compare with. `imagination` keeps synthetic images for
    the next call.
    What is fitted is fitted on `device`; the classifier is on the CPU. Where gradients are switched off they
    are on again for as long as this takes.

    Raises `CompositionError` for no modules, two that share a label, or files that do not fit each other, and
    `BudgetError`.
    """
    wanted = distinct_parts(parts)
    planned = plans(wanted, device)
    fitting = Fitting(tune, imagination or Imagination(seed, device), seed, reporter)
    passes = []
    for plan in reporter.track(planned, "compile trunks", len(planned)):
        if budget is not None and budget.max_loss is not None:
            passes.append(plan.compile_to_loss(budget, fitting))
            continue
        with reporter.step("choose channels"):
            mask = plan.mask(budget, control)
        material = plan.material(mask, budget, fitting)
        if material is not None:
            plan = plan.seeing(material, reporter)
            if budget is not None and control is None:
                mask = plan.chosen(budget, material, seed, reporter)
        passes.append(plan.compile(mask, material, seed=seed, reporter=reporter))
    classifier = joined(wanted, planned, passes, reject=reject)
    if calibrate is not None:
        with reporter.step("calibrate"):
            adjust(classifier, calibrate, aliases={part.name: part.aliases for part in wanted}, seed=seed)
    return classifier


def joined(
    parts: Sequence[Part], planned: Sequence[TrunkPlan], passes: Sequence[TrunkPass], *, reject: bool
) -> ComposedClassifier:
    """The classifier of compiled passes, its labels in the order of `parts`."""
    places = [part.name for plan in planned for head in plan.heads for part in head]
    order = torch.tensor([places.index(part.name) for part in parts], dtype=torch.int64)
    return ComposedClassifier([part.name for part in parts], passes, order, reject=reject)
