"""Train the parents that benchmarks need and nobody ships. The recipe is kept here, the weights are not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["Recipe", "augmented", "train", "trained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """SGD with Nesterov momentum .9, or AdamW; one cycle to `rate`, flips and crops (pad 4, reflected)."""

    epochs: int
    rate: float = 0.2
    batch: int = 128
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    seed: int = 0
    adamw: bool = False
    """Transformers do not learn by plain SGD."""
    bfloat16: bool = False
    """Convolutions and products in bfloat16 (weights and their steps stay float32): twice as fast where the
    processor has it."""


def train(
    module: nn.Module,
    images: Tensor,
    targets: Tensor,
    recipe: Recipe,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[float]:
    """Fit `module` in place to uint8 images (n, 3, height, width) and targets (n,); seconds per epoch.

    `module` takes normalised images. The last epoch's weights stay; nothing is chosen on other data. It is
    trained on `device` and comes back to the CPU. With a `checkpoint`, a run that was cut off goes on after
    its last whole epoch, and answers with the seconds of all of them.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    device = device or torch.device("cpu")
    shift, scale = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = _optimizer(module, recipe)
    steps = -(-len(images) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps * recipe.epochs)
    seconds: list[float] = []
    state = {"module": module, "optimizer": optimizer, "schedule": schedule}
    if checkpoint is not None and checkpoint.exists():
        seconds = _restored(checkpoint, state, generator)
    for epoch in range(len(seconds), recipe.epochs):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(recipe.batch):
            batch = augmented(images[chosen].float() / 255, generator).to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.bfloat16):
                loss = F.cross_entropy(
                    module(((batch - shift) / scale).contiguous(memory_format=torch.channels_last)),
                    targets[chosen].to(device),
                    label_smoothing=recipe.smoothing,
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        seconds.append(time.perf_counter() - start)
        say(f"epoch {epoch + 1}/{recipe.epochs}: loss {total / len(images):.3f}, {seconds[-1]:.0f} s")
        if checkpoint is not None:
            _keep(checkpoint, state, generator, seconds)
    module.cpu().eval()
    return seconds


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW leaves vectors (biases, norms) without decay."""
    if not recipe.adamw:
        return torch.optim.SGD(
            module.parameters(), lr=recipe.rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    groups = [
        {"params": [p for p in module.parameters() if (p.dim() > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate)


def trained(path: Path, build: Callable[[], nn.Module], fit: Callable[[nn.Module], object]) -> nn.Module:
    """The module at `path` if an earlier run finished it, else a fresh one, fitted and kept there; then a
    checkpoint of the same name goes."""
    module = build()
    if path.exists():
        module.load_state_dict(load_file(path))
        return module.eval()
    fit(module)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, scratch)
    scratch.replace(path)
    path.with_suffix(".checkpoint").unlink(missing_ok=True)
    return module.eval()


def _keep(path: Path, state: dict[str, Any], generator: torch.Generator, seconds: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    kept = {name: part.state_dict() for name, part in state.items()}
    torch.save({**kept, "generator": generator.get_state(), "seconds": seconds}, scratch)
    scratch.replace(path)


def _restored(path: Path, state: dict[str, Any], generator: torch.Generator) -> list[float]:
    kept = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(kept[name])
    generator.set_state(kept["generator"])
    seconds: list[float] = kept["seconds"]
    return seconds


def augmented(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped or not; the whole batch shifted by up to four pixels, reflected at the border."""
    flip = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(flip.view(-1, 1, 1, 1), batch.flip(3), batch)
    top, left = (int(torch.randint(9, (1,), generator=generator)) for _ in range(2))
    height, width = batch.shape[2:]
    return F.pad(batch, (4, 4, 4, 4), mode="reflect")[:, :, top : top + height, left : left + width]
