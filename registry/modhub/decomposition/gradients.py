"""How much the logit of a class hangs on each channel, by gradients of weights or of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition.held_out import normalised
from modhub.decomposition.workbench import Workbench
from modhub.nets import Runner, fuse_batch_norm, head_logits
from modhub.pruning.statistics import observed_values

Scores = NDArray[np.float64]


def weight_scores(bench: Workbench) -> dict[int, Scores]:
    """By wanted row (slots,): the sum of |w · mean ∂logit/∂w| over the weights that make a channel."""

    def of_class(row: int, runner: Runner) -> Scores:
        space, graph = bench.space, runner.network.graph
        made = {
            node.name: runner.parameter(node.tensors["weight"])
            for node in graph.nodes
            if node.op in ("conv2d", "linear")
            and space.axis(node.name) == (0 if node.op == "conv2d" else len(graph.shapes[node.name]) - 1)
        }
        weights = {name: weight.requires_grad_() for name, weight in made.items()}
        sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for batch in _batches(bench, row):
            found = torch.autograd.grad(_logit(bench, runner(batch), row), list(weights.values()))
            for name, gradient in zip(weights, found, strict=True):
                sums[name] += gradient
        scores = np.zeros(space.slots)
        for name, total in sums.items():
            each = (weights[name] * total).abs().flatten(1).sum(1) / len(bench.images_of(row))
            slots = space.of(name)
            there = slots >= 0
            np.add.at(scores, slots[there], each.detach().double().cpu().numpy()[there])
        return scores

    return _of_classes(bench, of_class)


def activation_scores(bench: Workbench) -> dict[int, Scores]:
    """By wanted row (slots,): the mean over images of |Σ a · ∂logit/∂a| over the positions of a channel, for
    every value that a layer reads, summed over these."""

    def of_class(row: int, runner: Runner) -> Scores:
        space, graph = bench.space, runner.network.graph
        values = observed_values(bench.parent.trunk.graph, space)
        wanted = list(dict.fromkeys((*values, graph.output)))
        scores = np.zeros(space.slots)
        count = len(bench.images_of(row))
        for batch in _batches(bench, row):
            observed = runner.observe(batch.requires_grad_(), wanted)
            logit = _logit(bench, observed[graph.output], row)
            slopes = torch.autograd.grad(logit, [observed[name] for name in values])
            for name, slope in zip(values, slopes, strict=True):
                product = (observed[name].detach() * slope).movedim(1 + space.axis(name), 1)
                each = product.reshape(*product.shape[:2], -1).sum(2).abs().double().sum(0).cpu().numpy()
                slots = space.of(name)
                there = slots >= 0
                np.add.at(scores, slots[there], each[there] / count)
        return scores

    return _of_classes(bench, of_class)


def _of_classes(bench: Workbench, of_class: Callable[[int, Runner], Scores]) -> dict[int, Scores]:
    def observed(_: ImageSet) -> dict[int, Scores]:
        runner = Runner(fuse_batch_norm(bench.parent.trunk)).to(bench.options.torch_device)
        rows = bench.reporter.track(bench.rows, "follow gradients", len(bench.rows))
        return {row: of_class(row, runner) for row in rows}

    return bench.reading(observed)


def _batches(bench: Workbench, row: int) -> Iterator[Tensor]:
    images, options = bench.images_of(row), bench.options
    for batch in normalised(images, Preprocess(bench.parent.input), options.batch):
        yield batch.to(options.torch_device)


def _logit(bench: Workbench, features: Tensor, row: int) -> Tensor:
    """The logit of the class, summed over the images."""
    head = bench.parent.head
    device = features.device
    logits = head_logits(features, head.weight.to(device), head.bias.to(device), head.tail)
    return logits[:, row].sum()
