"""safetensors from anybody: nothing is believed that the file says."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from modhub.errors import IntegrityError

__all__ = ["parse_tensors"]

_HEADER_LIMIT = 64 << 20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def parse_tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """Read a safetensors file that may come from anybody.

    The header is checked against the length of `content` before any tensor is made: known types, sizes that
    follow from the shapes, offsets without gap, overlap or overrun. Raises `IntegrityError` naming `place`,
    also for a value that is not a finite number.
    """
    _check_header(content, place)
    try:
        tensors: dict[str, Tensor] = load(content)
    except Exception as error:  # safetensors raises its own class and, for some inputs, others
        raise _damaged(place, str(error)) from None
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all()):
            raise IntegrityError(
                f"The tensor '{name}' in {place} holds values that are not finite numbers.",
                hint="Decompose the parent again; its weights may have diverged.",
            )
    return tensors


def _check_header(content: bytes, place: str) -> None:
    if len(content) < 8:
        raise _damaged(place, f"it has only {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(_HEADER_LIMIT, len(content) - 8):
        raise _damaged(place, f"its header would be {length:,} bytes of {len(content):,}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _damaged(place, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(place, "its header is not an object")
    ranges = sorted(_range(name, entry, place) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for start, stop in ranges:
        if start != end:
            raise _damaged(place, "its tensors overlap or leave gaps")
        end = stop
    if end != len(content) - 8 - length:
        raise _damaged(place, f"its tensors need {end:,} bytes, and {len(content) - 8 - length:,} are there")


def _range(name: str, entry: Any, place: str) -> tuple[int, int]:
    """Where one tensor's bytes start and stop."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if (
            kind in _BYTES
            and len(shape) <= 8
            and all(type(size) is int and 0 <= size < 2**40 for size in shape)
            and 0 <= start <= stop
            and stop - start == math.prod(shape) * _BYTES[kind]
        ):
            return start, stop
    raise _damaged(place, f"the entry of tensor '{name}' makes no sense")


def _damaged(place: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{place} is not a whole safetensors file: {why}.",
        hint="Fetch or build it again; it may be truncated.",
    )
