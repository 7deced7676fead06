"""Classifying image files, with a build or an exported ONNX file; for the latter torch is not imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.errors import DataError
from modhub.images import images_below, read_image
from modhub.reporter import SILENT, Reporter
from modhub.runtimes.onnx import OnnxClassifier, is_exported

__all__ = ["image_files", "predict"]

Pixels = NDArray[np.uint8]
Answer = tuple[str | None, dict[str, float]]
Answering = Callable[[list[Pixels]], list[Answer]]
_WAITING = 256 << 20
"""Bytes of pixels that wait for their batch to fill: photographs are many times larger than what is read."""


def predict(
    build: Path,
    images: Iterable[Path],
    *,
    top: int = 3,
    batch: int = 64,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Classify files and folders of files: the best `label` and the `top` probabilities, or an `error`, each.

    A file that cannot be read as an image is reported and passed over. `label` is None for "none of these".
    Where a build may say so, `false_accept` has by label which share of its parent's images of other classes
    it would accept, as measured when the module was made. `device` is auto, cpu or cuda: where a build
    runs; an .onnx file runs on the CPU.
    """
    answer, false_accept = _onnx(build) if is_exported(build) else _build(build, device)
    found: list[dict[str, Any]] = []
    waiting: list[tuple[dict[str, Any], Pixels]] = []

    def flush() -> None:
        pixels = [image for _, image in waiting]
        for (entry, _), (label, probabilities) in zip(waiting, answer(pixels), strict=True):
            ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])[:top]
            entry.update(label=label, probabilities=dict(ranked))
        waiting.clear()

    paths = list(image_files(images))
    with reporter.step("predict", len(paths)):
        for path in paths:
            entry: dict[str, Any] = {"path": str(path)}
            found.append(entry)
            try:
                waiting.append((entry, read_image(path)))
            except DataError as error:
                entry["error"] = str(error)
            if len(waiting) == batch or sum(image.nbytes for _, image in waiting) > _WAITING:
                flush()
            reporter.advance()
        if waiting:
            flush()
    return {"images": found} if false_accept is None else {"images": found, "false_accept": false_accept}


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are; folders as the images below them, by name."""
    for path in paths:
        if path.is_dir():
            below = list(images_below(path))
            if not below:
                raise DataError(f"The folder '{path}' holds no image.", hint="Name image files or a folder.")
            yield from below
        else:
            yield path


def _build(directory: Path, device: str) -> tuple[Answering, dict[str, float] | None]:
    # Only a build needs torch.
    from modhub.api.using import load
    from modhub.devices import pick_device

    classifier = load(directory).to(pick_device(device))

    def answer(images: list[Pixels]) -> list[Answer]:
        return [(one.label, _chances(one.scores)) for one in classifier.predict(images)]

    return answer, classifier.false_accept if classifier.reject else None


def _onnx(path: Path) -> tuple[Answering, dict[str, float] | None]:
    classifier = OnnxClassifier(path)

    def answer(images: list[Pixels]) -> list[Answer]:
        scores, acceptance = classifier.assess(images)
        rows = [_chances(dict(zip(classifier.labels, row, strict=True))) for row in scores.tolist()]
        best: list[str | None] = [max(row, key=lambda label: row[label]) for row in rows]
        if acceptance is not None:
            best = [
                label if accepted else None for label, accepted in zip(best, acceptance >= 0, strict=True)
            ]
        return list(zip(best, rows, strict=True))

    return answer, classifier.metadata.get("false_accept")


def _chances(scores: dict[str, float]) -> dict[str, float]:
    """Probabilities: the softmax over several labels, the sigmoid of a single one's log-odds."""
    if len(scores) == 1:
        return {label: 1 / (1 + math.exp(-max(score, -500.0))) for label, score in scores.items()}
    most = max(scores.values())
    weights = {label: math.exp(score - most) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
