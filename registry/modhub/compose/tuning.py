"""A slim network made to answer as its parent does: refit layer by layer, then gentle distillation.

The parent is the teacher; labels are not looked at. Distillation is undone when the slim network does not
come closer to the parent on images that were kept aside.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.compose.refit import refit_head, refit_network
from modhub.data import ImageSet, split_indices
from modhub.decompose.augment import augmented
from modhub.devices import CPU
from modhub.nets import ChannelSpace, Mask, Network, Runner, cost
from modhub.preprocessing import Preprocess
from modhub.reporter import SILENT, Reporter

__all__ = ["distilled", "even_shares", "held_apart", "room", "shares", "tuned", "tuning_images"]

_LIVE = 400 << 20
"""Bytes that one value of all images may take."""
_MOST = 600
_COPIES = 3
"""Changed copies of each image."""
_CHECKED = 1000
_CHECK_WORK = 4e10
"""Multiply-adds of the whole trunk that checking may take."""
_RATE = 4e-4
_BATCH = 32
_WORK = 1.2e12
"""Multiply-adds that distillation may take: about half a minute on two cores."""
_STEPS = (100, 1600)
"""Of distillation: the fewest and the most."""
_EPOCHS = 30


def room(trunk: Network) -> int:
    """How many images a slim network of this trunk is fitted on at most, fewer of large ones."""
    largest = max(math.prod(shape) for shape in trunk.graph.shapes.values())
    return max(10, min(_MOST, _LIVE // (4 * (1 + _COPIES) * largest)))


def shares(images: ImageSet, trunk: Network, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Those of `images` to fit a slim network on, evenly over the folders they come in, and some of the
    others to check it on, if there are others."""
    most, classes = room(trunk), max(len(images.labels), 1)
    if len(images) <= most:
        return images, None
    (fit,) = split_indices(images.targets, (max(most // classes, 1),), seed)
    rest = images.subset(np.setdiff1d(np.arange(len(images)), fit))
    return images.subset(fit), rest.sample(max(_checks(trunk) // classes, 1), seed)


def even_shares(
    images: ImageSet, said: NDArray[np.bool_], trunk: Network, seed: int
) -> tuple[ImageSet, ImageSet]:
    """The same for a network that says yes or no, where the parent has `said` (images,) which.

    A fifth of each side is kept to check on; of the others both sides are fitted on alike while there are
    enough.
    """
    kept, used = split_indices(said, (len(images), 4 * len(images)), seed)
    yes, no = used[said[used]], used[~said[used]]
    draw = np.random.default_rng(seed)
    most = room(trunk)
    half = min(max(most // 2, most - len(no)), len(yes))
    fit = np.concatenate([draw.permutation(yes)[:half], draw.permutation(no)[: most - half]])
    checked = draw.permutation(kept)[: _checks(trunk)]
    return images.subset(np.sort(fit)), images.subset(np.sort(checked))


def _checks(trunk: Network) -> int:
    return max(10, int(min(_CHECKED, _CHECK_WORK / max(cost(trunk).flops, 1))))


def tuning_images(images: ImageSet, preprocess: Preprocess, seed: int) -> Tensor:
    """All of `images`, normalised; then `_COPIES` changed copies of all of them, in the same order: with them
    the slim network stays closer to the parent on unseen images."""
    with torch.inference_mode():
        rounds: list[list[Tensor]] = [[] for _ in range(1 + _COPIES)]
        for number, (pixels, _) in enumerate(images.batches(100)):
            for copy, batches in enumerate(rounds):
                changed = augmented(pixels, (seed * 1_000_003 + number) * 10 + copy) if copy else pixels
                batches.append(preprocess(changed))
    return torch.cat([batch for batches in rounds for batch in batches]).clone()


def tuned(
    dense: Network,
    slim: Network,
    space: ChannelSpace,
    mask: Mask,
    rows: tuple[Tensor, Tensor],
    head: tuple[Tensor, Tensor],
    images: Tensor,
    *,
    seed: int,
    distil: bool,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> tuple[Network, tuple[Tensor, Tensor]]:
    """The slim network and its head, fitted to what `dense` with `rows` (rows, features) and their bias say.

    `head` is the slim network's own, on its own features. Networks have their batch-norms fused. All is
    computed on `device`; what comes in and goes out is on the CPU.
    """
    dense, slim, images = dense.to(device), slim.to(device), images.to(device)
    rows = rows[0].to(device), rows[1].to(device)
    own = head[0].to(device), head[1].to(device)
    network, goal, features = refit_network(dense, slim, space, mask, images, seed=seed, reporter=reporter)
    if features.dim() != 2:
        return network.to(CPU), head
    answers = goal @ rows[0].T + rows[1]
    if distil:
        network = distilled(network, own, images, answers, seed=seed, reporter=reporter)
        with torch.inference_mode():
            runner = Runner(network)
            features = torch.cat([runner(batch) for batch in torch.split(images, _BATCH)]).clone()
    weight, bias = refit_head(own[0], own[1], answers, features)
    return network.to(CPU), (weight.to(CPU), bias.to(CPU))


def held_apart(count: int, every: int, *, copies: bool) -> tuple[Tensor, Tensor]:
    """Indices of one image in `every` to measure on, and of those to fit on: neither it nor a copy of it.

    `copies` says that the images come from `tuning_images`.
    """
    originals = max(count // (1 + _COPIES), 1) if copies else count
    place = torch.arange(count)
    held = (place % originals) % every == 0
    return place[held & (place < originals)], place[~held]


def distilled(
    slim: Network,
    head: tuple[Tensor, Tensor],
    images: Tensor,
    answers: Tensor,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> Network:
    """Hundreds of steps of AdamW towards the parent's `answers` (images, rows), centred.

    A fifth of the originals is kept aside and judges whether the slim network came closer.
    """
    draw = torch.Generator().manual_seed(seed)
    held, used = held_apart(len(images), 5, copies=True)
    if not len(held) or not len(used):
        return slim
    goal = answers - answers.mean(1, keepdim=True)
    scale = goal.square().mean().clamp(min=1e-9)
    runner = Runner(slim).to(images.device)
    weights = {name: runner.parameter(name) for name in _trained(slim)}
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def distance(chosen: Tensor, seen: Tensor) -> Tensor:
        found = runner(seen) @ head[0].T + head[1]
        off: Tensor = (found - found.mean(1, keepdim=True) - goal[chosen]).square().mean() / scale
        return off

    def apart() -> float:
        with torch.no_grad():
            parts = [distance(part, images[part]) * len(part) for part in torch.split(held, _BATCH)]
        return float(torch.stack(parts).sum() / len(held))

    start = apart()
    for weight in weights.values():
        weight.requires_grad_(True)
    fewest, most = _STEPS[0], min(_STEPS[1], max(_STEPS[0], _EPOCHS * len(used) // _BATCH))
    steps = int(min(max(_WORK / (3 * _BATCH * max(cost(slim).flops, 1)), fewest), most))
    optimiser = torch.optim.AdamW(list(weights.values()), _RATE, weight_decay=1e-3)
    # Adam moves every weight by the rate at once, so the first steps are small ones.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.15)
    batches = (
        batch
        for _ in itertools.count()
        for batch in torch.split(used[torch.randperm(len(used), generator=draw)], _BATCH)
    )
    with reporter.step("distil", steps):
        for chosen in itertools.islice(batches, steps):
            optimiser.zero_grad()
            torch.autograd.backward([distance(chosen, images[chosen])])
            optimiser.step()
            schedule.step()
            reporter.advance()
    for weight in weights.values():
        weight.requires_grad_(False)
    if apart() >= start:
        weights = {name: torch.nn.Parameter(each, requires_grad=False) for name, each in before.items()}
    fitted = {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
    return Network(slim.graph, {**slim.tensors, **fitted})


def _trained(network: Network) -> list[str]:
    """The tensors of layers that have weights."""
    nodes = (node for node in network.graph.nodes if node.op in ("conv2d", "linear"))
    return list(dict.fromkeys(name for node in nodes for name in node.tensors.values()))
