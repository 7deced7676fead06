"""Two small classifiers trained on real digits in seconds, decomposed once per test session."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.artifact.modules import ModuleSet
from modhub.data import ImageSet, open_data
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.importing import import_module
from modhub.manifest import InputSpec

_EPOCHS = 16
INPUT = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.35,))


class DigitNet(nn.Module):
    """conv-bn-relu, one residual block, average over halves, linear; (batch, 1, 8, 8) to (batch, classes)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 24, 3, 2, 1)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.head(F.relu(self.conv3(x)).mean((2, 3)))
        return out


def digits(labels: str, split: str = "train") -> ImageSet:
    return open_data("digits", split).only(list(labels))


@cache
def digit_parent(labels: str = "012345", width: int = 12, seed: int = 0) -> Parent:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return trained_parent(DigitNet(len(labels), width), labels, f"digits-{labels}-{width}")


def trained_parent(model: nn.Module, labels: str, name: str) -> Parent:
    """`model`, which gives one logit for each of `labels`, trained on their digits."""
    images = digits(labels)
    pixels, order = next(images.batches(len(images)))
    targets = torch.from_numpy(images.targets[order])
    inputs = Preprocess(INPUT)(pixels)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.01)
    # The rate falls to nothing: the last steps of a high one end at another network on every processor.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _EPOCHS)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimiser.step()
        schedule.step()
    return Parent.of(
        import_module(model.eval(), (1, 8, 8)),
        name=name,
        architecture="digit-net",
        labels=tuple(labels),
        input=INPUT,
        license="MIT",
        dataset="digits",
    )


OPTIONS = DecomposeOptions(images_per_class=50, calibration_images=30)


@cache
def digit_modules(labels: str = "012345", width: int = 12, seed: int = 0) -> ModuleSet:
    parent = digit_parent(labels, width, seed)
    return assemble(parent, decompose(parent, digits(labels), options=OPTIONS))


def pixels_of(images: ImageSet) -> tuple[Tensor, np.ndarray]:
    found, order = next(images.batches(len(images)))
    return found, images.targets[order]
