"""`onnx:FILE`: an image classifier as an ONNX file, read as data."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modhub.errors import ParentError
from modhub.importing.onnx_file import OnnxProgram, read_onnx
from modhub.importing.onnx_network import OnnxNetwork
from modhub.manifest import InputSpec
from modhub.parents.base import ParentSource, distinct_labels, names_of

_NAMES = ("names", "labels", "classes", "class_names")
"""Keys of the metadata under which exporters keep the names of the classes."""


def onnx_parent(path: Path) -> ParentSource:
    """Nothing in the file is run but the operators on the list; how images are normalised it does not say.

    Raises `ParentError`, `NetworkImportError`, `IntegrityError` and `MissingDependencyError`.
    """
    program = read_onnx(path)
    _, channels, height, width = program.input_shape
    spec = None
    if height is not None and width is not None:
        spec = InputSpec(
            channels=channels,
            height=height,
            width=width,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            value_range=(0.0, 255.0) if program.number == "UINT8" else (0.0, 1.0),
        )
    return ParentSource(
        name=path.stem,
        architecture=f"onnx:{path.name}",
        model=OnnxNetwork(program),
        labels=_labels(program),
        input=spec,
        assumed=program.number != "UINT8",
    )


def _labels(program: OnnxProgram) -> tuple[str, ...] | None:
    """The names of the classes in the metadata: a list, or a dictionary by index, as JSON or in Python's
    form; None without them."""
    for key in _NAMES:
        text = program.metadata.get(key)
        names = None if text is None else _literal(text)
        if names:
            try:
                return distinct_labels(names_of(names, len(names)))
            except ParentError:
                continue
    return None


def _literal(text: str) -> list[Any] | Mapping[Any, Any] | None:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | dict):
            return value
    return None
