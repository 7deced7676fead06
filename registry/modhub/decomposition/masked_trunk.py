"""A parent whose channels are weighed by a mask, and masks that are learned through it.

Masks are learned with a straight-through estimator (Y. Bengio et al. 2013, https://arxiv.org/abs/1308.3432):
a slot is kept where its score is above 0, and the gradient of what is kept moves the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from modhub.decomposition.parent import Parent
from modhub.devices import CPU
from modhub.nets import ChannelSpace, Mask, Network, Runner, fuse_batch_norm, head_logits

_START = 0.5
"""The largest score before anything is learned."""


class MaskedTrunk:
    """Every layer reads its channels multiplied by a mask over the slots of `space`.

    With zeros and ones it computes what the parent sliced by that mask does, nothing made up for.
    """

    def __init__(self, parent: Parent, space: ChannelSpace, device: torch.device = CPU) -> None:
        network = _unshared(fuse_batch_norm(parent.trunk))
        graph = network.graph
        self.runner = Runner(network).to(device)
        self.space, self.device = space, device
        self.head = replace(
            parent.head, weight=parent.head.weight.to(device), bias=parent.head.bias.to(device)
        )
        self.readers: list[tuple[str, Tensor, Tensor, Tensor]] = []
        for node in graph.nodes:
            value = node.inputs[0]
            dense = node.op == "linear" or (node.op == "conv2d" and node.attributes["groups"] == 1)
            mixed = 0 if node.op == "conv2d" else len(graph.shapes[value]) - 1
            if dense and space.axis(value) == mixed:
                key = self.runner.key_of(node.tensors["weight"])
                self.readers.append((key, self.runner.get_parameter(key), *_layout(space, value, device)))
        self.features = _layout(space, graph.output, device)

    def logits(self, images: Tensor, mask: Tensor) -> Tensor:
        """(batch, labels) of normalised images; `mask` (slots,) may ask for gradients."""
        mask = mask.to(self.device)
        masked = {
            key: weight * _of(mask, slots, zero).reshape(1, -1, *[1] * (weight.dim() - 2))
            for key, weight, slots, zero in self.readers
        }
        features = functional_call(self.runner, masked, (images.to(self.device),))
        weight = self.head.weight * _of(mask, *self.features)
        return head_logits(features, weight, self.head.bias, self.head.tail)


class MaskLearner:
    """Learns one mask: a loss of the logits plus `price` times the kept share of the slots that can be cut.

    Scores start at random, from 0 to `_START`, drawn with `seed`: else all would cross 0 in one step.
    """

    def __init__(self, trunk: MaskedTrunk, *, rate: float, price: float, seed: int) -> None:
        self.trunk, self.price = trunk, price
        space = trunk.space
        free = np.concatenate([np.full(group.size, group.cuttable) for group in space.groups] or [np.ones(0)])
        self.free = torch.from_numpy(free.astype(np.bool_))
        start = np.random.default_rng(seed).uniform(0, _START, space.slots)
        self.scores = torch.from_numpy(start).float().requires_grad_()
        self.optimiser = torch.optim.Adam([self.scores], rate)

    def step(self, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """One step of the optimiser; the logits (batch, labels) before it."""
        mask = torch.where(self.free, straight_through(self.scores), 1.0)
        logits = self.trunk.logits(images, mask)
        total = loss(logits).cpu() + self.price * mask[self.free].mean()
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return logits.detach().cpu()

    @property
    def mask(self) -> Mask:
        """(slots,) what is kept by now, closed."""
        return self.trunk.space.close((~self.free | (self.scores.detach() > 0)).numpy())

    @property
    def worth(self) -> NDArray[np.float64]:
        """(slots,) the scores from 0 on, the largest for slots that cannot go."""
        scores = self.scores.detach().double().numpy()
        worth: NDArray[np.float64] = scores - scores.min(initial=0.0)
        worth[~self.free.numpy()] = worth.max(initial=0.0)
        return worth


def straight_through(scores: Tensor) -> Tensor:
    """1 where a score is above 0, else 0; its gradient is that of the score."""
    return (scores > 0).float() + scores - scores.detach()


def target_loss(logits: Tensor, targets: Tensor, rows: list[int]) -> Tensor:
    """Cross-entropy over the wanted classes `rows` only; of a single one, of its log-odds against the rest.

    `logits` (images, labels), `targets` (images,) as labels: wanted ones, where there are several.
    """
    targets = targets.to(logits.device)
    if len(rows) > 1:
        places = torch.full((logits.shape[1],), -1, device=logits.device)
        places[rows] = torch.arange(len(rows), device=logits.device)
        return F.cross_entropy(logits[:, rows], places[targets])
    others = [row for row in range(logits.shape[1]) if row != rows[0]]
    odds = logits[:, rows[0]] - logits[:, others].logsumexp(1)
    return F.binary_cross_entropy_with_logits(odds, (targets == rows[0]).float())


def _unshared(network: Network) -> Network:
    """The network with tensors of its own for every node: two that share one may read other channels."""
    nodes, tensors = [], {}
    for node in network.graph.nodes:
        names = {role: f"{node.name}.{role}" for role in node.tensors}
        tensors.update({names[role]: network.tensors[name] for role, name in node.tensors.items()})
        nodes.append(replace(node, tensors=names))
    return Network(replace(network.graph, nodes=tuple(nodes)), tensors)


def _layout(space: ChannelSpace, value: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """(channels,) the slots of a value, and which of its channels have none."""
    slots = torch.from_numpy(space.of(value))
    return slots.clamp(min=0).to(device), (slots < 0).to(device)


def _of(mask: Tensor, slots: Tensor, zero: Tensor) -> Tensor:
    return torch.where(zero, 1.0, mask[slots])
