"""Measure classifiers on labelled images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modhub.api.builds import build_manifests, manifest_paths
from modhub.api.load import load
from modhub.catalog.measurements import remember_measurements
from modhub.data import ImageSet, open_data
from modhub.devices import CPU, pick_device
from modhub.energy import Meter
from modhub.errors import ExportError
from modhub.evaluation.comparison import Comparison, compare
from modhub.evaluation.evaluate import Classifier
from modhub.evaluation.evaluate import evaluate as measure
from modhub.evaluation.metrics import Evaluation
from modhub.files import sha256_of_file
from modhub.manifest import Measurement
from modhub.project.lock import Lock
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.runtimes.exported import ExportedClassifier, is_exported, open_exported


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EvaluationReport(Result):
    """An evaluation, and how it differs from that of an earlier build; None: it was compared with none."""

    evaluation: Evaluation
    change: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """The evaluation's document, with `change` where there is one."""
        changed = {} if self.change is None else {"change": self.change.to_dict()}
        return {**self.evaluation.to_dict(), **changed}


def evaluate(
    classifier: Classifier | Path | str,
    data: ImageSet | str,
    *,
    split: str = "test",
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Measure a classifier, a build by its directory, or a file of `export`, on the images of its classes.

    A build's classes also answer to what their modules are called in their repositories, and to aliases; a
    file does not know the latter. What was measured of a build's modules is kept for `search` and `info`.
    `device` is auto, cpu or cuda: where a build runs; a classifier runs where it is, a file on the CPU. The
    evaluation's `energy` is what reading the images and answering took.
    """
    place = CPU
    with Meter() as meter:
        images = open_data(data, split)
        if not isinstance(classifier, Path | str):
            if isinstance(classifier, nn.Module):
                place = next((weights.device for weights in classifier.parameters()), CPU)
            evaluation = measure(classifier, images, reporter=reporter)
        elif is_exported(Path(classifier)):
            exported = _Exported(open_exported(Path(classifier)))
            evaluation = measure(exported, images, aliases=exported.aliases, reporter=reporter)
        else:
            place = pick_device(device)
            evaluation = _of_build(Path(classifier), images, place, reporter)
    return replace(evaluation, energy=meter.use(device=place.type))


def _of_build(directory: Path, images: ImageSet, device: torch.device, reporter: Reporter) -> Evaluation:
    loaded = load(directory)
    manifests = build_manifests(directory)
    aliases = {
        label: (manifest.label, *manifest.aliases)
        for label, manifest in zip(loaded.labels, manifests, strict=False)
    }
    evaluation = measure(loaded, images, aliases=aliases, device=device, reporter=reporter)
    remember_measurements(
        {
            sha256_of_file(path): measurement
            for path, label in zip(manifest_paths(directory), loaded.labels, strict=False)
            if (measurement := _measurement(evaluation, label)) is not None
        },
        reporter,
    )
    return evaluation


def _measurement(evaluation: Evaluation, label: str) -> Measurement | None:
    """What an evaluation says of one class among those of the build."""
    score, yes_no = evaluation.per_class[label], evaluation.yes_no
    if score.recall is None:
        return None
    values = {"recall": score.recall}
    if score.precision is not None:
        values["precision"] = score.precision
    if yes_no is not None:
        values["balanced_accuracy"] = yes_no.balanced_accuracy
    return Measurement(
        dataset=evaluation.dataset,
        split=evaluation.split,
        positives=score.count,
        negatives=evaluation.count - score.count,
        values=values,
    )


def evaluate_against(
    before: Classifier | Path | str | None,
    classifier: Classifier | Path | str,
    data: ImageSet | str,
    *,
    split: str = "test",
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> EvaluationReport:
    """`evaluate`, and the change against `before` on the same images; None: no comparison."""
    images = open_data(data, split)
    after = evaluate(classifier, images, device=device, reporter=reporter)
    if before is None:
        return EvaluationReport(evaluation=after, change=None)
    earlier = evaluate(before, images, device=device, reporter=reporter)
    return EvaluationReport(evaluation=after, change=compare(earlier, after))


class _Exported:
    """An exported classifier that takes tensors, as `modhub.evaluate` asks it."""

    def __init__(self, classifier: ExportedClassifier) -> None:
        self.classifier = classifier
        self.labels = classifier.labels
        self.reject = classifier.reject

    def __call__(self, images: Tensor) -> Tensor:
        return self._assess(images)[0]

    def assess(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores, acceptance = self._assess(images)
        if acceptance is None:
            raise ExportError("This exported file never says none of these.")
        return scores, acceptance

    def _assess(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        scores, acceptance = self.classifier.assess(list(images.permute(0, 2, 3, 1).numpy()))
        return torch.from_numpy(scores), None if acceptance is None else torch.from_numpy(acceptance)

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """What its modules are called in their repositories, where the file carries a lock."""
        text = self.classifier.metadata.get("lock")
        if not isinstance(text, str):
            return {}
        lock = Lock.from_bytes(text.encode(), "the exported file's lock", hint="Export it again.")
        return {module.want.label: (module.module,) for module in lock.modules}
