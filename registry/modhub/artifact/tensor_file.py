"""safetensors from anybody: nothing is believed that the file says."""

from __future__ import annotations

import torch
from safetensors.torch import load
from torch import Tensor

from modhub.errors import IntegrityError
from modhub.nets.tensor_header import damaged, tensor_types

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def parse_tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """Read a safetensors file that may come from anybody.

    The header is checked against the length of `content` before any tensor is made: known types, sizes that
    follow from the shapes, offsets without gap, overlap or overrun. Raises `IntegrityError` naming `place`,
    also for a value that is not a finite number.
    """
    tensor_types(content, len(content), place)
    try:
        tensors: dict[str, Tensor] = load(content)
    except Exception as error:  # safetensors raises its own class and, for some inputs, others
        raise damaged(place, str(error)) from None
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all()):
            raise IntegrityError(
                f"The tensor '{name}' in {place} holds values that are not finite numbers.",
                hint="Decompose the parent again; its weights may have diverged.",
            )
    return tensors
