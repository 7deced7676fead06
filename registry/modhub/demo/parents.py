"""The demo's parents: two small networks of different architectures, trained in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from modhub.data import ImageSet, as_batch, open_data
from modhub.files import write_bytes
from modhub.nets.architectures import ARCHITECTURES
from modhub.reporter import SILENT, Reporter

EPOCHS = 12
_BATCH = 32
_RATE = 6e-3
_SMOOTHING = 0.05


def train_parent(
    name: str, labels: list[str], path: Path, *, seed: int = 0, reporter: Reporter = SILENT
) -> Path:
    """Train `modhub:NAME` on the training digits of `labels` and write its state dict to `path`.

    The same seed gives the same bytes on the same machine; no randomness outside is touched.
    """
    images = open_data("digits", "train").only(labels)
    pixels, targets = _tensors(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ARCHITECTURES[name].build(len(labels))
        _fit(network, pixels, targets, reporter, f"train {name} on {labels[0]} to {labels[-1]}")
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    write_bytes(path, bytes(save(state)))
    return path


def _fit(network: nn.Module, pixels: Tensor, targets: Tensor, reporter: Reporter, title: str) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = -(-len(pixels) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, epochs=EPOCHS, steps_per_epoch=steps)
    network.train()
    with reporter.step(title, EPOCHS):
        for _ in range(EPOCHS):
            order = torch.randperm(len(pixels))
            for start in range(0, len(pixels), _BATCH):
                chosen = order[start : start + _BATCH]
                loss = functional.cross_entropy(
                    network(pixels[chosen]), targets[chosen], label_smoothing=_SMOOTHING
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            reporter.advance()
    network.eval()


def _tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Floats in [0, 1], (image, 1, 8, 8), and their classes."""
    pixels = as_batch(images.images(range(len(images)))).float() / 255
    return pixels, torch.from_numpy(images.targets)
