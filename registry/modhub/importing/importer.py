"""From any `torch.nn.Module` to a graph: `torch.export`, then one allow-listed operator per ATen operator.

What depends on weights alone (weight standardisation, layer scale reshaped) is computed here once; dropout is
gone, since the exported module is in evaluation mode, and so is a softmax or log-softmax at the end, or the
sigmoid of a single logit: what stands before it are the logits. Values are named by the layer that made them:
`layer1.0.conv1`, or `layer1.0.add` for an operator in a layer's own `forward`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from modhub.errors import ManifestError, NetworkImportError, ParentError
from modhub.importing.endings import Ended, Ending
from modhub.importing.tracing import evaluating, exported
from modhub.importing.translation import Translation
from modhub.nets.graph import Network
from modhub.nets.runner import Runner
from modhub.nets.simplify import simplify


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
    program = exported(module, input_shape, name)
    translation = Translation(module, program, input_shape)
    try:
        network = simplify(translation.network())
    except ManifestError as error:
        raise NetworkImportError(
            f"{name} cannot be data: {error.message}",
            hint=error.hint or "Try smaller images; docs/architectures.md says what can be stored.",
        ) from None
    _check_same(module, network, translation.endings.values(), name)
    return network


def _bare(module: nn.Module) -> nn.Module:
    """What `torch.compile`, weight averaging and the wrappers for several processors wrap."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
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


def _check_same(module: nn.Module, network: Network, endings: Iterable[Ending], name: str) -> None:
    """The data must be the model: two random images through both (`squeeze()` drops a batch of one)."""

    def runner() -> nn.Module:
        return Ended(Runner(network), endings)

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


def _agree(module: nn.Module, runner: nn.Module, image: Tensor, tolerance: float) -> bool:
    """Whether the answers differ by less than `tolerance` of the largest logit (or of a hundredth)."""
    first = next(module.parameters(), image)
    with evaluating(module), torch.no_grad():
        wanted = module(image.to(first.device)).double().cpu()
        answer = runner(image.to(next(runner.parameters(), image).dtype)).double()
    if wanted.shape != answer.shape:
        return False
    return float((wanted - answer).abs().max()) <= tolerance * (1e-2 + float(wanted.abs().max()))
