"""Run an exported classifier from a PT2 or TorchScript file, in torch, on the CPU.

TorchScript is code, and a PT2 file may be made to hold some: like a Python file, such a file is opened where
its user names it, never where it was pulled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.errors import ExportError
from modhub.runtimes.exported import METADATA_KEY, OUTPUTS, SUFFIXES, ExportedClassifier, Pixels


class TorchClassifier(ExportedClassifier):
    """A classifier that `modhub export --format pt2` or `torchscript` wrote. Raises `ExportError` for any
    other file."""

    def __init__(self, path: Path) -> None:
        facts = {METADATA_KEY: ""}
        kind = "pt2" if path.suffix == SUFFIXES["pt2"] else "torchscript"
        try:
            with warnings.catch_warnings():
                # torch warns of its own deprecations.
                warnings.simplefilter("ignore")
                if kind == "pt2":
                    program = torch.export.load(path, extra_files=facts)
                    self._run: Callable[[Any], Any] = program.module()
                else:
                    self._run = torch.jit.load(str(path), _extra_files=facts)  # type: ignore[no-untyped-call]
        # Damaged files raise errors of any type.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
            raise ExportError(
                f"'{path}' is not a valid {'PT2' if kind == 'pt2' else 'TorchScript'} file: {reason}.",
                hint="Export the classifier again.",
            ) from None
        text = facts[METADATA_KEY]
        super().__init__(path, text.decode() if isinstance(text, bytes) else text, kind)

    @property
    def reject(self) -> bool:
        return "false_accept" in self.metadata

    def outputs(self, images: Pixels) -> dict[str, NDArray[np.float32]]:
        with torch.no_grad():
            answers = self._run(torch.from_numpy(images))
        arrays = [answers] if isinstance(answers, torch.Tensor) else list(answers)
        return {name: array.float().numpy() for name, array in zip(OUTPUTS, arrays, strict=False)}
