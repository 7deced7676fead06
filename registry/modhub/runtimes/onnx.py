"""Run an exported classifier in ONNX Runtime. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modhub.errors import ExportError, MissingDependencyError
from modhub.runtimes.exported import METADATA_KEY, ExportedClassifier, Pixels


class OnnxClassifier(ExportedClassifier):
    """A classifier that `modhub export --format onnx` wrote. Raises `ExportError` for any other file."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError(
                "onnxruntime", purpose="Running an ONNX file", extra="export"
            ) from None
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        # ONNX Runtime's own exceptions derive from nothing in common.
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"'{path}' is not a valid ONNX file: {reason}", hint="Export the classifier again."
            ) from None
        super().__init__(path, self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), "onnx")

    @property
    def reject(self) -> bool:
        return len(self._session.get_outputs()) > 1

    def outputs(self, images: Pixels) -> dict[str, NDArray[np.float32]]:
        names = [output.name for output in self._session.get_outputs()]
        arrays = self._session.run(names, {self._session.get_inputs()[0].name: images})
        return {name: np.asarray(array, np.float32) for name, array in zip(names, arrays, strict=True)}
