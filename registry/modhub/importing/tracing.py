"""`torch.export` of a module for any batch size, and why it cannot be done where it cannot."""

from __future__ import annotations

import builtins
import importlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from modhub.errors import NetworkImportError


def exported(module: nn.Module, input_shape: tuple[int, int, int], name: str) -> torch.export.ExportedProgram:
    if isinstance(module, torch.jit.ScriptModule):
        raise NetworkImportError(
            f"{name} is a TorchScript module, whose operators cannot be read.",
            hint="Build the network from its Python class, and load the module's state_dict() into it.",
        )
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    example = torch.zeros(2, *input_shape, device=device, dtype=dtype)
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    try:
        with evaluating(module), _quiet(), _traceable(), torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        if kind := re.match(r"Found <class '(?:.*\.)?(\w+)'> in output", str(error)):
            raise NetworkImportError(
                f"{name} returns a {kind[1]}; a classifier returns one tensor, the logits.",
                hint=LOGITS_ALONE,
            ) from error
        raise NetworkImportError(_why(error, name, input_shape), hint=_HINT) from error


LOGITS_ALONE = "Wrap the model so that it returns its logits alone."
_HINT = "The forward should be a fixed sequence of layers on one image batch (batch, channel, height, width)."


def _why(error: Exception, name: str, input_shape: tuple[int, int, int]) -> str:
    text = f"{type(error).__name__} {error}"
    if "data-dependent" in text.lower() or "DataDependent" in text:
        return f"The forward of {name} branches on the values of a tensor, so it is no fixed network."
    if "Constraints violated" in text or "specializ" in text.lower():
        return (
            f"The forward of {name} works for one batch size only, or makes a plain number of it, as "
            "int(x.shape[0]) and a loop over the images do."
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{name} does not run on images of shape {list(input_shape)}: {first.rstrip('.')}."


@contextmanager
def _traceable() -> Iterator[None]:
    """Two idioms as `torch.export` can follow them: `len(x)`, which fixes the batch size, and torchvision's
    first `normalize`, which looks at the values of `std` where its second does not. Both answer as before."""
    length = builtins.len
    first: Any = sys.modules.get("torchvision.transforms._functional_tensor")
    builtins.len = lambda value: (
        value.shape[0] if isinstance(value, Tensor) and value.dim() else length(value)
    )
    normalize = getattr(first, "normalize", None)
    if first is not None:
        first.normalize = importlib.import_module("torchvision.transforms.v2.functional").normalize
    try:
        yield
    finally:
        builtins.len = length
        if first is not None:
            first.normalize = normalize


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each layer is in the mode in which it was."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """`torch.export` logs and warns about much that is no news to the caller."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
