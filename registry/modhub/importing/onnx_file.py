"""An ONNX file as data: nodes and constants, their sizes checked before memory is taken.

Of the file protobuf reads the messages; nothing in it is run. Weights that lie beside it are read from its
own folder only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhub.errors import IntegrityError, MissingDependencyError, NetworkImportError, ParentError
from modhub.files import confined

OPSETS = range(7, 27)
"""Versions of the ONNX operators that are read."""
MAX_NODES = 200_000
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_STORED = {
    "FLOAT": ("float_data", 4),
    "DOUBLE": ("double_data", 8),
    "FLOAT16": ("int32_data", 2),
    "BFLOAT16": ("int32_data", 2),
    "INT64": ("int64_data", 8),
    "INT32": ("int32_data", 4),
    "INT16": ("int32_data", 2),
    "INT8": ("int32_data", 1),
    "UINT8": ("int32_data", 1),
    "BOOL": ("int32_data", 1),
}
"""Number format -> where its numbers stand one by one, and bytes of each where they stand as bytes."""
_NCHW = "Export the network with images as (batch, channel, height, width)."


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operator; `name` is the file's own, or that of its first output. An input "" is left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxProgram:
    """A network of one input and one output.

    `input_shape` is (batch, channels, height, width) with None for what is open. `number` is the format of
    the images, such as FLOAT or UINT8. `constants` are by name; decimals of half the length are float32.
    """

    path: Path
    opset: int
    input: str
    input_shape: tuple[int | None, int, int | None, int | None]
    number: str
    output: str
    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_onnx(path: Path) -> OnnxProgram:
    """Raises `ParentError` for a file that is no valid ONNX model, `NetworkImportError` for one that is no
    image classifier of one input, and `MissingDependencyError`."""
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", purpose=f"The parent 'onnx:{path}'", extra="export") from None
    if not path.is_file():
        raise ParentError(f"The file '{path}' does not exist.", hint="A parent is onnx:FILE.")
    try:
        model = onnx.load(path, load_external_data=False)
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
    # The errors of protobuf and of ONNX's own library derive from nothing in common.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise ParentError(
            f"'{path}' is not a valid ONNX file ({reason}).", hint="Fetch or export it again."
        ) from None
    graph = model.graph
    opset = next(
        (imported.version for imported in model.opset_import if imported.domain in ("", "ai.onnx")), 0
    )
    if opset not in OPSETS:
        raise ParentError(
            f"'{path}' uses version {opset} of ONNX's operators; {OPSETS[0]} to {OPSETS[-1]} are read.",
            hint="Export it again with one of these as opset_version.",
        )
    if len(graph.node) > MAX_NODES or graph.sparse_initializer:
        what = "sparse weights" if graph.sparse_initializer else f"{len(graph.node):,} nodes"
        raise ParentError(f"'{path}' has {what}, which are not read.", hint="Export it again without.")
    constants = {tensor.name: _tensor(tensor, path) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for kind, values in (("inputs", inputs), ("outputs", graph.output)):
        if len(values) != 1:
            named = ", ".join(f"'{value.name}'" for value in values) or "none"
            raise NetworkImportError(
                f"'{path}' has {len(values)} {kind} ({named}); a classifier has one, "
                f"{'the images' if kind == 'inputs' else 'the logits'}.",
                hint="Export it with that one alone.",
            )
    number = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
    if number not in (*_FLOATS, "UINT8"):
        raise NetworkImportError(
            f"'{path}' takes images of type {number}, not decimals or UINT8.", hint=_NCHW
        )
    return OnnxProgram(
        path=path,
        opset=opset,
        input=inputs[0].name,
        input_shape=_input_shape(inputs[0], path),
        number=number,
        output=graph.output[0].name,
        nodes=tuple(_node(node, at, path) for at, node in enumerate(graph.node)),
        constants=constants,
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _input_shape(value: Any, path: Path) -> tuple[int | None, int, int | None, int | None]:
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
    shown = " × ".join("?" if extent is None else str(extent) for extent in dims) or "unknown shape"
    if len(dims) == 4 and dims[3] in (1, 3) and dims[1] not in (1, 3):
        raise NetworkImportError(
            f"'{path}' takes images as (batch, height, width, channel), {shown}; channels come second here.",
            hint=_NCHW,
        )
    if len(dims) != 4 or dims[1] not in (1, 3) or any(extent is not None and extent < 1 for extent in dims):
        raise NetworkImportError(
            f"'{path}' takes {shown}, not images of 1 or 3 channels (batch, channel, height, width).",
            hint=_NCHW,
        )
    batch, channels, height, width = dims
    return batch, int(channels or 0), height, width


def _node(node: Any, at: int, path: Path) -> OnnxNode:
    import onnx

    name = node.name or next(iter(node.output), "") or f"{node.op_type}_{at}"
    if node.domain not in ("", "ai.onnx"):
        raise NetworkImportError(
            f"The node '{name}' of '{path}' is the operator {node.domain}.{node.op_type}, which is not "
            "ONNX's own.",
            hint="Export the network with ONNX's own operators.",
        )
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if (
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            or attribute.ref_attr_name
        ):
            raise NetworkImportError(
                f"The node '{name}' ({node.op_type}) of '{path}' has a graph of its own, which is not read.",
                hint="Export the network without branches and loops.",
            )
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif attribute.type == onnx.AttributeProto.TENSOR:
            value = _tensor(value, path)
        attributes[attribute.name] = (
            list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        )
    return OnnxNode(name, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _tensor(tensor: Any, path: Path) -> Tensor:
    """The numbers of a message, of which there must be as many as its shape says."""
    import onnx

    number, dims = onnx.TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims)
    place = f"The constant '{tensor.name}' of '{path}'"
    if number not in _STORED:
        raise NetworkImportError(
            f"{place} is of type {number}, which is not read.", hint="Export the network as decimals."
        )
    field, width = _STORED[number]
    count = math.prod(dims)
    if any(extent < 0 for extent in dims):
        raise IntegrityError(f"{place} has the shape {list(dims)}.", hint="Export the network again.")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.raw_data = _beside(tensor, path, count * width, place)
        tensor.data_location = onnx.TensorProto.DEFAULT
    stored, wanted = (
        (len(tensor.raw_data), count * width)
        if tensor.HasField("raw_data")
        else (len(getattr(tensor, field)), count)
    )
    if stored != wanted:
        raise IntegrityError(
            f"{place} says the shape {list(dims)}, and its numbers are {stored:,} where {wanted:,} belong.",
            hint="Fetch or export the file again.",
        )
    array = onnx.numpy_helper.to_array(tensor)
    if number in ("FLOAT16", "BFLOAT16"):
        array = array.astype(np.float32)
    elif number not in (*_FLOATS, "BOOL"):
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, copy=not array.flags.writeable))


def _beside(tensor: Any, path: Path, size: int, place: str) -> bytes:
    """The bytes of a tensor in another file of the same folder, of which there must be `size`."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    file = confined(path.parent, said.get("location", "")).resolve()
    # Caches of a hub link both files to a folder of theirs.
    if not any(file.is_relative_to(folder) for folder in (path.parent.resolve(), path.resolve().parent)):
        raise IntegrityError(
            f"{place} is in '{said['location']}', which leaves the file's folder.", hint="Copy it there."
        )
    if not file.is_file():
        raise ParentError(
            f"{place} is in '{said['location']}', which is not there.",
            hint="Put the file beside the network.",
        )
    offset, length = (said.get(key, "") for key in ("offset", "length"))
    start, stated = int(offset) if offset.isdecimal() else 0, int(length) if length.isdecimal() else size
    if stated != size or start + size > file.stat().st_size:
        raise IntegrityError(
            f"{place} takes {size:,} bytes, which '{said['location']}' does not have at {start:,}.",
            hint="Fetch or export the files again.",
        )
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(size)
