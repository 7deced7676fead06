"""From any `torch.nn.Module` to a graph: `torch.export`, then one allow-listed operator per ATen operator.

What depends on weights alone (weight standardisation, layer scale reshaped) is computed here once; dropout is
gone, since the exported module is in evaluation mode, and so is a softmax or log-softmax at the end: what
stands before it are the logits. Values are named by the layer that made them: `layer1.0.conv1`, or
`layer1.0.add` for an operator in a layer's own `forward`.
"""

from __future__ import annotations

import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, nn

from modhub.errors import ManifestError, NetworkImportError, ParentError
from modhub.nets.graph import Network
from modhub.nets.runner import Runner
from modhub.nets.simplify import simplify
from modhub.nets.translation import LOGITS_ALONE, Ending, Translation

__all__ = ["import_module"]


def import_module(module: nn.Module, input_shape: tuple[int, int, int], *, name: str = "") -> Network:
    """The network of `module` for images of `input_shape` (channels, height, width), as data.

    The module is in evaluation mode for as long as this takes, and is not changed. `name` stands in messages.

    Raises `UnsupportedOperatorError` for an operator outside the allow-list, `ParentError` for weights that
    are not finite, and `NetworkImportError` for everything else that stands in the way: a forward that
    branches on its data, an output that is not one tensor.
    """
    module = _bare(module)
    name = name or type(module).__name__
    _check_weights(module, name)
    program = _exported(module, input_shape, name)
    translation = Translation(module, program, input_shape)
    try:
        network = simplify(translation.network())
    except ManifestError as error:
        raise NetworkImportError(
            f"{name} cannot be data: {error.message}",
            hint=error.hint or "Try smaller images; docs/architectures.md says what can be stored.",
        ) from None
    _check_same(module, network, translation.ending, name)
    return network


def _bare(module: nn.Module) -> nn.Module:
    """What `torch.compile` and the wrappers for several processors wrap."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _check_weights(module: nn.Module, name: str) -> None:
    for key, tensor in module.state_dict().items():
        # Quantised layers keep other things there, too.
        if not isinstance(tensor, Tensor):
            continue
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            raise ParentError(f"The weight '{key}' of {name} has no data.", hint="Load its weights first.")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ParentError(
                f"The weight '{key}' of {name} holds {count:,} values that are not finite numbers.",
                hint="Load weights from a training run that did not diverge.",
            )


def _check_same(module: nn.Module, network: Network, ending: Ending, name: str) -> None:
    """The data must be the model: two random images through both."""

    def runner() -> nn.Module:
        return _Ended(Runner(network), ending)

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, *network.graph.input_shape, generator=generator)
    first = next(module.parameters(), image)
    if first.dtype in (torch.float32, torch.float64):
        # Some networks amplify rounding; what is left in double precision is no rounding.
        same = _agree(module, runner(), image.to(first.dtype), 1e-4) or _agree(
            copy.deepcopy(module).double(), runner().double(), image.double(), 1e-6
        )
    else:
        # Half-precision parents are stored as float32, so their own rounding is allowed for.
        same = _agree(module, runner(), image.to(first.dtype), 3e-2)
    if not same:
        raise NetworkImportError(
            f"{name} as data answers otherwise than the model on a random image.",
            hint="A layer that changes its input in place or draws random numbers does this; rewrite it.",
        )


class _Ended(nn.Module):
    """A network with what was taken off its end."""

    def __init__(self, runner: Runner, ending: Ending) -> None:
        super().__init__()
        self.runner, self.ending = runner, ending

    def forward(self, images: Tensor) -> Tensor:
        return self.ending(self.runner(images))


def _agree(module: nn.Module, runner: nn.Module, image: Tensor, tolerance: float) -> bool:
    """Whether the answers differ by less than `tolerance` of the largest logit (or of a hundredth)."""
    first = next(module.parameters(), image)
    with _evaluating(module), torch.no_grad():
        wanted = module(image.to(first.device)).double().cpu()
        answer = runner(image.to(next(runner.parameters(), image).dtype)).double()
    if wanted.shape != answer.shape:
        return False
    return float((wanted - answer).abs().max()) <= tolerance * (1e-2 + float(wanted.abs().max()))


def _exported(
    module: nn.Module, input_shape: tuple[int, int, int], name: str
) -> torch.export.ExportedProgram:
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    example = torch.zeros(2, *input_shape, device=device, dtype=dtype)
    try:
        with _evaluating(module), _quiet(), torch.no_grad():
            batch = torch.export.Dim("batch", min=1, max=1 << 20)
            return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        if kind := re.match(r"Found <class '(?:.*\.)?(\w+)'> in output", str(error)):
            raise NetworkImportError(
                f"{name} returns a {kind[1]}; a classifier returns one tensor, the logits.",
                hint=LOGITS_ALONE,
            ) from error
        raise NetworkImportError(_why(error, name, input_shape), hint=_HINT) from error


_HINT = "The forward should be a fixed sequence of layers on one image batch (batch, channel, height, width)."


def _why(error: Exception, name: str, input_shape: tuple[int, int, int]) -> str:
    text = f"{type(error).__name__} {error}"
    if "data-dependent" in text.lower() or "DataDependent" in text:
        return f"The forward of {name} branches on the data it sees, so it is no fixed network."
    if "Constraints violated" in text or "specializ" in text.lower():
        return f"The forward of {name} works for one batch size only."
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{name} does not run on images of shape {list(input_shape)}: {first.rstrip('.')}."


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each layer is in the mode in which it was."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


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
