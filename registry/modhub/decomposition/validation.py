"""What a choice of channels costs one class, seen on images held out from the fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import BY_ODDS, log_odds
from modhub.calibration.margins import margin_of
from modhub.calibration.one_against_rest import balanced_accuracy, one_against_rest_head
from modhub.data.disk_tensor import Rows
from modhub.decomposition.held_out import HeldOut
from modhub.decomposition.measurement import Answers, measurement
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.manifest import Calibration, Measurement
from modhub.nets import ChannelSpace, Network, Runner, fuse_batch_norm, head_logits
from modhub.pruning.compensation import cut
from modhub.pruning.order import PruningOrder, mask_after
from modhub.pruning.statistics import ClassStatistics
from modhub.workers import Workers

__all__ = ["Examiner", "parent_logits"]

_NEGATIVES = 200
_MEASURED = 400
"""Images of other classes that one class is measured on."""
_MOVED = 0.02
"""Share of the variance of its margins that a class may be moved by, in the square."""
_HALVINGS = 6


def parent_logits(parent: Parent, images: Rows, options: DecomposeOptions, workers: Workers) -> Tensor:
    """(images, labels) of the whole parent, on the CPU; batches are shared out among the processes."""
    runner = Runner(fuse_batch_norm(parent.trunk)).to(options.torch_device)
    found = torch.zeros(len(images), len(parent.labels))
    head = parent.head
    with torch.inference_mode():
        for number, start in enumerate(range(0, len(images), options.batch)):
            if workers.mine(number):
                part = slice(start, start + options.batch)
                features = runner(images[part].to(options.torch_device)).cpu()
                found[part] = head_logits(features, head.weight, head.bias, head.tail)
    workers.sum([found])
    return found


class Examiner:
    """Calibrates, checks and measures classes on `held`, given the parent's `logits` of it."""

    def __init__(
        self, parent: Parent, space: ChannelSpace, held: HeldOut, logits: Tensor, options: DecomposeOptions
    ) -> None:
        self.parent, self.space, self.held, self.logits, self.options = parent, space, held, logits, options
        self.calibrator = held.calibrator(parent, logits)

    def calibration(self, row: int) -> Calibration:
        """Of the class, on the images that choices look at."""
        return self.calibrator.calibration(row)

    def longest(
        self, row: int, statistics: ClassStatistics, removal: PruningOrder, calibration: Calibration
    ) -> int:
        """How long a prefix of the order can go with its loss of balanced accuracy in the budget.

        Few images cannot vouch for accuracy alone: the margins, too, may move by no more than `_MOVED`.
        """
        parent, held = self.parent, self.held
        chosen = held.examination(row, _NEGATIVES, self.options.seed)
        positive = held.targets[chosen] == row
        head, place = self._asked(row, calibration)
        whole = margin_of(self.logits[chosen], row).double()
        sure = log_odds(self.logits[chosen].double().numpy(), row, calibration) > 0
        goal = balanced_accuracy(sure, positive) - self.options.max_loss
        limit = _MOVED * float(whole.var(correction=0))
        fewest, most = 0, len(removal.slots)
        for _ in range(_HALVINGS):
            count = (fewest + most + 1) // 2
            mask = mask_after(removal, count, self.space)
            sliced = cut(parent.trunk, mask, self.space, statistics, *head)
            logits = self._logits(*sliced, held.images[chosen])
            moved = float((margin_of(logits, place).double() - whole).square().mean())
            sure = log_odds(logits.double().numpy(), place, calibration) > 0
            if moved <= limit and balanced_accuracy(sure, positive) >= goal:
                fewest = count
            else:
                most = count - 1
            if fewest >= most:
                break
        return fewest

    def _asked(self, row: int, calibration: Calibration) -> tuple[tuple[Tensor, Tensor], int]:
        """The head that the log-odds of a class hang on, and in which of its rows the class is: the whole
        one, or the class's row and the mean of the others."""
        head = self.parent.head
        if calibration.kind == BY_ODDS:
            return (head.weight, head.bias), row
        return one_against_rest_head(head.weight, head.bias, row), 0

    def measure(
        self, row: int, sliced: Network, weight: Tensor, bias: Tensor, calibration: Calibration, place: str
    ) -> Measurement | None:
        """On images no choice has seen: the class among the parent's others, and against the rest.

        `place` is the data set and split, "cifar10/train". Of very many images of other classes some are
        drawn, and count for all in the precision.
        """
        measured, share = self._measured(row)
        positive = self.held.targets[measured] == row
        if positive.all() or not positive.any():
            # None of the class was left to measure on, or nothing else.
            return None
        logits = self._logits(sliced, weight, bias, self.held.images[measured])
        dataset, _, split = place.rpartition("/")
        return measurement(
            Answers.of(logits, row, calibration),
            Answers.of(self.logits[measured], row, calibration),
            positive,
            calibration,
            dataset=dataset,
            split=split,
            share=share,
        )

    def _measured(self, row: int) -> tuple[NDArray[np.int64], float]:
        """Indices of images to measure on, and which share of all those of other classes they hold."""
        measured = np.flatnonzero(self.held.measuring)
        positive = self.held.targets[measured] == row
        others = measured[~positive]
        if len(others) <= _MEASURED:
            return measured, 1.0
        drawn = np.random.default_rng([self.options.seed, row, 1]).permutation(others)[:_MEASURED]
        return np.sort(np.concatenate([measured[positive], drawn])), _MEASURED / len(others)

    def _logits(self, trunk: Network, weight: Tensor, bias: Tensor, images: Tensor) -> Tensor:
        runner = Runner(fuse_batch_norm(trunk)).to(self.options.torch_device)
        tail = self.parent.head.tail
        with torch.inference_mode():
            found = [
                head_logits(runner(batch.to(self.options.torch_device)).cpu(), weight, bias, tail)
                for batch in torch.split(images, self.options.batch)
            ]
        return torch.cat(found)
