"""Run a classifier on labelled images and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modhub.data import ImageSet, evenly_spaced
from modhub.errors import DataError
from modhub.evaluation.metrics import Evaluation, Rejection, score, score_yes_no
from modhub.refs import rows_of
from modhub.reporter import SILENT, Reporter

_OTHERS = 2000
"""Images of other classes shown to a classifier that may reject them, or as many as there are of its classes
where these are more."""


class Classifier(Protocol):
    """Raw images (batch, 1 or 3, height, width) to scores (batch, labels)."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class Rejecting(Protocol):
    """A classifier that may answer "none of these" where `reject` is set: `assess` gives the scores and an
    acceptance (batch,), below 0 for rejected images."""

    reject: bool

    def assess(self, images: Tensor, /) -> tuple[Tensor, Tensor]: ...


def evaluate(
    classifier: Classifier,
    images: ImageSet,
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    batch: int = 250,
    device: torch.device | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Classify every image whose class is one of the classifier's labels or their `aliases`.

    A classifier with one label answers yes or no to all images.

    Case and separators are ignored (`Aquarium fish` is `aquarium_fish`) unless they distinguish classes. A
    classifier that is a `Module` is moved to `device`, if given, and gets its images there. One that may
    answer "none of these" also sees images of other classes. Images that cannot be read are passed over, with
    a warning. Raises `DataError` when no image is of any of its classes, and when more than 1 % of the images
    cannot be read.
    """
    labels = tuple(classifier.labels)
    rows = rows_of(images.labels, labels, aliases)
    targets = np.array([rows.get(label, -1) for label in images.labels], dtype=np.int64)[images.targets]
    chosen = np.flatnonzero(targets >= 0)
    if not len(chosen):
        raise DataError(
            f"'{images.name}' has no image of the classifier's classes ({', '.join(labels[:10])}).",
            hint=f"The data set's classes are: {', '.join(images.labels[:10])}.",
        )
    if device is not None and isinstance(classifier, nn.Module):
        classifier.to(device)
    run = _Runner(classifier, batch, device, reporter)
    if len(labels) == 1:
        answers = run(images, "evaluate")
        seen = images.subset(answers.images)
        evaluation = score_yes_no(
            labels[0], seen, answers.scores, targets[answers.images], answers.acceptance
        )
        return replace(evaluation, unreadable=len(images) - len(seen))
    answers = run(images.subset(chosen), "evaluate")
    unreadable = len(chosen) - len(answers.images)
    evaluation = score(labels, images, answers.scores, targets, chosen[answers.images])
    evaluation = replace(evaluation, left_out=evaluation.left_out - unreadable, unreadable=unreadable)
    if answers.acceptance is None:
        return evaluation
    others = evenly_spaced(np.flatnonzero(targets < 0), max(len(chosen), _OTHERS))
    of_others = run(images.subset(others), "evaluate other classes").acceptance
    rejection = Rejection(
        accepted=float((answers.acceptance >= 0).mean()),
        false_accept=float((of_others >= 0).mean()) if of_others is not None and len(of_others) else None,
        strangers=0 if of_others is None else len(of_others),
    )
    return replace(evaluation, rejection=rejection)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The `scores` (images, labels) of the `images` of a set that can be read, and the `acceptance` (images,)
    of a classifier that may reject."""

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    acceptance: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Runner:
    """Runs a classifier on image sets."""

    classifier: Classifier
    batch: int
    device: torch.device | None
    reporter: Reporter

    def __call__(self, images: ImageSet, step: str) -> _Answers:
        """Of those images that can be read; raises `DataError` when more than 1 % cannot."""
        every = np.arange(len(images), dtype=np.int64)
        try:
            return _Answers(every, *self._answers(images, step))
        except DataError:
            readable = images.readable(self.reporter)
            if len(readable) == len(images):
                raise
        return _Answers(readable, *self._answers(images.subset(readable), step))

    def _answers(self, images: ImageSet, step: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        classifier = self.classifier
        rejecting = classifier if isinstance(classifier, Rejecting) and classifier.reject else None
        scores = np.empty((len(images), len(classifier.labels)), dtype=np.float32)
        acceptance = np.empty(len(images), dtype=np.float32)
        with self.reporter.step(step, len(images)), torch.inference_mode():
            for pixels, indices in images.batches(self.batch):
                placed = pixels if self.device is None else pixels.to(self.device)
                if rejecting is None:
                    outputs = classifier(placed)
                else:
                    outputs, accepted = rejecting.assess(placed)
                    acceptance[indices] = accepted.float().cpu().numpy()
                scores[indices] = outputs.float().cpu().numpy()
                self.reporter.advance(len(indices))
        return scores, None if rejecting is None else acceptance
