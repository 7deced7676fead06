"""The header of a safetensors file from anybody: nothing is believed that it says. Needs no torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from modhub.errors import IntegrityError

TensorTypes = dict[str, tuple[str, tuple[int, ...]]]
"""Of each tensor by name the type, as torch calls it, and the shape."""
_HEADER_LIMIT = 64 << 20
_TYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


def read_tensor_types(path: Path, place: str) -> TensorTypes:
    """`tensor_types` of a file, of which only the header is read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        head += stream.read(min(length, _HEADER_LIMIT, size))
    return tensor_types(head, size, place)


def tensor_types(head: bytes, size: int, place: str) -> TensorTypes:
    """The tensors of a file of `size` bytes that begins with `head`, its header at least.

    Checked are known types, sizes that follow from the shapes, offsets without gap, overlap or overrun.
    Raises `IntegrityError` naming `place`.
    """
    if size < 8:
        raise damaged(place, f"it has only {size} bytes")
    length = int.from_bytes(head[:8], "little")
    if length > min(_HEADER_LIMIT, size - 8):
        raise damaged(place, f"its header would be {length:,} bytes of {size:,}")
    try:
        header = json.loads(head[8 : 8 + length])
    except (ValueError, RecursionError):
        raise damaged(place, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise damaged(place, "its header is not an object")
    header.pop("__metadata__", None)
    types: TensorTypes = {}
    ranges = []
    for name, entry in header.items():
        kind, shape, start, stop = _entry(name, entry, place)
        types[name] = (kind, shape)
        ranges.append((start, stop))
    end = 0
    for start, stop in sorted(ranges):
        if start != end:
            raise damaged(place, "its tensors overlap or leave gaps")
        end = stop
    if end != size - 8 - length:
        raise damaged(place, f"its tensors need {end:,} bytes, and {size - 8 - length:,} are there")
    return types


def _entry(name: str, entry: Any, place: str) -> tuple[str, tuple[int, ...], int, int]:
    """One tensor's type, shape, and where its bytes start and stop."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if (
            kind in _TYPES
            and len(shape) <= 8
            and all(type(size) is int and 0 <= size < 2**40 for size in shape)
            and 0 <= start <= stop
            and stop - start == math.prod(shape) * _TYPES[kind][1]
        ):
            return _TYPES[kind][0], tuple(shape), start, stop
    raise damaged(place, f"the entry of tensor '{name}' makes no sense")


def damaged(place: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{place} is not a whole safetensors file: {why}.",
        hint="Fetch or build it again; it may be truncated.",
    )
