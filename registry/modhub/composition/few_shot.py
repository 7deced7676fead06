"""Few-shot calibration: a few labelled images per class say how heads of different parents compare.

Two numbers per head are fitted by maximum likelihood, each pulled to what it is without data: a factor on
the temperature and an offset. Where it pays, each head also gets a gate, one weight for each of its margins:
all gates together are a linear test of which head an image is for, on the margins of all heads at once.
Whether it pays, and how strongly the gates are pulled to 0, is decided by cross-validated likelihood.

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

from modhub.composition.classifier import ComposedClassifier, HeadOutput
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.data import ImageSet
from modhub.errors import DataError
from modhub.refs import rows_of


def calibrate_few_shot(
    classifier: ComposedClassifier,
    images: ImageSet,
    *,
    aliases: Mapping[str, Iterable[str]] | None = None,
    seed: int = 0,
    settings: FitSettings = DEFAULT_SETTINGS,
) -> None:
    """Fit the heads of `classifier` in place. `aliases` are other names that images may have for a label.

    Raises `DataError` when a class has no images.
    """
    rows = rows_of(images.labels, classifier.labels, aliases)
    present = [label for label in images.labels if label in rows]
    sample = images.only(present).sample(settings.few_shot_images, seed)
    targets = torch.tensor([rows[present[int(target)]] for target in sample.targets])
    if missing := [label for row, label in enumerate(classifier.labels) if not bool((targets == row).any())]:
        raise DataError(
            f"The calibration images have none of '{missing[0]}'.",
            hint="Give a few images of every class, in a folder named as the class.",
        )
    heads = classifier.heads
    if len(heads) < 2 and len(classifier.labels) < 2:
        return
    batches: list[list[HeadOutput]] = []
    order: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    with torch.inference_mode():
        for pixels, indices in sample.batches(64):
            order.append(indices)
            batches.append(classifier.outputs(pixels))
    expected = targets[torch.from_numpy(np.concatenate(order))]
    outputs = [_joined(of_head) for of_head in zip(*batches, strict=True)]
    likelihood = _Likelihood.of(outputs, classifier.order, expected, settings)
    if len(heads) > 1:
        numbers, gates = likelihood.fit_cross_validated(seed)
    else:
        numbers, gates = likelihood.fit(torch.arange(len(expected)), None)
    for number, head in enumerate(heads):
        head.adjustment.copy_(_adjustment(numbers[number]))
        if gates is not None:
            gate = gates[number] / likelihood.deviation[number]
            head.set_gate(gate)
            head.adjustment[1] -= gate @ likelihood.mean[number]


@dataclass(frozen=True, slots=True)
class _Likelihood:
    """Of labelled images given the outputs of every head; `mean` and `deviation` (classes,) of its scaled
    margins."""

    outputs: Sequence[HeadOutput]
    mean: Sequence[Tensor]
    deviation: Sequence[Tensor]
    order: Tensor
    expected: Tensor
    settings: FitSettings

    @classmethod
    def of(
        cls, outputs: Sequence[HeadOutput], order: Tensor, expected: Tensor, settings: FitSettings
    ) -> _Likelihood:
        scaled = [output.head.scaled(output.margin) for output in outputs]
        mean = [margin.mean(0) for margin in scaled]
        deviation = [margin.std(0, correction=0).clamp(min=1e-4) for margin in scaled]
        return cls(outputs, mean, deviation, order, expected, settings)

    def scores(self, images: Tensor, numbers: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """(images, labels) with numbers (heads, 2) and gates (classes,), on standardised margins."""
        scores = []
        for output, row, gate, mean, deviation in zip(
            self.outputs, numbers, gates, self.mean, self.deviation, strict=True
        ):
            part = HeadOutput(output.head, output.margin[images], output.shift[images])
            scores.append(part.scores(_adjustment(row), gate / deviation) - (gate / deviation) @ mean)
        return torch.cat(scores, 1).index_select(1, self.order)

    def fit(self, images: Tensor, penalty: float | None) -> tuple[Tensor, list[Tensor] | None]:
        """The numbers (heads, 2), and the gates pulled to 0 with that penalty (None: there are none)."""
        numbers = torch.zeros(len(self.outputs), 2, requires_grad=True)
        gates = [
            torch.zeros(output.head.classes, requires_grad=penalty is not None) for output in self.outputs
        ]
        free = [numbers, *(gates if penalty is not None else [])]
        optimiser = torch.optim.LBFGS(free, max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            pull = self.settings.few_shot_prior * numbers.square().sum()
            if penalty is not None:
                pull = pull + penalty * sum((gate.square().sum() for gate in gates), torch.zeros(()))
            loss = F.cross_entropy(
                self.scores(images, numbers, gates), self.expected[images], reduction="sum"
            )
            value = (loss + pull) / len(images)
            torch.autograd.backward([value])
            return value

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        return numbers.detach(), None if penalty is None else [gate.detach() for gate in gates]

    def fit_cross_validated(self, seed: int) -> tuple[Tensor, list[Tensor] | None]:
        """Fitted to all images with the penalty whose cross-validated loss is least; on a tie, without
        gates."""
        penalties = (None, *self.settings.gate_penalties)
        losses = [self._cross_validation_loss(penalty, seed) for penalty in penalties]
        return self.fit(torch.arange(len(self.expected)), penalties[int(np.argmin(losses))])

    def _cross_validation_loss(self, penalty: float | None, seed: int) -> float:
        """Cross-entropy of images that were left out of the fit, in stratified folds."""
        count = self.settings.few_shot_folds
        fold_of = np.zeros(len(self.expected), np.int64)
        for label in sorted(set(self.expected.tolist())):
            of_class = np.flatnonzero((self.expected == label).numpy())
            interleaved = (label + np.arange(len(of_class))) % count
            fold_of[np.random.default_rng([seed, label]).permutation(of_class)] = interleaved
        folds = torch.from_numpy(fold_of)
        total = 0.0
        for fold in range(count):
            inside, outside = torch.nonzero(folds != fold)[:, 0], torch.nonzero(folds == fold)[:, 0]
            if not len(inside) or not len(outside):
                continue
            numbers, gates = self.fit(inside, penalty)
            with torch.no_grad():
                none = [torch.zeros(output.head.classes) for output in self.outputs]
                scores = self.scores(outside, numbers, gates or none)
                total += float(F.cross_entropy(scores, self.expected[outside], reduction="sum"))
        return total


def _joined(parts: Sequence[HeadOutput]) -> HeadOutput:
    """The batches of one head as one, outside of inference mode."""
    return HeadOutput(
        parts[0].head,
        torch.cat([part.margin for part in parts]).clone(),
        torch.cat([part.shift for part in parts]).clone(),
    )


def _adjustment(row: Tensor) -> Tensor:
    """Factor and offset from two numbers that are 0 without data."""
    return torch.stack([row[0].exp(), 3 * row[1]])
