"""What a manifest records of how good a module is, beside its parent on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import log_odds
from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.manifest import Calibration, Measurement, Sizes
from modhub.nets import Cost, Mask


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said of one class, (images,) each: whether it came first of all classes, and whether a module
    alone says yes."""

    named: NDArray[np.bool_]
    accepted: NDArray[np.bool_]

    @classmethod
    def of(cls, logits: Tensor, row: int, calibration: Calibration) -> Answers:
        """Of the class in row `row` of logits (images, labels) on the CPU."""
        odds = log_odds(logits.double().numpy(), row, calibration)
        return cls(logits.argmax(1).numpy() == row, odds > 0)


def measurement(
    module: Answers,
    parent: Answers,
    positive: NDArray[np.bool_],
    calibration: Calibration,
    *,
    dataset: str,
    split: str,
    share: float = 1.0,
) -> Measurement:
    """The figures of a class on images of which those `positive` (images,) are its own, some of each kind.

    `share` says which part of all images of other classes these are: in the precision they count for all.
    """
    right = float((module.named & positive).sum())
    wrong = float((module.named & ~positive).sum()) / share
    return Measurement(
        dataset=dataset,
        split=split,
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        values={
            "recall": float(module.named[positive].mean()),
            "precision": right / (right + wrong) if right + wrong else 0.0,
            "parent_recall": float(parent.named[positive].mean()),
            "balanced_accuracy": balanced_accuracy(module.accepted, positive),
            "parent_balanced_accuracy": balanced_accuracy(parent.accepted, positive),
            "false_accept": calibration.parameters["false_accept"],
        },
    )


def sizes_of(mask: Mask, kept: Cost, whole: Cost) -> Sizes:
    """What a module keeps: the slots of `mask`, and the costs of its network and of the whole trunk."""
    return Sizes(
        kept_channels=int(mask.sum()),
        channels=len(mask),
        kept_parameters=kept.parameters,
        parameters=whole.parameters,
        flops=kept.flops,
        parent_flops=whole.flops,
    )
