"""What a model makes of its logits before it returns them: probabilities, and one number for two classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn

Ending: TypeAlias = Callable[[Tensor], Tensor]
"""What a model makes of its logits (batch, labels) before it returns them."""

_OVER_CLASSES: Mapping[str, Ending] = {
    "aten.softmax.int": lambda logits: logits.softmax(1),
    "aten.log_softmax.int": lambda logits: logits.log_softmax(1),
}
_OF_ONE_LOGIT: Mapping[str, Ending] = {
    "aten.sigmoid": torch.sigmoid,
    "aten.squeeze": torch.flatten,
    "aten.view": torch.flatten,
    "aten.reshape": torch.flatten,
    "aten.flatten": torch.flatten,
    "aten.select": torch.flatten,
}
"""What may follow a single logit, (batch, 1) or (batch,)."""


class Ended(nn.Module):
    """A network with what was taken off its end, the last first."""

    def __init__(self, network: nn.Module, endings: Iterable[Ending]) -> None:
        super().__init__()
        self.network, self.endings = network, tuple(endings)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        for ending in reversed(self.endings):
            logits = ending(logits)
        return logits


def endings_of(program: torch.export.ExportedProgram) -> Mapping[fx.Node, Ending]:
    """The nodes after the logits, the last first: a softmax over the classes, or a sigmoid of a single logit
    and what drops its dimension."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    (returned,) = output.args
    endings: dict[fx.Node, Ending] = {}
    node = returned[0] if len(returned) == 1 else None
    while isinstance(node, fx.Node) and (ending := _ending(node)) is not None:
        endings[node] = ending
        node = node.args[0]
    return endings


def _ending(node: fx.Node) -> Ending | None:
    given = node.args[0] if node.args else None
    if not isinstance(given, fx.Node) or not isinstance(given.meta.get("val"), Tensor):
        return None
    of, gives, target = given.meta["val"], node.meta["val"], str(node.target)
    if of.dim() == 2 and target in _OVER_CLASSES:
        return _OVER_CLASSES[target] if node.args[1] in (1, -1) else None
    single = of.dim() in (1, 2) and not isinstance(of.shape[0], int) and of.shape[1:] in ((), (1,))
    if single and gives.dim() in (1, 2) and gives.shape[1:] in ((), (1,)):
        return _OF_ONE_LOGIT.get(target.rpartition(".")[0])
    return None
