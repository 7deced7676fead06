"""What a choice of channels costs one class, validated and measured on images held out from the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import BY_ODDS, log_odds
from modhub.calibration.margins import margin_of
from modhub.calibration.one_against_rest import balanced_accuracy, one_against_rest_head
from modhub.decomposition.held_out import HeldOut, ParentAnswers
from modhub.decomposition.measurement import Answers, measurement
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent
from modhub.manifest import Calibration, Measurement
from modhub.nets import ChannelSpace, Mask, Network, Runner, fuse_batch_norm, head_logits
from modhub.pruning.compensation import cut
from modhub.pruning.order import PruningOrder, mask_after
from modhub.pruning.statistics import ClassStatistics

_NEGATIVES = 200
"""Images of other classes that the loss of one class is validated on."""
_MEASURED = 400
"""Images of other classes that one class is measured on."""
_MOVED = 0.02
"""Share of the variance of its margins that a class may be moved by, in the square."""
_HALVINGS = 6
_FEW = 50
"""Images after which a mask that moves the margins too far may be known."""


class LossValidation:
    """Calibrates, validates and measures classes on held-out images, given the parent's answers."""

    def __init__(
        self,
        parent: Parent,
        space: ChannelSpace,
        held: HeldOut,
        answers: ParentAnswers,
        options: DecomposeOptions,
    ) -> None:
        self.parent, self.space, self.held, self.options = parent, space, held, options
        self.logits = answers.logits
        self.calibrator = answers.calibrator(held, parent.head)

    def calibration(self, row: int) -> Calibration:
        """Of the class, on the validation images."""
        return self.calibrator.calibration(row)

    def longest_prefix(
        self, row: int, statistics: ClassStatistics, order: PruningOrder, calibration: Calibration
    ) -> int:
        """How long a prefix of the order can go with its loss of balanced accuracy in the budget."""
        keeps = self.judge(row, statistics, calibration)
        fewest, most = 0, len(order.slots)
        for _ in range(_HALVINGS):
            count = (fewest + most + 1) // 2
            if keeps(mask_after(order, count, self.space)):
                fewest = count
            else:
                most = count - 1
            if fewest >= most:
                break
        return fewest

    def judge(
        self,
        row: int,
        statistics: ClassStatistics | None,
        calibration: Calibration,
        *,
        negatives: int = _NEGATIVES,
    ) -> Callable[[Mask], bool]:
        """Whether a class cut to a mask, with `statistics` made up for, loses no more balanced accuracy than
        the budget allows; beside its own images stand `negatives` of other classes.

        Few images cannot vouch for accuracy alone: the margins, too, may move by no more than `_MOVED`.
        """
        sample = self.held.sample(row, negatives, self.options.seed)
        images, positive = self.held.images[sample], self.held.targets[sample] == row
        head, place = self._head(row, calibration)
        unpruned = margin_of(self.logits[sample], row).double()
        accepted = log_odds(self.logits[sample].double().numpy(), row, calibration) > 0
        goal = balanced_accuracy(accepted, positive) - self.options.max_loss
        limit = _MOVED * float(unpruned.var(correction=0))

        def keeps(mask: Mask) -> bool:
            parts: list[Tensor] = []
            moved, most = 0.0, limit * len(images)
            for logits in self._logits(
                *cut(self.parent.trunk, mask, self.space, statistics, *head), images, _FEW
            ):
                start = sum(map(len, parts))
                parts.append(logits)
                before = unpruned[start : start + len(logits)]
                moved += float((margin_of(logits, place).double() - before).square().sum())
                if moved > most:
                    # Squares only add up: the images that are left cannot change the answer.
                    return False
            accepted = log_odds(torch.cat(parts).double().numpy(), place, calibration) > 0
            return balanced_accuracy(accepted, positive) >= goal

        return keeps

    def _head(self, row: int, calibration: Calibration) -> tuple[tuple[Tensor, Tensor], int]:
        """The head that the log-odds of a class depend on, and the class's row in it: the parent's, or the
        one-against-rest head."""
        head = self.parent.head
        if calibration.kind == BY_ODDS:
            return (head.weight, head.bias), row
        return one_against_rest_head(head.weight, head.bias, row), 0

    def measure(
        self,
        row: int,
        sliced: Network,
        weight: Tensor,
        bias: Tensor,
        calibration: Calibration,
        *,
        dataset: str,
        split: str,
    ) -> Measurement | None:
        """On test images: the class among the parent's others, and against the rest; None without images of
        both.

        Of very many images of other classes some are drawn, and count for all in the precision.
        """
        test, share = self._test_images(row)
        positive = self.held.targets[test] == row
        if positive.all() or not positive.any():
            return None
        logits = torch.cat(list(self._logits(sliced, weight, bias, self.held.images[test])))
        return measurement(
            Answers.of(logits, row, calibration),
            Answers.of(self.logits[test], row, calibration),
            positive,
            calibration,
            dataset=dataset,
            split=split,
            share=share,
        )

    def _test_images(self, row: int) -> tuple[NDArray[np.int64], float]:
        """Indices of images to measure on, and which share of all those of other classes they hold."""
        test = np.flatnonzero(self.held.test)
        positive = self.held.targets[test] == row
        others = test[~positive]
        if len(others) <= _MEASURED:
            return test, 1.0
        drawn = np.random.default_rng([self.options.seed, row, 1]).permutation(others)[:_MEASURED]
        return np.sort(np.concatenate([test[positive], drawn])), _MEASURED / len(others)

    def _logits(
        self, trunk: Network, weight: Tensor, bias: Tensor, images: Tensor, batch: int | None = None
    ) -> Iterator[Tensor]:
        """(images, labels), by batches of at most `batch`."""
        device = self.options.torch_device
        runner, tail = Runner(fuse_batch_norm(trunk)).to(device), self.parent.head.tail
        for part in torch.split(images, min(batch or self.options.batch, self.options.batch)):
            with torch.inference_mode():
                yield head_logits(runner(part.to(device)).cpu(), weight, bias, tail)
