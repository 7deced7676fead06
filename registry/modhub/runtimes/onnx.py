"""Run an exported classifier in ONNX Runtime. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.errors import ExportError, ManifestError, MissingDependencyError
from modhub.runtimes.geometry import Geometry

__all__ = ["METADATA_KEY", "OUTPUTS", "OnnxClassifier", "is_exported"]

METADATA_KEY = "modhub"
OUTPUTS = ("scores", "acceptance")
"""The second only for classifiers that may reject."""
Pixels = NDArray[np.uint8]


def is_exported(path: Path) -> bool:
    """Whether `path` is an exported file; False for a build. Raises `ManifestError` for anything else."""
    if path.suffix == ".onnx":
        return True
    if not path.is_dir():
        raise ManifestError(
            f"'{path}' is not a build.",
            hint="Give a directory that 'modhub compose' wrote, or an .onnx file.",
        )
    return False


class OnnxClassifier:
    """A classifier that `modhub export --format onnx` wrote.

    `labels` are in the order of the scores; `image_size` is the (height, width) of its input, `metadata` the
    rest of the file's metadata: the lock, and `false_accept` of a classifier that may reject. Raises
    `ExportError` for any other file.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError(
                "onnxruntime", purpose="Running an ONNX file", extra="export"
            ) from None
        if not path.is_file():
            raise ExportError(
                f"The file '{path}' does not exist.", hint="Write one with: modhub export DIR --format onnx"
            )
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        # ONNX Runtime's own exceptions derive from nothing in common.
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"'{path}' is not a valid ONNX file: {reason}", hint="Export the classifier again."
            ) from None
        facts = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
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
                hint="Write one with: modhub export DIR --format onnx",
            ) from None
        self.geometry = Geometry.from_dict(self.image_size, geometry)

    @property
    def reject(self) -> bool:
        """Whether it may answer "none of these"."""
        return len(self._session.get_outputs()) > 1

    def outputs(self, images: Pixels) -> dict[str, NDArray[np.float32]]:
        """(batch, channels, *image_size) uint8 to `scores` (batch, labels) and, where the classifier may
        reject, `acceptance` (batch,), below 0 for rejected images."""
        names = [output.name for output in self._session.get_outputs()]
        arrays = self._session.run(names, {self._session.get_inputs()[0].name: images})
        return {name: np.asarray(array, np.float32) for name, array in zip(names, arrays, strict=True)}

    def predict(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Scores (image, label) of images of any sizes, each uint8 (height, width, 1 or 3)."""
        return self.assess(images)[0]

    def assess(self, images: Sequence[Pixels]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores (image, label) and `acceptance` (image,), None for a classifier that never rejects."""
        if not images:
            return np.zeros((0, len(self.labels)), dtype=np.float32), None
        outputs = self.outputs(np.stack([self.geometry.fit(image, self.channels) for image in images]))
        return outputs[OUTPUTS[0]], outputs.get(OUTPUTS[1])
