"""A classifier that `modhub export` wrote, in whatever runtime. Imports no torch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.errors import ExportError, ManifestError
from modhub.runtimes.geometry import Geometry

METADATA_KEY = "modhub"
OUTPUTS = ("scores", "acceptance")
"""The second only for classifiers that may reject."""
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}
"""By format."""
Pixels = NDArray[np.uint8]


def is_exported(path: Path) -> bool:
    """Whether `path` is an exported file; False for a build. Raises `ManifestError` for anything else."""
    if path.suffix in SUFFIXES.values():
        return True
    if not path.is_dir():
        raise ManifestError(
            f"'{path}' is not a build.",
            hint="Give a directory that 'modhub compose' wrote, or a file that 'modhub export' wrote.",
        )
    return False


def open_exported(path: Path) -> ExportedClassifier:
    """The classifier in a file that `modhub export` wrote. An .onnx file needs no torch. Raises `ExportError`
    for any other file, and `MissingDependencyError`."""
    format = next((name for name, suffix in SUFFIXES.items() if suffix == path.suffix), "onnx")  # noqa: A001
    if not path.is_file():
        raise ExportError(
            f"The file '{path}' does not exist.", hint=f"Write one with: modhub export DIR --format {format}"
        )
    if format == "onnx":
        from modhub.runtimes.onnx import OnnxClassifier

        return OnnxClassifier(path)
    from modhub.runtimes.torch_file import TorchClassifier

    return TorchClassifier(path)


class ExportedClassifier(ABC):
    """`labels` are in the order of the scores; `image_size` is the (height, width) of the file's input,
    `metadata` the rest of its metadata: the lock, and `false_accept` of a classifier that may reject."""

    def __init__(self, path: Path, facts: str | None, format: str) -> None:  # noqa: A002
        try:
            self.metadata: dict[str, Any] = json.loads(facts or "")
            self.labels = tuple(str(label) for label in self.metadata["labels"])
            height, width = self.metadata["image_size"]
            self.image_size = (int(height), int(width))
            self.channels = int(self.metadata["channels"])
            geometry = dict(self.metadata.get("geometry", {}))
        except (ValueError, KeyError, TypeError):
            raise ExportError(
                f"'{path}' has no labels in its metadata; modhub did not write it.",
                hint=f"Write one with: modhub export DIR --format {format}",
            ) from None
        self.geometry = Geometry.from_dict(self.image_size, geometry)

    @property
    @abstractmethod
    def reject(self) -> bool:
        """Whether it may answer "none of these"."""

    @abstractmethod
    def outputs(self, images: Pixels) -> dict[str, NDArray[np.float32]]:
        """(batch, channels, *image_size) uint8 to `scores` (batch, labels) and, where the classifier may
        reject, `acceptance` (batch,), below 0 for rejected images."""

    def predict(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Scores (image, label) of images of any sizes, each uint8 (height, width, 1 or 3)."""
        return self.assess(images)[0]

    def assess(self, images: Sequence[Pixels]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores (image, label) and `acceptance` (image,), None for a classifier that never rejects."""
        if not images:
            return np.zeros((0, len(self.labels)), dtype=np.float32), None
        outputs = self.outputs(np.stack([self.geometry.fit(image, self.channels) for image in images]))
        return outputs[OUTPUTS[0]], outputs.get(OUTPUTS[1])
