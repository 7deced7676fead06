"""Where the images come from that slim networks are fitted on: the caller's, or synthetic ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition.budget import Budget
from modhub.composition.fitting.data import FittingData
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.synthesis import SynthesisTarget, batch_norm_statistics
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.fitting.tuning_set import TuningSet, every_nth, images_to_classify, images_to_refit
from modhub.composition.heads import CALIBRATION_FIELDS
from modhub.composition.trunk_plan import TrunkPlan
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.files import sha256_of_bytes
from modhub.nets import fuse_batch_norm
from modhub.pruning.statistics import ClassStatistics, pooled_statistics
from modhub.reporter import SILENT, Reporter


@dataclass(frozen=True, slots=True)
class FittingSource:
    """The images of `tune`, whose labels are not looked at, or where it is None those of `synthesizer`."""

    tune: ImageSet | None
    synthesizer: ImageSynthesizer
    seed: int = 0
    settings: FitSettings = DEFAULT_SETTINGS
    reporter: Reporter = SILENT

    def data(self, plan: TrunkPlan, budget: Budget | None) -> FittingData | None:
        """What to fit a slim network of `plan` on; None for a trunk that cannot be fitted: one with position
        masks, and without images one whose modules carry no statistics. Without a budget nothing is
        synthesized."""
        if plan.has_position_masks:
            return None
        if self.tune is not None:
            return self._of_images(plan, self._tuning_set(plan, self.tune))
        if budget is None or not budget.limited:
            return None
        images = self._synthetic(plan)
        return None if images is None else self._of_synthetic(plan, images)

    def split(self, plan: TrunkPlan) -> tuple[Tensor, FittingData] | None:
        """Normalised images to measure the loss on, and what to fit on, which holds none of them; None where
        `data` is, or there are too few."""
        if plan.has_position_masks:
            return None
        if self.tune is not None:
            test, rest = self._tuning_set(plan, self.tune).split(self.settings.test_every)
            if not len(rest.images):
                return None
            most = images_to_refit(plan.trunk, self.settings)
            normalised = test.normalised(Preprocess(plan.spec), most, self.settings.batch)
            return normalised, self._of_images(plan, rest)
        images = self._synthetic(plan)
        if images is None:
            return None
        kinds = len(synthesis_targets(plan, self.settings))
        measured, fitted = every_nth(len(images), self.settings.test_every, kinds)
        return images[measured], self._of_synthetic(plan, images[fitted])

    def _of_images(self, plan: TrunkPlan, tuning: TuningSet) -> FittingData:
        with self.reporter.step("prepare images"):
            return FittingData.of_images(tuning, plan.spec, plan.trunk, self.seed, self.settings)

    def _of_synthetic(self, plan: TrunkPlan, images: Tensor) -> FittingData:
        kinds = len(synthesis_targets(plan, self.settings))
        # A class that is composed alone has a second target, for images of others.
        balanced = kinds > len(plan.parts)
        data = FittingData.of_synthetic(
            images, self.seed, kinds, calibrated=balanced or plan.reject, settings=self.settings
        )
        return replace(data, balanced=balanced)

    def _synthetic(self, plan: TrunkPlan) -> Tensor | None:
        return synthetic_images(plan, self.synthesizer, self.settings, self.reporter)

    def _tuning_set(self, plan: TrunkPlan, tune: ImageSet) -> TuningSet:
        """With the parent's answers where a class is composed alone, and synthetic images of a side that
        hardly any image is on; or where several classes are outnumbered by others of their parent."""
        alone = any(len(head) == 1 for head in plan.heads)
        if not alone and any(head.tensors.siblings is None for head in plan.unpruned.heads):
            return TuningSet(tune)
        classified = images_to_classify(tune, plan.trunk, self.seed, self.settings)
        with self.reporter.step("classify images"):
            tuning = TuningSet(classified, self._positive(plan, classified, alone))
        if not alone:
            return tuning if tuning.outnumbered(self.settings) else TuningSet(tune)
        lacking = tuning.lacking(self.settings)
        if len(plan.parts) > 1 or lacking is None:
            return tuning
        images = self._synthetic(plan)
        if images is None:
            return tuning
        wanted = plan.unpruned.decisions(images, self.settings.batch)[:, 0].bool() == lacking
        return replace(tuning, synthetic=images[wanted]) if wanted.any() else tuning

    def _positive(self, plan: TrunkPlan, images: ImageSet, alone: bool) -> NDArray[np.bool_]:
        """(images,) whether the unpruned trunk says that some class composed `alone` is there; or else
        whether the composed classes of some head are likelier than the others of its parent."""
        # Compiled before: what inference mode makes cannot be trained on.
        unpruned, positive = plan.unpruned, np.zeros(len(images), np.bool_)
        for pixels, indices in images.batches(self.settings.batch):
            with torch.inference_mode():
                for output in unpruned.outputs(pixels):
                    if output.head.classes == 1:
                        positive[indices] |= (output.log_odds()[:, 0] > 0).numpy()
                    elif not alone and output.rest is not None:
                        composed = output.head.scaled(output.margin).logsumexp(1)
                        positive[indices] |= (composed > output.rest[:, 0]).numpy()
        return positive


def synthetic_images(
    plan: TrunkPlan,
    synthesizer: ImageSynthesizer,
    settings: FitSettings = DEFAULT_SETTINGS,
    reporter: Reporter = SILENT,
) -> Tensor | None:
    """Normalised synthetic images (images, channels, height, width) of the classes of `plan`, its targets
    interleaved; None where there are no `synthesis_targets`."""
    targets = synthesis_targets(plan, settings)
    return synthesizer.images(fuse_batch_norm(plan.trunk), plan.spec, targets, reporter) if targets else None


def synthesis_targets(
    plan: TrunkPlan, settings: FitSettings = DEFAULT_SETTINGS
) -> dict[str, SynthesisTarget]:
    """What synthetic images should be like, by the content id of the modules that ask for them: a target per
    class, or one for all when they are many, or where nobody had images and only batch norms tell.

    Empty when a module carries no statistics, and then the trunk no batch norms.
    """
    statistics = plan.class_statistics()
    if statistics is None:
        seen = batch_norm_statistics(plan.trunk) if plan.unmeasured else None
        if seen is None:
            return {}
        statistics = [seen]
    ids = [part.module.manifest.trunk.sha256 + part.module.manifest.tensors.sha256 for part in plan.parts]
    together = sha256_of_bytes("".join(ids).encode())
    if len(statistics) > settings.synthesis_classes:
        return {together: SynthesisTarget(pooled_statistics(statistics))}
    heads = plan.rows.heads
    # At the parent's temperature, whatever the scale of its logits.
    heat = [head.calibration[CALIBRATION_FIELDS.index("temperature")].mean() for head in heads]
    rows = torch.cat([t * (head.rows - head.rest) for t, head in zip(heat, heads, strict=True)])
    bias = torch.cat([t * (head.row_bias - head.rest_bias) for t, head in zip(heat, heads, strict=True)])
    if len(statistics) < len(ids):
        return {together: SynthesisTarget(statistics[0], rows, bias)}
    targets = {
        sha256_of_bytes(id_.encode()): SynthesisTarget(
            of_class, rows[row : row + 1], bias[row : row + 1], _seed(part.module.label)
        )
        for row, (part, id_, of_class) in enumerate(zip(plan.parts, ids, statistics, strict=True))
    }
    siblings, sibling_bias = heads[0].siblings, heads[0].sibling_bias
    if len(ids) == 1 and siblings is not None and sibling_bias is not None:
        # A class that is told from all others must have seen some of them.
        others = SynthesisTarget(_early(statistics[0]), heat[0] * siblings, heat[0] * sibling_bias, _seed(""))
        targets[sha256_of_bytes(f"{ids[0]} others".encode())] = others
    return targets


def _seed(label: str) -> int:
    """Of a class: its module's content would differ with the scale of the logits, which changes nothing."""
    return int(sha256_of_bytes(label.encode())[:8], 16)


def _early(statistics: ClassStatistics) -> ClassStatistics:
    """Of the first half of the values: what images of any class do alike."""
    names = list(statistics.moments)[: len(statistics.moments) // 2]
    return ClassStatistics(
        {name: statistics.moments[name] for name in names},
        {name: statistics.sensitivity[name] for name in names},
    )
