"""A slim network fitted to answer as its parent: refitted layer by layer, distilled, and recalibrated."""

from __future__ import annotations

from dataclasses import replace

import torch

from modhub.composition.classifier import TrunkPass
from modhub.composition.fitting.data import FittingData
from modhub.composition.fitting.distillation import ScoredNetwork, Trainer
from modhub.composition.fitting.recalibration import recalibrate
from modhub.composition.fitting.reconstruction import refit_head, refit_network
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.rejection import follow_drift, lower_thresholds
from modhub.composition.trunk_plan import SlimTrunk, TrunkPlan
from modhub.devices import CPU
from modhub.nets import Mask, Runner, fuse_batch_norm, without_constants
from modhub.reporter import SILENT, Reporter


def fit_trunk(
    plan: TrunkPlan,
    mask: Mask,
    data: FittingData,
    *,
    seed: int,
    settings: FitSettings = DEFAULT_SETTINGS,
    reporter: Reporter = SILENT,
) -> TrunkPass:
    """The trunk of `plan` cut to `mask` and fitted to the unpruned one's answers on `data`.

    All is computed on the plan's device; what comes out is on the CPU. Calibrations are fitted again where
    the data has images for that and there are several classes or both sides of one.
    """
    trunk_pass = plan.join(_fit(plan, plan.cut(mask), data, seed, settings, reporter))
    preprocess = plan.unpruned.preprocess
    if data.calibration and (data.balanced or len(plan.parts) > 1):
        with reporter.step("recalibrate"):
            batches = data.calibration_batches(preprocess, settings.batch)
            recalibrate(trunk_pass, plan.unpruned, batches, settings)
    trunk_pass.synthetic = data.synthetic
    if plan.reject and data.synthetic:
        lower_thresholds(trunk_pass)
    if any(trunk_pass.gaussians):
        images = (
            data.calibration_batches(preprocess, settings.batch)
            if data.calibration
            else ((batch, 1.0) for batch in torch.split(data.validation, settings.batch))
        )
        follow_drift(trunk_pass, plan.unpruned, images, plan.kept_features(mask), synthetic=data.synthetic)
    return trunk_pass


def _fit(
    plan: TrunkPlan,
    slim: SlimTrunk,
    data: FittingData,
    seed: int,
    settings: FitSettings,
    reporter: Reporter,
) -> SlimTrunk:
    device, space, rows = plan.device, plan.space, plan.rows
    network = without_constants(slim.network, space, slim.mask)
    teacher = ScoredNetwork(fuse_batch_norm(plan.trunk), rows.weight, rows.bias).to(device)
    student = ScoredNetwork(network, slim.weight, slim.bias).to(device)
    images = data.refit.to(device)
    network, goal = refit_network(
        teacher.network,
        student.network,
        space,
        slim.mask,
        images,
        seed=seed,
        settings=settings,
        reporter=reporter,
    )
    matched = rows.matched.to(device)
    trainer = Trainer(
        teacher.rows(matched),
        replace(student, network=network).rows(matched),
        space,
        slim.mask,
        None if plan.statistics is None else plan.statistics.sensitivity,
        settings,
    )
    network = trainer.train(data.transfer, data.validation.to(device), reporter)
    if goal.dim() != 2:
        return replace(slim, network=network.to(CPU))
    with torch.inference_mode():
        runner = Runner(network)
        features = torch.cat([runner(batch) for batch in torch.split(images, settings.batch)]).clone()
    scores = goal @ teacher.weight.T + teacher.bias
    weight, bias = refit_head(student.weight, student.bias, scores, features, settings)
    return replace(slim, network=network.to(CPU), weight=weight.to(CPU), bias=bias.to(CPU))
