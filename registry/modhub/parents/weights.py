"""A state dict from a file, and into the module it is for."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modhub.errors import ParentError
from modhub.files import sha256_of_file

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".h5")
SHOWN = 3
_POINTER = b"version https://git-lfs.github.com/spec/"
_NUMBERS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MARKED = re.compile(r"-([0-9a-f]{8,})\.\w+$")
_DEPTH = 3
"""Dictionaries within dictionaries in which a checkpoint may have its weights."""
_WRAPPERS = frozenset(("module", "model", "net", "network", "ema", "ema_model", "module_ema"))
"""What wrappers of a network call it."""


def is_pickle(path: Path) -> bool:
    """Whether a file of weights is one that torch.save writes, by its name."""
    return path.suffix.lower() in PICKLES


def is_published(path: Path, urls: Iterable[str | None]) -> bool:
    """Whether a file is one of those at `urls`, which name the start of its sha256: resnet18-f37072fd.pth."""
    marks = [mark[1] for url in urls if (mark := _MARKED.search(url or ""))]
    return bool(marks) and path.is_file() and sha256_of_file(path).startswith(tuple(marks))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The user's own weights: a safetensors file, or a checkpoint of torch.save, of which tensors alone are
    read (`torch.load` with `weights_only`). Raises `ParentError`."""
    return read_checkpoint(path) if is_pickle(path) else load_weights(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises `ParentError` for a file that is missing, a pickle, or not valid."""
    if is_pickle(path):
        raise ParentError(
            f"'{path}' is not a safetensors file; formats that can carry code are not read.",
            hint=f"Convert it where you trust it, with: modhub convert {shlex.quote(str(path))}",
        )
    _check_content(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ParentError(
            f"'{path}' is not a valid safetensors file ({error}).", hint="Fetch or save it again."
        ) from None
    return tensors


def _check_content(path: Path) -> None:
    if not path.is_file():
        raise ParentError(f"The weights file '{path}' does not exist.", hint="Check its path.")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ParentError(
                f"'{path}' is a Git LFS pointer, not the weights themselves.",
                hint="Fetch them in its repository with: git lfs pull",
            )


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The one state dict in a file of torch.save, of which tensors alone are read. Raises `ParentError`."""
    _check_content(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged pickles raise errors of any type.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise ParentError(
            f"'{path}' holds something else than tensors, or is damaged ({reason}).",
            hint="Save the weights alone, where you trust the file: torch.save(model.state_dict(), FILE).",
        ) from None
    places = _state_dicts(content, "", _DEPTH)
    # Scores, states of random numbers and weights of a loss are no network, which has matrices.
    places = {
        place: tensors
        for place, tensors in places.items()
        if any(tensor.dim() > 1 for tensor in tensors.values())
    } or places
    if len(places) != 1:
        named = ", ".join(f"'{place}'" for place in list(places)[:SHOWN])
        raise ParentError(
            f"'{path}' holds {len(places)} sets of weights ({named})."
            if places
            else f"'{path}' holds no weights.",
            hint="Save one state_dict alone: torch.save(model.state_dict(), FILE).",
        )
    (tensors,) = places.values()
    return tensors


def _state_dicts(content: Any, place: str, depth: int) -> dict[str, dict[str, Tensor]]:
    """The dictionaries of named tensors in a checkpoint, by where they are."""
    if not isinstance(content, Mapping) or depth < 0:
        return {}
    tensors = {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if any("." in key for key in tensors) or (tensors and len(tensors) == len(content)):
        return {place: tensors}
    nested = [
        _state_dicts(value, f"{place}.{key}".lstrip("."), depth - 1)
        for key, value in content.items()
        if "optim" not in str(key).lower()
    ]
    return {name: tensors for candidates in nested for name, tensors in candidates.items()}


def fitted(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under the module's own names: what wrappers put before them (`module.`, `model.`, `ema.`, …)
    or among them (`_orig_mod.`) is taken off, or put there, where all names then fit, and nowhere else."""
    wanted = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
    allowed = set(module.state_dict())
    wrappers = [""]
    while prefix := _shared_prefix([key.removeprefix(wrappers[-1]) for key in allowed]):
        wrappers.append(wrappers[-1] + prefix)
    plain = _without_marks(tensors, allowed)
    while True:
        for wrapper in wrappers:
            wrapped = {wrapper + key: tensor for key, tensor in plain.items()}
            if wanted <= wrapped.keys() <= allowed:
                return wrapped
        if not (prefix := _shared_prefix(plain)):
            return dict(tensors)
        plain = {key.removeprefix(prefix): tensor for key, tensor in plain.items()}


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without what the usual wrappers put before and among all names, for no module in particular:
    `fitted` puts back what a module has of it."""
    plain = _without_marks(tensors)
    while (prefix := _shared_prefix(plain)).rstrip(".") in _WRAPPERS:
        plain = {key.removeprefix(prefix): tensor for key, tensor in plain.items()}
    return plain


def _without_marks(tensors: Mapping[str, Tensor], allowed: Collection[str] = ()) -> dict[str, Tensor]:
    """Without the marks of `torch.compile`, and of averaged weights without over how many."""
    return {
        ".".join(part for part in key.split(".") if part != "_orig_mod"): tensor
        for key, tensor in tensors.items()
        if key.rpartition(".")[2] != "n_averaged" or key in allowed
    }


def _shared_prefix(keys: Iterable[str]) -> str:
    """`layer.` where all keys begin with it; else nothing."""
    first = {key.partition(".")[0] if "." in key else "" for key in keys}
    return f"{first.pop()}." if len(first) == 1 and "" not in first else ""


def fit_weights(module: nn.Module, tensors: Mapping[str, Tensor], place: str, name: str) -> None:
    """Load `tensors` into `module`, all of them and nothing less; `place` and `name` stand in messages.

    Batch-norm's `num_batches_tracked` may be missing: it plays no part in a trained network. Raises
    `ParentError` naming the first keys that are missing, too many, of another shape, or not finite.
    """
    wanted, tensors = module.state_dict(), fitted(module, tensors)
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
        if wanted[key].is_floating_point() and tensor.dtype not in _NUMBERS:
            raise ParentError(
                f"'{key}' in {place} is of type {str(tensor.dtype).removeprefix('torch.')}; without the "
                "scales that it was quantised by, it is no weight.",
                hint="Save the weights as decimals, before they are quantised.",
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
    tensors = fitted(module, tensors)
    heads = [key for key, tensor in module.state_dict().items() if tensor.dim() in (2, 4)]
    for key in reversed(heads):
        stored, built = tensors.get(key), module.state_dict()[key]
        if stored is not None and stored.shape[1:] == built.shape[1:] and stored.shape[0] != built.shape[0]:
            return int(stored.shape[0])
    return None


def _listed(keys: Sequence[str]) -> str:
    text = ", ".join(f"'{key}'" for key in keys[:SHOWN])
    return f"{text} and {len(keys) - SHOWN} more keys" if len(keys) > SHOWN else text
