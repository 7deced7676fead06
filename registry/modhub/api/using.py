"""Running composed classifiers: load, evaluate, export."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhub.api.composing import build_manifests
from modhub.composition import ComposedClassifier
from modhub.data import ImageSet, open_data
from modhub.devices import pick_device, torch_defaults
from modhub.errors import ExportError
from modhub.evaluation.comparison import compare
from modhub.evaluation.evaluate import Classifier
from modhub.evaluation.evaluate import evaluate as count
from modhub.evaluation.metrics import Evaluation
from modhub.project.lock import LOCK_NAME, Lock
from modhub.reporter import SILENT, Reporter
from modhub.runtimes.export import SUFFIXES, as_raw_batch, export_classifier, natural_size
from modhub.runtimes.onnx import OnnxClassifier, is_exported

__all__ = ["evaluate", "evaluate_build", "export", "load"]


def load(directory: Path | str) -> ComposedClassifier:
    """What `modhub compose` or `ComposedClassifier.save` wrote. Raises `ManifestError`, `IntegrityError`."""
    return ComposedClassifier.load(Path(directory))


def evaluate(
    classifier: Classifier | Path | str,
    data: ImageSet | str,
    *,
    split: str = "test",
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Measure a classifier, or a build by its directory or .onnx file, on the images of its classes.

    A build's classes also answer to what their modules are called in their repositories, and to aliases; an
    .onnx file does not know the latter. `device` is auto, cpu or cuda: where a build runs; a classifier runs
    where it is, an .onnx file on the CPU.
    """
    images = open_data(data, split)
    if not isinstance(classifier, Path | str):
        return count(classifier, images, reporter=reporter)
    directory = Path(classifier)
    if is_exported(directory):
        exported = _Exported(OnnxClassifier(directory))
        return count(exported, images, aliases=exported.aliases, reporter=reporter)
    loaded = load(directory)
    manifests = build_manifests(directory)
    aliases = {
        label: (manifest.label, *manifest.aliases)
        for label, manifest in zip(loaded.labels, manifests, strict=False)
    }
    return count(loaded, images, aliases=aliases, device=pick_device(device), reporter=reporter)


class _Exported:
    """An exported classifier that takes tensors, as `modhub.evaluate` asks it."""

    def __init__(self, classifier: OnnxClassifier) -> None:
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


def evaluate_build(
    build: Path,
    data: str,
    *,
    split: str = "test",
    before: Path | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """`evaluate` for JSON; `change` says what got better or worse against `before`, another build."""
    images = open_data(data, split)
    after = evaluate(build, images, device=device, reporter=reporter)
    report = after.to_dict()
    if before is not None:
        report["change"] = compare(
            evaluate(before, images, device=device, reporter=reporter), after
        ).to_dict()
    return report


@torch_defaults()
def export(
    classifier: ComposedClassifier | Path | str,
    target: Path | str | None = None,
    *,
    format: str = "onnx",  # noqa: A002 - the command line's word
    data: str | None = None,
    image_size: int | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Write a classifier, or a build by its directory, as one file, checked against PyTorch on images.

    `target` is by default the build's name with the format's suffix, beside it; a classifier in memory needs
    one, and is left as it is, on its device. Only a build's file carries its lock. `data` are the images
    (None: noise), `image_size` is the side in pixels of what the file takes (None: what the trunks can use).

    Raises `ExportError`, also for a classifier in memory without a `target`, `ManifestError`,
    `IntegrityError`, `DataError`, `StorageError` and `MissingDependencyError`.
    """
    lock: Path | None = None
    if isinstance(classifier, Path | str):
        build = Path(classifier)
        lock, target = build / LOCK_NAME, target or build.with_name(build.name + SUFFIXES.get(format, ""))
        classifier = load(build)
    elif not target:
        raise ExportError(
            "A classifier in memory has no name that its file could bear.",
            hint='Say where to: modhub.export(classifier, "pets.onnx").',
        )
    else:
        # What is exported is switched to answering, on the CPU: the caller's own stays as it is.
        classifier = copy.deepcopy(classifier).cpu()
    specs = [each.spec for each in classifier.trunk_passes]
    size = natural_size(specs) if image_size is None else (image_size, image_size)
    if data is None:
        dice = np.random.default_rng(0)
        pictures = [dice.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(4)]
    else:
        images = open_data(data, "test")
        chosen = np.linspace(0, len(images) - 1, min(16, len(images))).astype(int)
        pictures = images.images(int(index) for index in chosen)
    report = export_classifier(
        classifier,
        classifier.labels,
        Path(target),
        format=format,
        images=as_raw_batch(pictures, size),
        metadata={"lock": lock.read_text(encoding="utf-8")} if lock is not None and lock.is_file() else None,
        reporter=reporter,
    )
    return report.to_dict()
