"""The margin of a class: its logit minus the mean of the other logits.

With K logits z of sum S the margin of class c is z_c − (S − z_c) / (K − 1) = (K·z_c − S) / (K − 1).
Margins of a parent's classes rank as their logits do, and softmax(τ · z) = softmax(τ · (K − 1) / K ·
margins). All functions take numpy arrays as well as tensors, and give what they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.nets.head import Head, head_logits

Array = TypeVar("Array", Tensor, NDArray[np.float64])


def margins(logits: Array) -> Array:
    """(images, labels) of logits (images, labels)."""
    margin: Array = _margin(logits, logits.sum(1)[:, None], logits.shape[1])
    return margin


def margin_of(logits: Array, row: int) -> Array:
    """(images,) of the class in `row` of logits (images, labels)."""
    margin: Array = _margin(logits[:, row], logits.sum(1), logits.shape[1])
    return margin


def margins_of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """(images,) of each image's own class, `targets` (images,)."""
    margin: Tensor = _margin(logits.gather(1, targets[:, None])[:, 0], logits.sum(1), logits.shape[1])
    return margin


def _margin(logit: Any, total: Any, labels: int) -> Any:
    return logit - (total - logit) / max(labels - 1, 1)


def margin_temperature(temperature: float, labels: int) -> float:
    """τ of margins that says what `temperature` says of logits."""
    return temperature * max(labels - 1, 1) / (max(labels - 1, 1) + 1)


def logit_temperature(temperature: float, labels: int) -> float:
    """τ of logits that says what `temperature` says of margins."""
    return temperature * (max(labels - 1, 1) + 1) / max(labels - 1, 1)


def margin_rows(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A head (labels, features) and (labels,) whose logits are the margins of the given one."""
    stretch = len(weight) / max(len(weight) - 1, 1)
    return stretch * (weight - weight.mean(0)), stretch * (bias - bias.mean())


def margin_head(head: tuple[Tensor, Tensor], tail: Sequence[str] = ()) -> Callable[[Tensor], Tensor]:
    """Features to the margin (batch,) of one class by its one-against-rest head, weight (2, features) and
    bias (2,): the difference of its rows."""

    def margin(features: Tensor) -> Tensor:
        logits = head_logits(features, *head, tail)
        return logits[:, 0] - logits[:, 1]

    return margin


def margin_head_beside(parent: Head, weight: NDArray[np.float64], bias: float) -> tuple[Tensor, Tensor]:
    """The one-against-rest head of a class that is not the parent's, with logit z by `weight` (features,) and
    `bias` beside the parent's K logits of sum S: its margin is counted as theirs are, (K·z − S) / (K − 1)."""
    labels = len(parent.bias)
    others = max(labels - 1, 1)
    row = torch.from_numpy(weight).float() * (labels / others)
    rest = parent.weight.sum(0) / others
    biases = torch.tensor([bias * labels / others, float(parent.bias.sum()) / others])
    return torch.stack([row, rest]), biases
