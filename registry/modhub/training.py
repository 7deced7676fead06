"""A loss that makes a network modular while it is trained, for any training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from modhub.errors import MethodError

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish, nn.ELU)


@dataclass(frozen=True, slots=True)
class ModularityTerms:
    """Scalars, each the mean over the layers.

    `affinity` is 1 less the mean cosine similarity of the activations of two images of one class,
    `dispersion` that of two images of different classes, `sparsity` the mean absolute activation. A batch
    without such pairs has 0.
    """

    affinity: Tensor
    dispersion: Tensor
    sparsity: Tensor


class ModularityLoss(nn.Module):
    """The three objectives of MODA (Ngo, Hassan, Shafiq and Medvidovic, arXiv 2411.01074), as a sum to add to
    the loss of a batch:

        modularity = ModularityLoss(model)
        loss = F.cross_entropy(model(images), targets) + modularity(targets)

    Images of one class come to use the same channels, those of different classes others, and few are used:
    modules become smaller. Activations are averaged over positions: a channel counts, not where it is active.

    `layers` are names of modules as `model.named_modules()` has them, whose outputs (batch, channels, …) are
    read; None: every activation function that is a module. `affinity`, `dispersion` and `sparsity` weigh the
    terms; these defaults are ours. Activations are kept from one forward pass, in training mode and with
    gradients, to the next. The model's parameters, state and answers stay as they are; `remove()` or leaving
    a `with` block ends it.

    Raises `MethodError` for a layer that is not there, and where no layer was named and there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        affinity: float = 1.0,
        dispersion: float = 1.0,
        sparsity: float = 0.1,
    ) -> None:
        super().__init__()
        self.weights = (affinity, dispersion, sparsity)
        known = dict(model.named_modules())
        if layers is None:
            layers = [name for name, module in known.items() if isinstance(module, _ACTIVATIONS)]
        if missing := [name for name in layers if name not in known]:
            raise MethodError(
                f"The network has no layer '{missing[0]}'.",
                hint=f"It has, among others: {', '.join(list(known)[1:6])}.",
            )
        if not layers:
            raise MethodError(
                "The network has no activation function that is a module.",
                hint="Name the layers whose outputs are to be made modular.",
            )
        self._activations: list[Tensor] = []
        self._handles = [model.register_forward_pre_hook(self._forget)]
        self._handles += [known[name].register_forward_hook(self._keep) for name in layers]

    def forward(self, targets: Tensor) -> Tensor:
        """The weighted sum of `terms`."""
        terms = self.terms(targets)
        affinity, dispersion, sparsity = self.weights
        return affinity * terms.affinity + dispersion * terms.dispersion + sparsity * terms.sparsity

    def terms(self, targets: Tensor) -> ModularityTerms:
        """Of the last forward pass, whose images have the classes `targets` (batch,), integers.

        Raises `MethodError` where there was none in training mode with gradients, or it had another number of
        images.
        """
        if not self._activations:
            raise MethodError(
                "No activations were kept.",
                hint="Call the network in training mode and with gradients before this loss.",
            )
        if any(len(values) != len(targets) for values in self._activations):
            sizes = sorted({len(values) for values in self._activations})
            raise MethodError(
                f"There are {len(targets)} targets, but activations of {', '.join(map(str, sizes))} images.",
                hint="Give the targets of the batch that the network saw last.",
            )
        found = [_terms(values, targets) for values in self._activations]
        return ModularityTerms(*(torch.stack(term).mean() for term in zip(*found, strict=True)))

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._activations.clear()

    def __enter__(self) -> ModularityLoss:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _forget(self, model: nn.Module, inputs: Any) -> None:
        self._activations.clear()

    def _keep(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if layer.training and torch.is_grad_enabled():
            # In float32: squares of half precision overflow.
            values = output.float()
            self._activations.append(values.flatten(2).mean(2) if values.dim() > 2 else values)


def _terms(values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one layer's activations (batch, channels)."""
    directions = nn.functional.normalize(values, dim=1)
    upper = torch.ones(len(values), len(values), dtype=torch.bool, device=values.device).triu(1)
    same = targets[:, None] == targets
    similar, different = (directions @ directions.T)[same & upper], (directions @ directions.T)[~same & upper]
    zero = values.sum() * 0
    return (
        1 - similar.mean() if len(similar) else zero,
        different.mean() if len(different) else zero,
        values.abs().mean(),
    )
