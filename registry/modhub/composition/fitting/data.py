"""What a slim network is fitted on: images to refit layers on, to distil on, to validate and to recalibrate.

The parent is the teacher; labels are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import PLAIN_WEIGHT
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.transfer_set import (
    ImageTransferSet,
    MixedTransferSet,
    SyntheticTransferSet,
    TransferSet,
)
from modhub.composition.fitting.tuning_set import TuningSet, every_nth, images_to_refit, normalised
from modhub.data import ImageSet, evenly_spaced, split_indices
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess
from modhub.manifest import InputSpec
from modhub.nets import Network, cost
from modhub.pruning.depth import evenly


@dataclass(frozen=True, slots=True)
class FittingData:
    """Images in disjoint roles, but that those which validate are also refitted on.

    `refit` and `validation` (images, channels, height, width) are normalised: layers are refitted on the
    first, and the second, which `transfer` does not hold, validate distillation. `calibration` was not fitted
    on at all; empty where there were too few images. `balanced` says that images of the composed classes and
    of other classes were taken alike.
    """

    refit: Tensor
    transfer: TransferSet
    validation: Tensor
    calibration: tuple[ImageSet | Tensor, ...] = ()
    balanced: bool = False

    def calibration_batches(self, preprocess: Preprocess, batch: int) -> Iterator[tuple[Tensor, float]]:
        """Batches to recalibrate on, normalised, and the weight of each of their images.

        Augmented copies of real images have a quarter of the weight, as in every calibration: of plain
        training images a parent is far surer than it will be.
        """
        for images in self.calibration:
            if isinstance(images, Tensor):
                for part in torch.split(images, batch):
                    yield part, 1.0
                continue
            for number, (pixels, _) in enumerate(images.batches(batch)):
                yield preprocess(pixels), PLAIN_WEIGHT
                yield preprocess(augmented(pixels, number)), 1 - PLAIN_WEIGHT

    @property
    def synthetic(self) -> bool:
        """Whether no image of it is real."""
        return isinstance(self.transfer, SyntheticTransferSet)

    def joined(self, more: FittingData) -> FittingData:
        """All of both; a batch to distil on is half of the one and half of the other."""
        return FittingData(
            torch.cat([self.refit, more.refit]),
            MixedTransferSet(self.transfer, more.transfer),
            torch.cat([self.validation, more.validation]),
            (*self.calibration, *more.calibration),
            balanced=True,
        )

    def for_trial(self, most: int) -> FittingData:
        """At most `most` of the images to refit on, and none to distil on."""
        images = evenly(self.refit, most)
        return FittingData(images, SyntheticTransferSet(images[:0], 0), self.validation)

    @classmethod
    def of_images(
        cls,
        tuning: TuningSet,
        spec: InputSpec,
        trunk: Network,
        seed: int,
        settings: FitSettings = DEFAULT_SETTINGS,
    ) -> FittingData:
        """From real images; where the parent's answers are known, of both sides alike."""
        images, lacking = tuning.images, tuning.lacking(settings)
        roles = _Roles.of(tuning, trunk, seed, settings)
        validation = _validation(len(roles.refit), settings)
        learned = ~np.isin(roles.used, roles.refit[validation])
        preprocess = Preprocess(spec)
        refit = images.subset(roles.refit)
        plain = normalised(refit, preprocess, settings.batch)
        copies = [
            normalised(refit, preprocess, settings.batch, seed=seed * 10 + copy)
            for copy in range(1, 1 + settings.refit_copies)
        ]
        chances = None if roles.chances is None else roles.chances[learned] / roles.chances[learned].sum()
        data = cls(
            torch.cat([plain, *copies]),
            ImageTransferSet(images.subset(roles.used[learned]), preprocess, seed, chances, settings),
            plain[torch.from_numpy(validation)],
            (images.subset(roles.calibration),) if len(roles.calibration) else (),
            balanced=tuning.positive is not None and lacking is None,
        )
        if tuning.synthetic is None:
            return data
        return data.joined(cls.of_synthetic(tuning.synthetic, seed, calibrated=True, settings=settings))

    @classmethod
    def of_synthetic(
        cls,
        images: Tensor,
        seed: int,
        kinds: int = 1,
        *,
        calibrated: bool = False,
        settings: FitSettings = DEFAULT_SETTINGS,
    ) -> FittingData:
        """From normalised synthetic images, of so many interleaved `kinds`; where the network is to be
        `calibrated`, some are kept for that."""
        calibration: tuple[Tensor, ...] = ()
        if calibrated:
            kept, used = every_nth(len(images), settings.calibration_every, kinds)
            images, calibration = images[used], (images[kept],)
        validation = torch.from_numpy(_validation(len(images), settings, kinds))
        learned = torch.ones(len(images), dtype=torch.bool)
        learned[validation] = False
        transfer = SyntheticTransferSet(images[learned], seed, settings)
        return cls(images, transfer, images[validation], calibration)


@dataclass(frozen=True, slots=True)
class _Roles:
    """Indices of images: those that are `used` to fit on, those of them that layers are refitted on, and
    those that are kept to recalibrate on. `chances` (used,) say how often each is drawn to distil on."""

    used: NDArray[np.int64]
    refit: NDArray[np.int64]
    calibration: NDArray[np.int64]
    chances: NDArray[np.float64] | None

    @classmethod
    def of(cls, tuning: TuningSet, trunk: Network, seed: int, settings: FitSettings) -> _Roles:
        images, positive, every = tuning.images, tuning.positive, settings.calibration_every
        most, everything = images_to_refit(trunk, settings), np.arange(len(images))
        chances = None
        if positive is not None:
            kept, used = split_indices(positive, (len(images), (every - 1) * len(images)), seed)
            refit, chances = _balanced(used, positive, most, seed)
            if tuning.lacking(settings) is not None:
                # The few that the parent errs about are not worth as much as all others together.
                chances = None
        elif len(images) <= most:
            kept, used = np.zeros(0, np.int64), everything
            refit = used
        else:
            (refit,) = split_indices(images.targets, (max(most // max(len(images.labels), 1), 1),), seed)
            kept = evenly_spaced(np.setdiff1d(everything, refit), len(images) // every)
            used = np.setdiff1d(everything, kept)
        affordable = min(settings.calibration_images, settings.calibration_work / max(cost(trunk).flops, 1))
        return cls(used, refit, evenly_spaced(kept, max(10, int(affordable))), chances)


def _balanced(
    used: NDArray[np.int64], positive: NDArray[np.bool_], most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most `most` of `used` to refit on, as many positive as negative ones while there are enough; and how
    often each of `used` should be drawn, (used,), so that both sides are drawn alike."""
    yes, no = used[positive[used]], used[~positive[used]]
    draw = np.random.default_rng(seed)
    half = min(max(most // 2, most - len(no)), len(yes))
    refit = np.concatenate([draw.permutation(yes)[:half], draw.permutation(no)[: most - half]])
    chances = np.where(positive[used], 1 / max(len(yes), 1), 1 / max(len(no), 1))
    return np.sort(refit), chances


def _validation(count: int, settings: FitSettings, kinds: int = 1) -> NDArray[np.int64]:
    """Indices of those of `count` images that validate distillation."""
    indices = every_nth(count, settings.validation_every, kinds)[0] if count > 1 else np.zeros(0, np.int64)
    return evenly_spaced(indices, settings.validation_images)
