"""Modules of a parent that nobody has images for: whole masks, rows of its head, and nothing measured.

Inside one parent they answer as its logits do, restricted to the composed classes. What only images tell is
left out: moments of the channels, the level of a margin, thresholds, every figure. The calibration is what
the parent's own softmax says, as if it were as right as it is sure.
"""

from __future__ import annotations

import math
import time

import torch

from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.artifact.tensors import ModuleTensors, TrunkTensors
from modhub.calibration.calibrator import BY_MARGIN, BY_ODDS
from modhub.calibration.margins import margin_temperature
from modhub.calibration.one_against_rest import one_against_rest_head
from modhub.decomposition.measurement import sizes_of
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, wanted_rows
from modhub.manifest import Calibration, MethodInfo
from modhub.nets import Head, channel_space, cost

WHOLE = "whole"
"""The method's name in manifests: every channel is kept."""


def without_images(parent: Parent, options: DecomposeOptions) -> Decomposition:
    """A draft for each wanted class, in the parent's order. Raises `DataError` for an unknown class."""
    started = time.perf_counter()
    head, price, space = parent.head, cost(parent.trunk), channel_space(parent.trunk)
    mask, calibration = space.full_mask(), _of_softmax(head)
    kept = torch.from_numpy(mask).to(torch.uint8)
    drafts = []
    for row in wanted_rows(parent, options):
        weight, bias = one_against_rest_head(head.weight, head.bias, row)
        tensors = ModuleTensors(mask=kept, head_weight=weight, head_bias=bias, head_tail=head.tail)
        drafts.append(
            ModuleDraft(
                label=parent.labels[row],
                tensors=tensors.to_dict(),
                calibration=calibration,
                measurement=None,
                sizes=sizes_of(mask, price, price),
            )
        )
    shared = TrunkTensors(parent_weight=head.weight, parent_bias=head.bias)
    return Decomposition(
        method=MethodInfo(name=WHOLE, parameters={"fit_images": 0}, paper=None),
        modules=tuple(drafts),
        statistics=shared.to_dict(),
        seconds=time.perf_counter() - started,
    )


def _of_softmax(head: Head) -> Calibration:
    """The log-odds of the parent's softmax, at even prior odds; without the numbers that images give."""
    classes = len(head.bias)
    numbers = {"temperature": margin_temperature(1.0, classes), "slope": 1.0}
    if head.tail or classes < 2:
        return Calibration(kind=BY_MARGIN, parameters=numbers)
    return Calibration(kind=BY_ODDS, parameters={**numbers, "intercept": math.log(classes - 1)})
