"""What a frozen trunk makes of a data set, computed once and kept: the ground that several heads share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modhub.data.preprocessing import Preprocess
from modhub.nets import Runner
from world import World

__all__ = ["features", "linear_head"]


def features(
    world: World, name: str, dataset: str, split: str, per_class: int | None = None
) -> tuple[Tensor, Tensor]:
    """Features (images, features) on the trunk of parent `name`, and targets: of every image of a split,
    or of `per_class` images of each class, drawn with seed 0."""
    images = world.images(dataset, split)
    place = split if per_class is None else f"{split}-{per_class}"
    if per_class is not None:
        images = images.sample(per_class, 0)
    path: Path = world.out / "features" / f"{name}-{dataset}-{place}.npy"
    if not path.exists():
        parent = world.parent(name)
        runner, preprocess = Runner(parent.trunk), Preprocess(parent.input)
        with torch.inference_mode():
            found = [runner(preprocess(pixels)).numpy() for pixels, _ in images.batches(250)]
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part.npy")
        np.save(scratch, np.concatenate(found))
        scratch.replace(path)
    return torch.from_numpy(np.load(path)), torch.from_numpy(images.targets)


def linear_head(
    values: Tensor, targets: Tensor, classes: int, *, decay: float = 1e-4, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (classes, features) and bias (classes,) of multinomial logistic regression, to convergence.

    Features are standardised for the fit and the row weights folded back; `decay` is the L2 penalty on the
    standardised weights, `weights` (images,) how much each image counts. There is nothing random in it.
    """
    mean, deviation = values.mean(0), values.std(0).clamp(min=1e-6)
    scaled = (values - mean) / deviation
    share = torch.ones(len(values)) if weights is None else weights
    share = share / share.sum()
    rows = torch.zeros(classes, values.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([rows], max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = scaled @ rows[:, :-1].T + rows[:, -1]
        lost = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        value = (share * lost).sum() + decay * rows[:, :-1].square().sum()
        torch.autograd.backward([value])
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    weight = rows.detach()[:, :-1] / deviation
    return weight, rows.detach()[:, -1] - weight @ mean
