"""Train the parents of the paper's protocol that nobody ships: resumable, after every epoch.

    python benchmarks/train_parents.py --data D --out W [--only C100-R32] [--epochs 60] [--device auto]

D is that of paper.py; W gets NAME.safetensors, in which `paper.py --weights` finds it. The last epoch's
weights stay, and nothing is chosen on test images. Interrupted, the same command goes on after its last
whole epoch.

CIFAR-100 ResNet-32 and -56 are those of `modhub:resnet32` and `modhub:resnet56`. The ResNets without
batch-norm, as the paper has them, are `train_parents.py:plain20`, `plain32` and `plain56`: the second
convolution of each block starts at zero, so that they learn at all (Zhang, Dauphin and Ma, Fixup, 2019,
without its scales). `train_parents.py:compact` is a small transformer for CIFAR: three convolutions make 64
tokens of an image (Xiao et al. 2021, arXiv 2106.14881), their mean is classified (Hassani et al. 2021, arXiv
2104.05704).
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.data import as_batch
from modhub.devices import pick_device
from modhub.nets.architectures import ARCHITECTURES
from training import Recipe, train, trained
from world import PARENTS, World

__all__ = ["CompactTransformer", "PlainResNet", "compact", "plain20", "plain32", "plain56"]


class PlainBlock(nn.Module):
    """conv-relu-conv beside an option A shortcut, without batch-norm."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv2.weight)
        self.stride, self.padding = stride, (channels_out - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.stride != 1 or self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


class PlainResNet(nn.Module):
    """(batch, 3, 32, 32) -> (batch, classes); `depth` is 6n+2. The ResNet for CIFAR without batch-norm."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        count, widths = (depth - 2) // 6, (16, 32, 64)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        blocks, before = [], 16
        for stage, width in enumerate(widths):
            for number in range(count):
                blocks.append(PlainBlock(before, width, 2 if stage and not number else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.blocks(F.relu(self.conv1(x))).mean((2, 3)))
        return out


def plain20(classes: int = 10) -> nn.Module:
    return PlainResNet(20, classes)


def plain32(classes: int = 10) -> nn.Module:
    return PlainResNet(32, classes)


def plain56(classes: int = 10) -> nn.Module:
    return PlainResNet(56, classes)


class EncoderLayer(nn.Module):
    """Attention and an MLP on a residual stream, normalised before each (Xiong et al. 2020, arXiv
    2002.04745)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class CompactTransformer(nn.Module):
    """(batch, 3, 32, 32) -> (batch, classes)."""

    def __init__(self, classes: int, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        channels = (3, 32, width, width)
        stem: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(channels)):
            stem += [nn.Conv2d(before, after, 3, 2 if number else 1, 1, bias=False), nn.BatchNorm2d(after)]
            stem += [nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.positions = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads, 2 * width) for _ in range(depth)))
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.linear(self.norm(self.layers(tokens)).mean(1))
        return out


def compact(classes: int = 10) -> nn.Module:
    return CompactTransformer(classes)


def recipe(name: str, epochs: int | None) -> Recipe:
    """Without batch-norm the rate is a fifth."""
    called = PARENTS[name].architecture.partition(":")[2]
    if called == "compact":
        return Recipe(epochs=epochs or 16, rate=2e-3, batch=128, weight_decay=0.05, smoothing=0.1, adamw=True)
    plain = called.startswith("plain")
    return Recipe(epochs=epochs or 60, rate=0.04 if plain else 0.2, batch=128)


def build(name: str, classes: int) -> nn.Module:
    called = PARENTS[name].architecture.partition(":")[2]
    here = {"plain20": plain20, "plain32": plain32, "plain56": plain56, "compact": compact}
    return here[called](classes) if called in here else ARCHITECTURES[called].build(classes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="also where the decoded images are kept")
    parser.add_argument("--only", default="C100-R32,C100-R56,C10-P20,C10-P32,C10-P56,C10-T")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(arguments.data, arguments.out, arguments.out)
    device = pick_device(arguments.device)
    for name in arguments.only.split(","):
        given, path = PARENTS[name], arguments.out / f"{PARENTS[name].weights}.safetensors"
        images = world.images(given.dataset, "train")

        def fit(module: nn.Module, name: str = name, path: Path = path) -> None:
            given = PARENTS[name]
            images = world.images(given.dataset, "train")
            train(
                module,
                as_batch(images.images(range(len(images)))),
                torch.from_numpy(images.targets),
                recipe(name, arguments.epochs),
                mean=given.mean,
                std=given.std,
                device=device,
                checkpoint=path.with_suffix(".checkpoint"),
                say=lambda text: print(f"{name}: {text}", flush=True),
            )

        torch.manual_seed(0)
        trained(path, lambda name=name, images=images: build(name, len(images.labels)), fit)
        world.weights = arguments.out
        logits, targets = world.test_logits(name)
        print(f"{name}: top-1 {100 * float((logits.argmax(1) == targets).double().mean()):.2f} %")


if __name__ == "__main__":
    main()
