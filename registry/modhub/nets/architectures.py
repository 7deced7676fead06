"""Networks that modhub can build by name: `modhub:resnet20` and the like.

The CIFAR ResNets are those of He et al. 2015, "Deep residual learning for image recognition", section 4.2:
depth 6n+2, 16-32-64 channels, option A shortcuts (every second position, zero-padded channels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _CifarBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.padding = (channels_out - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1 or self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """(batch, 3, 32, 32) -> (batch, classes); `depth` is 6n+2."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)

        def stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
            rest = [_CifarBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)]
            return nn.Sequential(_CifarBlock(channels_in, channels_out, stride), *rest)

        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


class Conv3(nn.Module):
    """Three conv, batch-norm, relu layers on (batch, 3, 32, 32), less a mean image kept in `input_mean`."""

    input_mean: Tensor

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.zeros(3, 32, 32))
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 1, 1), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, 2, 1), nn.BatchNorm2d(128)
        self.fc = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x - self.input_mean)))
        x = F.relu(self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x))))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class DigitsPlain(nn.Module):
    """The demo's first network: three convolutions, a pool and a hidden layer, on (batch, 1, 8, 8)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv2, self.bn2 = nn.Conv2d(24, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48)
        self.hidden = nn.Linear(48 * 4, 64)
        self.output = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.conv3(F.max_pool2d(x, 2))))
        x = F.relu(self.hidden(F.max_pool2d(x, 2).flatten(1)))
        out: Tensor = self.output(x)
        return out


class _DigitsBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class DigitsResidual(nn.Module):
    """The demo's second network: two residual blocks and an average pool, on (batch, 1, 8, 8)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.block1 = _DigitsBlock(24, 32, 1)
        self.block2 = _DigitsBlock(32, 64, 2)
        self.output = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(F.relu(self.bn(self.stem(x)))))
        out: Tensor = self.output(x.mean((2, 3)))
        return out


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network by name: how to build it for a number of classes, what it reads, and where its head is."""

    build: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]
    classes: int
    head: str
    """State-dict key of the head's weight, (classes, features)."""


def _cifar(depth: int) -> Architecture:
    return Architecture(lambda classes: CifarResNet(depth, classes), (3, 32, 32), 10, "linear.weight")


ARCHITECTURES: Mapping[str, Architecture] = {
    **{f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
    "conv3": Architecture(Conv3, (3, 32, 32), 100, "fc.weight"),
    "digits-plain": Architecture(DigitsPlain, (1, 8, 8), 10, "output.weight"),
    "digits-residual": Architecture(DigitsResidual, (1, 8, 8), 10, "output.weight"),
}
"""The NAME of `modhub:NAME`."""
