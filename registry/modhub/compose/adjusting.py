"""A few labelled images per class, spent on what the modules alone cannot know: how their worlds compare.

Two numbers per head are fitted by maximum likelihood, each pulled to what it is without data: a factor on the
temperature and an offset. Classes of one head keep the order of their margins, so even two images per class
cannot make a parent's own classes worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.compose.classifier import ComposedClassifier, HeadAnswer
from modhub.data import ImageSet
from modhub.errors import DataError
from modhub.refs import slug_of

__all__ = ["adjust"]

_PULL = 2.0
"""Strength of the pull, in images."""


def adjust(classifier: ComposedClassifier, images: ImageSet, *, per_class: int = 50, seed: int = 0) -> None:
    """Fit the heads of `classifier` in place. Raises `DataError` when a class has no images."""
    known = {slug_of(label): row for row, label in enumerate(classifier.labels)}
    rows = [known.get(slug_of(label), -1) for label in images.labels]
    present = [label for label, row in zip(images.labels, rows, strict=True) if row >= 0]
    own = images.only(present).sample(per_class, seed)
    targets = torch.tensor([known[slug_of(present[int(target)])] for target in own.targets])
    if missing := [label for row, label in enumerate(classifier.labels) if not bool((targets == row).any())]:
        raise DataError(
            f"The calibration images have none of '{missing[0]}'.",
            hint="Give a few images of every class, in a folder named as the class.",
        )
    found: dict[int, list[Tensor]] = {}
    order: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    with torch.inference_mode():
        for pixels, indices in own.batches(64):
            order.append(indices)
            for number, answer in enumerate(classifier.answers(pixels)):
                found.setdefault(number, []).append(answer.margin)
    expected = targets[torch.from_numpy(np.concatenate(order))]
    heads = [head for each in classifier.trunk_passes for head in each.heads]
    answers = [HeadAnswer(head, torch.cat(found[number]).clone()) for number, head in enumerate(heads)]
    if len(classifier.labels) > 1:
        _fit(answers, classifier.order, expected)


def _fit(answers: Sequence[HeadAnswer], order: Tensor, expected: Tensor) -> None:
    logs = torch.zeros(len(answers), 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        scores = torch.cat(
            [
                each.head.scores(each.margin, _adjustment(row))
                for each, row in zip(answers, logs, strict=True)
            ],
            1,
        )[:, order]
        pull = _PULL * logs.square().sum() / len(expected)
        return F.cross_entropy(scores, expected) + pull

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        torch.autograd.backward([value])
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    for answer, row in zip(answers, logs.detach(), strict=True):
        answer.head.adjustment.copy_(_adjustment(row))


def _adjustment(row: Tensor) -> Tensor:
    """Factor and offset from two numbers that are 0 without data."""
    return torch.stack([row[0].exp(), 3 * row[1]])
