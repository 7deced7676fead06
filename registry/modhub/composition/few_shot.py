"""A few labelled images per class, spent on what the modules alone cannot know: how their worlds compare.

Two numbers per head are fitted by maximum likelihood, each pulled to what it is without data: a factor on
the temperature and an offset. Where it pays, each head also gets a gate, one weight for each of its margins:
all gates together are a linear test of which head an image is for, on the margins of all heads at once.
Whether it pays, and how strongly the gates are held to 0, is decided by cross-validated likelihood.

All of this adds the same to every class of a head. Classes of one head keep the order of their margins, so
even two images per class cannot make a parent's own classes worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.composition.classifier import ComposedClassifier, HeadAnswer
from modhub.data import ImageSet
from modhub.errors import DataError
from modhub.refs import rows_of

__all__ = ["adjust"]

_PULL = 2.0
"""Strength of the pull on factors and offsets, in images."""
_HOLDS = (100.0, 30.0, 10.0, 3.0, 1.0)
"""Strengths that are tried for the gates, on standardised margins, in images."""
_FOLDS = 5


def adjust(
    classifier: ComposedClassifier,
    images: ImageSet,
    *,
    aliases: Mapping[str, Iterable[str]] | None = None,
    per_class: int = 50,
    seed: int = 0,
) -> None:
    """Fit the heads of `classifier` in place. `aliases` are other names that images may have for a label.

    Raises `DataError` when a class has no images.
    """
    rows = rows_of(images.labels, classifier.labels, aliases)
    present = [label for label in images.labels if label in rows]
    own = images.only(present).sample(per_class, seed)
    targets = torch.tensor([rows[present[int(target)]] for target in own.targets])
    if missing := [label for row, label in enumerate(classifier.labels) if not bool((targets == row).any())]:
        raise DataError(
            f"The calibration images have none of '{missing[0]}'.",
            hint="Give a few images of every class, in a folder named as the class.",
        )
    heads = [head for each in classifier.trunk_passes for head in each.heads]
    if len(heads) < 2 and len(classifier.labels) < 2:
        return
    batches: list[list[HeadAnswer]] = []
    order: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    with torch.inference_mode():
        for pixels, indices in own.batches(64):
            order.append(indices)
            batches.append(classifier.answers(pixels))
    expected = targets[torch.from_numpy(np.concatenate(order))]
    answers = _Answers.of(
        [_joined(parts) for parts in zip(*batches, strict=True)], classifier.order, expected
    )
    numbers, gates = answers.chosen(seed) if len(heads) > 1 else (answers.fit(answers.every, None)[0], None)
    for number, head in enumerate(heads):
        head.adjustment.copy_(_adjustment(numbers[number]))
        if gates is not None:
            gate = gates[number] / answers.deviation[number]
            head.set_gate(gate)
            head.adjustment[1] -= gate @ answers.mean[number]


@dataclass(frozen=True, slots=True)
class _Answers:
    """What every head says of labelled images; `mean` and `deviation` (classes,) of its scaled margins."""

    answers: Sequence[HeadAnswer]
    mean: Sequence[Tensor]
    deviation: Sequence[Tensor]
    order: Tensor
    expected: Tensor

    @classmethod
    def of(cls, answers: Sequence[HeadAnswer], order: Tensor, expected: Tensor) -> _Answers:
        scaled = [each.head.scaled(each.margin) for each in answers]
        return cls(
            answers,
            [each.mean(0) for each in scaled],
            [each.std(0, correction=0).clamp(min=1e-4) for each in scaled],
            order,
            expected,
        )

    @property
    def every(self) -> Tensor:
        return torch.arange(len(self.expected))

    def scores(self, images: Tensor, numbers: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """(images, labels) with numbers (heads, 2) and gates (classes,), on standardised margins."""
        found = []
        for each, row, gate, mean, width in zip(
            self.answers, numbers, gates, self.mean, self.deviation, strict=True
        ):
            part = HeadAnswer(each.head, each.margin[images], each.shift[images])
            found.append(part.scores(_adjustment(row), gate / width) - (gate / width) @ mean)
        return torch.cat(found, 1)[:, self.order]

    def fit(self, images: Tensor, hold: float | None) -> tuple[Tensor, list[Tensor] | None]:
        """The numbers, and the gates held with strength `hold` (None: there are none)."""
        numbers = torch.zeros(len(self.answers), 2, requires_grad=True)
        gates = [torch.zeros(each.head.classes, requires_grad=hold is not None) for each in self.answers]
        free = [numbers, *(gates if hold is not None else [])]
        optimiser = torch.optim.LBFGS(free, max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            pull = _PULL * numbers.square().sum()
            if hold is not None:
                pull = pull + hold * sum((gate.square().sum() for gate in gates), torch.zeros(()))
            missed = F.cross_entropy(
                self.scores(images, numbers, gates), self.expected[images], reduction="sum"
            )
            value = (missed + pull) / len(images)
            torch.autograd.backward([value])
            return value

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        return numbers.detach(), None if hold is None else [gate.detach() for gate in gates]

    def chosen(self, seed: int) -> tuple[Tensor, list[Tensor] | None]:
        """Fitted to all images in the way whose cross-validated loss is least; on a tie, without gates."""
        holds = (None, *_HOLDS)
        losses = [self._left_out(hold, seed) for hold in holds]
        return self.fit(self.every, holds[int(np.argmin(losses))])

    def _left_out(self, hold: float | None, seed: int) -> float:
        """Cross-entropy of images that were left out of the fit, folds holding each class in turn."""
        place = np.zeros(len(self.expected), np.int64)
        for start in sorted(set(self.expected.tolist())):
            own = np.flatnonzero((self.expected == start).numpy())
            turns = (start + np.arange(len(own))) % _FOLDS
            place[np.random.default_rng([seed, start]).permutation(own)] = turns
        folds = torch.from_numpy(place)
        total = 0.0
        for fold in range(_FOLDS):
            inside, outside = torch.nonzero(folds != fold)[:, 0], torch.nonzero(folds == fold)[:, 0]
            if not len(inside) or not len(outside):
                continue
            numbers, gates = self.fit(inside, hold)
            with torch.no_grad():
                bare = [torch.zeros(each.head.classes) for each in self.answers]
                scores = self.scores(outside, numbers, gates or bare)
                total += float(F.cross_entropy(scores, self.expected[outside], reduction="sum"))
        return total


def _joined(parts: Sequence[HeadAnswer]) -> HeadAnswer:
    """The batches of one head as one, outside of inference mode."""
    return HeadAnswer(
        parts[0].head,
        torch.cat([part.margin for part in parts]).clone(),
        torch.cat([part.shift for part in parts]).clone(),
    )


def _adjustment(row: Tensor) -> Tensor:
    """Factor and offset from two numbers that are 0 without data."""
    return torch.stack([row[0].exp(), 3 * row[1]])
