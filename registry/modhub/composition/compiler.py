"""From modules to one network per trunk, and those to one classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modhub.composition.budget import Budget
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.choose_depth import choose_depth
from modhub.composition.classifier import ComposedClassifier, TrunkPass, TrunkReport
from modhub.composition.few_shot import calibrate_few_shot
from modhub.composition.fitting.decoded import decoded_once
from modhub.composition.fitting.fit import fit_trunk
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.sources import FittingSource
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.loss_search import compile_to_loss
from modhub.composition.parts import Part, distinct_parts
from modhub.composition.rejection import limit_distances
from modhub.composition.trunk_plan import TrunkPlan, trunk_plans
from modhub.data import ImageSet
from modhub.devices import CPU, torch_defaults
from modhub.errors import BudgetError
from modhub.formatting import percent
from modhub.reporter import SILENT, Reporter

_LEAST_SHARE = 0.4
"""Of a trunk's multiply-adds, what must be left for 'none of these' without images (docs/composition.md)."""


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
    synthesizer: ImageSynthesizer | None = None,
    settings: FitSettings = DEFAULT_SETTINGS,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> ComposedClassifier:
    """One classifier over the labels of `parts`, in their order.

    Modules are grouped by the content of their trunk: one union of masks, one network, one pass each. With a
    `budget` channels are chosen again, for the set, and what is left is fitted to answer as the parent does:
    on the images of `tune`, whose labels are not looked at, or on synthetic ones. `calibrate` are a few
    labelled images of every class (see `calibrate_few_shot`); a class may have its module's label there.
    `control` removes random channels, drawn with that seed, to compare with. `synthesizer` keeps synthetic
    images for the next call; `settings` are the constants of fitting.
    What is fitted is fitted on `device`; the classifier is on the CPU. Where gradients are switched off they
    are on again for as long as this takes.

    Raises `CompositionError` for no modules, two that share a label, or files that do not fit each other, and
    `BudgetError`.
    """
    distinct = distinct_parts(parts)
    plans = trunk_plans(distinct, device, reject=reject)
    if synthesizer is None:
        synthesizer = ImageSynthesizer(seed, device, settings)
    tuning = None if tune is None else decoded_once(tune, settings)
    source = FittingSource(tuning, synthesizer, seed, settings, reporter)
    _warn_of_unmeasured(distinct, plans, reporter, reject=reject, calibrated=calibrate is not None)
    passes = [
        _compile(plan, budget, control, source)
        for plan in reporter.track(plans, "compile trunks", len(plans))
    ]
    for trunk_pass in passes:
        limit_distances(trunk_pass, seed)
    if reject and any(trunk_pass.synthetic for trunk_pass in passes):
        reporter.warn(
            "What is 'none of these' to networks that were cut without images is estimated: they may refuse "
            "more images of their own classes than others do. Measure it with 'modhub evaluate', or give "
            "images with --tune."
        )
    classifier = join_passes(distinct, plans, passes, reject=reject)
    if calibrate is not None:
        with reporter.step("calibrate"):
            aliases = {part.name: part.aliases for part in distinct}
            calibrate_few_shot(classifier, calibrate, aliases=aliases, seed=seed, settings=settings)
    return classifier


def _warn_of_unmeasured(
    parts: Sequence[Part], plans: Sequence[TrunkPlan], reporter: Reporter, *, reject: bool, calibrated: bool
) -> None:
    """Of modules that were made without images, where their scores or thresholds are relied on."""
    unmeasured = [part for part in parts if "threshold" not in part.module.manifest.calibration.parameters]
    if not unmeasured:
        return
    name = unmeasured[0].name
    named = f"'{name}' and {len(unmeasured) - 1} more were" if len(unmeasured) > 1 else f"'{name}' was"
    if sum(len(plan.heads) for plan in plans) > 1 and not calibrated:
        reporter.warn(
            f"{named} made without images: how their scores compare with those of other parents is not "
            "measured. Give a few labelled images of every class with --calibrate."
        )
    if reject:
        reporter.warn(
            f"{named} made without images, so no threshold for 'none of these' is known: only images that "
            "their parent takes for another of its classes are rejected. Decompose these modules with images "
            "first."
        )


def _compile(plan: TrunkPlan, budget: Budget | None, control: int | None, source: FittingSource) -> TrunkPass:
    if budget is not None and budget.max_loss is not None:
        compiled = compile_to_loss(plan, budget, source)
        if compiled.synthetic:
            _check_measured(plan, compiled.report)
        return compiled
    settings, seed, reporter = source.settings, source.seed, source.reporter
    chooser = ChannelChooser(plan, control)
    with reporter.step("choose channels"):
        prunes = chooser.prunes(budget)
    data = source.data(plan, budget) if prunes else None
    if prunes and data is None and plan.unmeasured:
        raise BudgetError(
            f"Modules of '{plan.parts[0].module.manifest.parent.name}' were made without images, and its "
            "trunk has no batch norms to synthesize some by: which channels can go is not known.",
            hint="Give images of any of its classes with --tune.",
        )
    if data is not None:
        chooser = chooser.observing(data, settings, reporter)
    with reporter.step("choose channels"):
        mask = chooser.mask(budget)
    if data is None:
        return chooser.plan.compile(mask)
    if budget is not None and control is None:
        mask = choose_depth(chooser, mask, budget, data, seed=seed, settings=settings, reporter=reporter)
    if data.synthetic:
        _check_measured(plan, chooser.plan.cut(mask).report)
    return fit_trunk(chooser.plan, mask, data, seed=seed, settings=settings, reporter=reporter)


def _check_measured(plan: TrunkPlan, report: TrunkReport) -> None:
    """Raise `BudgetError` where a pass fitted on no real image would refuse too many of its classes."""
    share = report.flops / max(report.parent_flops, 1)
    if plan.reject and share < _LEAST_SHARE:
        raise BudgetError(
            f"Without images, a network of {percent(share)} of the multiply-adds of '{report.parent}' cannot "
            "tell what is 'none of these': it may refuse most images of its own classes.",
            hint=f"Give images with --tune, leave out --reject, or keep {percent(_LEAST_SHARE)} or more.",
        )


def join_passes(
    parts: Sequence[Part], plans: Sequence[TrunkPlan], passes: Sequence[TrunkPass], *, reject: bool
) -> ComposedClassifier:
    """The classifier of compiled passes, its labels in the order of `parts`."""
    names = [part.name for plan in plans for head in plan.heads for part in head]
    order = torch.tensor([names.index(part.name) for part in parts], dtype=torch.int64)
    return ComposedClassifier([part.name for part in parts], passes, order, reject=reject)
