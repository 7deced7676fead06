"""A composed classifier as one file for another runtime: raw images in, label scores out.

A classifier that may answer "none of these" has a second output, `acceptance` (batch,), below 0 where it
does. The file contains the preprocessing, has an open batch size, and holds the labels and the lock as
metadata. Its outputs are compared with PyTorch's before it appears under its name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from modhub import __version__
from modhub.composition import ComposedClassifier
from modhub.energy import EnergyUse
from modhub.errors import ExportError, MissingDependencyError, StorageError
from modhub.files import new_file
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.runtimes.exported import METADATA_KEY, OUTPUTS, SUFFIXES
from modhub.runtimes.geometry import Geometry
from modhub.runtimes.onnx import OnnxClassifier

FORMATS = tuple(SUFFIXES)
_OPSET = 18
"""The first ONNX opset whose Resize filters against aliasing."""

Outputs: TypeAlias = Tensor | tuple[Tensor, ...]
Loaded = Callable[[Tensor], Outputs]
"""The written file, loaded in its runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(Result):
    """The written file and its check: `largest_difference` is the largest difference of an output, over
    `images` images, between the file in its runtime and the classifier in PyTorch; of outputs beyond ±1 as a
    fraction of them. `energy` is what writing and checking took, None where that was not metered."""

    path: Path
    format: str
    bytes: int
    image_size: tuple[int, int]
    images: int
    largest_difference: float
    energy: EnergyUse | None = None


class _WithAcceptance(nn.Module):
    """A classifier that may reject, with its acceptance as second output."""

    def __init__(self, classifier: ComposedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.assess(images)


def export_classifier(
    classifier: nn.Module,
    labels: Sequence[str],
    path: Path,
    *,
    format: str,  # noqa: A002  (the command line's word)
    images: Tensor,
    geometry: Geometry | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-3,
    reporter: Reporter = SILENT,
) -> ExportReport:
    """Write `classifier` to `path` and check it on `images`.

    `images` are raw ones, uint8 (batch ≥ 2, 1 or 3, height, width); height, width and the number of channels
    of the exported input are theirs, and `geometry` says how other images are made so. `metadata` (the lock,
    say) goes into the file beside the labels. Raises `ExportError` for an unknown format, when torch cannot
    write the classifier, or when a score differs by more than `tolerance`; `MissingDependencyError` when ONNX
    or its runtime is missing; `StorageError`.
    """
    if format not in FORMATS:
        raise ExportError(f"There is no export format '{format}'.", hint=f"Use one of {', '.join(FORMATS)}.")
    if len(images) < 2:
        raise ExportError("An export is checked on at least two images.", hint="Give more images.")
    metadata_of_file = {
        "labels": list(labels),
        "image_size": [int(images.shape[2]), int(images.shape[3])],
        "channels": int(images.shape[1]),
        **({} if geometry is None else {"geometry": geometry.to_dict()}),
        "modhub": __version__,
        **(metadata or {}),
    }
    if isinstance(classifier, ComposedClassifier) and classifier.reject:
        metadata_of_file["false_accept"] = classifier.false_accept
        classifier = _WithAcceptance(classifier)
    classifier = classifier.eval()
    with torch.inference_mode():
        expected = classifier(images)
    with reporter.step(f"export to {format}"), new_file(path, large=True) as scratch:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # torch warns of its own deprecations while it writes.
                warnings.simplefilter("ignore")
                loaded = _WRITERS[format](classifier, images[:2], scratch, metadata_of_file)
                outputs = loaded(images)
        except (MissingDependencyError, StorageError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            raise ExportError(
                f"The classifier cannot be written as {format}: {_first_line(error)}.",
                hint=f"Try another format: {', '.join(name for name in FORMATS if name != format)}.",
            ) from error
        difference = max(
            float(((output - reference).abs() / reference.abs().clamp(min=1)).max())
            for output, reference in zip(_as_tuple(outputs), _as_tuple(expected), strict=True)
        )
        if not difference <= tolerance:
            raise ExportError(
                f"The {format} file's scores differ from PyTorch's by {difference:.2g} (allowed: "
                f"{tolerance:g}), so it was not kept.",
                hint="Try another format, and report this classifier.",
            )
        size = scratch.stat().st_size
    return ExportReport(
        path=path,
        format=format,
        bytes=size,
        image_size=(int(images.shape[2]), int(images.shape[3])),
        images=len(images),
        largest_difference=difference,
    )


def _write_onnx(classifier: nn.Module, example: Tensor, path: Path, facts: Mapping[str, Any]) -> Loaded:
    try:
        import onnx
        import onnxruntime  # noqa: F401  (a missing package is reported before the work)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnx", purpose="ONNX export", extra="export") from None
    # Some versions of the exporter print to stdout, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            _exported(classifier, example),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS if isinstance(classifier, _WithAcceptance) else OUTPUTS[:1]),
        )
    if program is None:
        raise ExportError("torch wrote no ONNX program.")
    model = program.model_proto
    model.producer_name, model.producer_version = "modhub", __version__
    _clear_traces(model.graph)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(facts, ensure_ascii=False)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    loaded = OnnxClassifier(path)
    return lambda images: tuple(
        torch.from_numpy(output) for output in loaded.outputs(images.numpy()).values()
    )


def _clear_traces(graph: Any) -> None:
    """Drop the exporter's notes on nodes and values: stack traces, which name directories of this machine."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clear_traces(attribute.g)


def _write_pt2(classifier: nn.Module, example: Tensor, path: Path, facts: Mapping[str, Any]) -> Loaded:
    # In memory first: on a full disk torch's own writer aborts the process.
    content = io.BytesIO()
    torch.export.save(
        _exported(classifier, example),
        content,
        extra_files={METADATA_KEY: json.dumps(facts, ensure_ascii=False)},
    )
    path.write_bytes(content.getvalue())
    return torch.export.load(path).module()


def _write_torchscript(
    classifier: nn.Module, example: Tensor, path: Path, facts: Mapping[str, Any]
) -> Loaded:
    traced = torch.jit.trace(classifier, (example,))  # type: ignore[no-untyped-call]
    extra = {METADATA_KEY: json.dumps(facts, ensure_ascii=False).encode()}
    content = io.BytesIO()
    torch.jit.save(traced, content, _extra_files=extra)
    with zipfile.ZipFile(content) as saved, zipfile.ZipFile(path, "w") as kept:
        for name in saved.namelist():
            # Source locations, which name directories of this machine.
            if not name.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(name), saved.read(name))
    loaded: Loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return loaded


# Errors of the disk; other OSErrors may come from torch.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
_WRITERS: Mapping[str, Callable[[nn.Module, Tensor, Path, Mapping[str, Any]], Loaded]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
    "torchscript": _write_torchscript,
}


def _exported(classifier: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    program = torch.export.export(classifier, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _as_tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def as_raw_batch(images: Sequence[np.ndarray[Any, np.dtype[np.uint8]]], geometry: Geometry) -> Tensor:
    """Images of any sizes, uint8 (height, width, 1 or 3), as one RGB batch."""
    return torch.from_numpy(np.stack([geometry.fit(image, 3) for image in images]))
