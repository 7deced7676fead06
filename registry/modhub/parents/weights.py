"""A state dict from a safetensors file, and into the module it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modhub.errors import ParentError

__all__ = ["class_count", "fit_weights", "load_weights"]

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".h5")
SHOWN = 3


def load_weights(path: Path) -> dict[str, Tensor]:
    """Raises `ParentError` for a file that is missing, a pickle, or not valid."""
    if path.suffix.lower() in PICKLES:
        raise ParentError(
            f"'{path}' is not a safetensors file; formats that can carry code are not read.",
            hint="Convert it where you trust it, with safetensors.torch.save_file(model.state_dict(), FILE).",
        )
    if not path.is_file():
        raise ParentError(f"The weights file '{path}' does not exist.", hint="Check --weights.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ParentError(
            f"'{path}' is not a valid safetensors file ({error}).", hint="Fetch or save it again."
        ) from None
    if tensors and all(key.startswith("module.") for key in tensors):
        # Saved from a DataParallel wrapper.
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def fit_weights(module: nn.Module, tensors: Mapping[str, Tensor], place: str, name: str) -> None:
    """Load `tensors` into `module`, all of them and nothing less; `place` and `name` stand in messages.

    Batch-norm's `num_batches_tracked` may be missing: it plays no part in a trained network. Raises
    `ParentError` naming the first keys that are missing, too many, of another shape, or not finite.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    if missing:
        raise ParentError(
            f"{place} lacks {_listed(missing)}, which {name} needs.",
            hint="Check that the weights are those of this architecture.",
        )
    if extra := [key for key in tensors if key not in wanted]:
        raise ParentError(
            f"{place} has {_listed(extra)}, for which {name} has no place.",
            hint="Check that the weights are those of this architecture.",
        )
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise ParentError(
                f"'{key}' in {place} has the shape {list(tensor.shape)}; {name} needs "
                f"{list(wanted[key].shape)}.",
                hint="Check that the weights are those of this architecture.",
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ParentError(
                f"'{key}' in {place} holds values that are not finite numbers.",
                hint="Load weights from a training run that did not diverge.",
            )
    module.load_state_dict(dict(tensors), strict=False)


def class_count(module: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """How many classes weights for another head size have, read from the last weight matrix of `module`.

    None when the file lacks it, or when it has as many rows as the module already.
    """
    heads = [key for key, tensor in module.state_dict().items() if tensor.dim() in (2, 4)]
    for key in reversed(heads):
        given, built = tensors.get(key), module.state_dict()[key]
        if given is not None and given.shape[1:] == built.shape[1:] and given.shape[0] != built.shape[0]:
            return int(given.shape[0])
    return None


def _listed(keys: Sequence[str]) -> str:
    text = ", ".join(f"'{key}'" for key in keys[:SHOWN])
    return f"{text} and {len(keys) - SHOWN} more keys" if len(keys) > SHOWN else text
