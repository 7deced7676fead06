"""A slim network made to answer as its parent does: refit layer by layer, then gentle distillation.

The parent is the teacher; labels are not looked at. Distillation keeps a fifth of the images aside and is
undone when the slim network does not come closer to the parent on them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modhub.compose.refit import refit_head, refit_network
from modhub.data import ImageSet
from modhub.decompose.augment import augmented
from modhub.nets import ChannelSpace, Graph, Mask, Network, Runner
from modhub.preprocessing import Preprocess
from modhub.reporter import SILENT, Reporter

__all__ = ["distilled", "held_apart", "tuned", "tuning_images"]

_LIVE = 400 << 20
"""Bytes that one value of all images may take."""
_MOST = 600
_RATE = 3e-4
_STEPS = 200
_BATCH = 50


def tuning_images(images: ImageSet, preprocess: Preprocess, graph: Graph, seed: int) -> Tensor:
    """At most `_MOST` normalised images, evenly over the folders they come in, fewer of large ones, each
    followed somewhere by a changed copy: with them a refit stays closer to the parent on unseen images."""
    largest = max(_numbers(shape) for shape in graph.shapes.values())
    most = max(10, min(_MOST, _LIVE // (8 * largest)))
    if len(images) > most:
        images = images.sample(max(most // max(len(images.labels), 1), 1), seed)
    with torch.inference_mode():
        plain, changed = [], []
        for number, (pixels, _) in enumerate(images.batches(100)):
            plain.append(preprocess(pixels))
            changed.append(preprocess(augmented(pixels, seed * 1_000_003 + number)))
    return torch.cat(plain + changed).clone()


def _numbers(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


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
    reporter: Reporter = SILENT,
) -> tuple[Network, tuple[Tensor, Tensor]]:
    """The slim network and its head, fitted to what `dense` with `rows` (rows, features) and their bias say.

    `head` is the slim network's own, on its own features. Networks have their batch-norms fused.
    """
    network, goal, features = refit_network(dense, slim, space, mask, images, seed=seed, reporter=reporter)
    if features.dim() != 2:
        return network, head
    answers = goal @ rows[0].T + rows[1]
    if distil:
        network = distilled(network, head, images, answers, seed=seed, reporter=reporter)
        with torch.inference_mode():
            runner = Runner(network)
            features = torch.cat([runner(batch) for batch in torch.split(images, _BATCH)]).clone()
    return network, refit_head(head[0], head[1], answers, features)


def held_apart(count: int, every: int) -> tuple[Tensor, Tensor]:
    """Indices of one image in `every` to measure on, and of those to fit on: neither it nor its copy."""
    half = max(count // 2, 1)
    place = torch.arange(count)
    held = (place % half) % every == 0
    return place[held & (place < half)], place[~held]


def distilled(
    slim: Network,
    head: tuple[Tensor, Tensor],
    images: Tensor,
    answers: Tensor,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> Network:
    """A few hundred steps of Adam towards the parent's `answers` (images, rows), centred."""
    draw = torch.Generator().manual_seed(seed)
    held, used = held_apart(len(images), 5)
    if not len(held) or not len(used):
        return slim
    goal = answers - answers.mean(1, keepdim=True)
    scale = goal.square().mean().clamp(min=1e-9)
    runner = Runner(slim)
    weights = {name: runner.get_parameter(key) for name, key in _keys(slim).items()}
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
    optimiser = torch.optim.Adam(list(weights.values()), _RATE)
    steps = max(10, min(_STEPS, 10 * len(used) // _BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    with reporter.step("distil", steps):
        for step in range(steps):
            if step % max(1, len(used) // _BATCH) == 0:
                used = used[torch.randperm(len(used), generator=draw)]
            place = (step * _BATCH) % max(1, len(used) - _BATCH + 1)
            chosen = used[place : place + _BATCH]
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


def _keys(network: Network) -> dict[str, str]:
    """Tensor name -> name of the runner's parameter, for the layers that are trained."""
    places = {name: f"tensor_{number}" for number, name in enumerate(sorted(network.tensors))}
    found = {}
    for node in network.graph.nodes:
        if node.op in ("conv2d", "linear"):
            found.update({name: places[name] for name in node.tensors.values()})
    return found
