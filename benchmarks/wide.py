"""Two classes of ten from a wide network, as MODA reports it: VGG-16 with batch-norm on CIFAR-10.

One epoch costs 47 million million multiply-adds, two to five minutes on two cores and seconds on a GPU: the
row is measured where there is one, or where --wide asks for it. Training goes on where it was cut off.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ledger import Ledger, Row
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.composition import Budget, Part, compose, parts_of
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions
from subsets import flops_share
from training import Recipe, train, trained
from world import IMAGENET, World

__all__ = ["PARENT", "RECIPE", "two_of_ten", "wide_network"]

PARENT = "C10-VGG16"
RECIPE = Recipe(epochs=40, rate=0.1, seed=0, bfloat16=True)
_BUDGETS = (0.54, 0.25)
"""MODA's multiply-adds for two of ten classes, and the target."""
_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)


def wide_network(classes: int = 10) -> nn.Sequential:
    """Thirteen 3×3 convolutions with batch-norm, (batch, 3, 32, 32) -> (batch, classes): 313 million
    multiply-adds."""
    layers: list[nn.Module] = []
    before = 3
    for channels in _CHANNELS:
        if not channels:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def two_of_ten(
    world: World,
    ledger: Ledger,
    sets: Sequence[tuple[str, ...]],
    per_class: int,
    recipe: Recipe = RECIPE,
) -> list[Row]:
    """Without data, and tuned with `per_class` unlabelled images of each class; at MODA's budget and less."""
    rows = []
    known = ledger.measure(
        f"wide/{recipe.epochs}/parent",
        lambda: {"top1": _restricted(world, recipe, world.images("cifar10", "test").labels)},
    )
    parent = PARENT if known is None else f"{PARENT}, {recipe.epochs} epochs, {100 * known['top1']:.2f} %"
    for tuned in (False, True):
        texts, met = [], None
        for budget in _BUDGETS:
            found = []
            for labels in sets:

                def work(
                    labels: tuple[str, ...] = labels, budget: float = budget, tuned: bool = tuned
                ) -> dict[str, float]:
                    tune = world.images("cifar10", "train").only(list(labels)).sample(per_class, 0)
                    classifier = compose(
                        _parts(world, recipe, labels),
                        budget=Budget(flops=budget),
                        tune=tune if tuned else None,
                        device=world.device,
                    )
                    return {
                        "accuracy": world.accuracy(classifier, "cifar10"),
                        "restricted": _restricted(world, recipe, labels),
                        "flops": flops_share(classifier),
                        "params": classifier.trunk_passes[0].report.kept_params_fraction,
                    }

                key = f"wide/{recipe.epochs}/{'tuned' if tuned else 'plain'}/{budget:g}/{'+'.join(labels)}"
                value = ledger.measure(key, work)
                if value is not None:
                    found.append(value)
            if found:
                mean = {key: 100 * float(np.mean([value[key] for value in found])) for key in found[0]}
                lost = mean["restricted"] - mean["accuracy"]
                texts.append(
                    f"{lost:.2f} pp (of {mean['restricted']:.2f} %) at {mean['flops']:.0f} % FLOPs, "
                    f"{mean['params']:.0f} % of the parameters ({len(found)} sets)"
                )
                met = lost <= 0.5 if budget == _BUDGETS[-1] else met
        what = "2 of 10 on a wide network, " + ("tuned" if tuned else "no data")
        rows.append(
            Row(what, parent, "≤ 0.5 pp at ≤ 25 % FLOPs", "; ".join(texts) or "not measured yet", met)
        )
    return rows


def _network(world: World, recipe: Recipe) -> nn.Module:
    images = world.images("cifar10", "train")
    path = world.out / "trained" / f"{PARENT}-{recipe.epochs}.safetensors"

    def fit(module: nn.Module) -> None:
        pixels = (
            torch.from_numpy(np.stack(images.images(range(len(images))))).permute(0, 3, 1, 2).contiguous()
        )
        mean, std = IMAGENET
        train(
            module,
            pixels.contiguous(),
            torch.from_numpy(images.targets),
            recipe,
            mean=mean,
            std=std,
            device=world.device,
            checkpoint=path.with_suffix(".checkpoint"),
            say=lambda text: print(f"  {PARENT}: {text}", file=sys.stderr, flush=True),
        )

    def build() -> nn.Module:
        torch.manual_seed(recipe.seed)
        return wide_network(len(images.labels))

    return trained(path, build, fit)


def _parts(world: World, recipe: Recipe, labels: Sequence[str]) -> list[Part]:
    directory = world.out / "modules" / f"{PARENT}-{recipe.epochs}"
    if not directory.exists():
        mean, std = IMAGENET
        decompose_to(
            directory,
            _network(world, recipe),
            world.images("cifar10", "train"),
            DecomposeOptions(name=PARENT.lower(), mean=mean, std=std, device=str(world.device)),
        )
    return parts_of(read_artifact(directory), labels)


def _restricted(world: World, recipe: Recipe, labels: Sequence[str]) -> float:
    """Top-1 of the parent's own logits restricted to `labels`, on their test images."""
    (part, *_) = _parts(world, recipe, labels)
    network, preprocess = _network(world, recipe), Preprocess(part.module.manifest.input)
    images = world.images("cifar10", "test")
    rows = torch.tensor([images.labels.index(label) for label in labels])
    own = images.only(list(labels))
    with torch.inference_mode():
        found = [
            network(preprocess(pixels))[:, rows].argmax(1) == torch.from_numpy(own.targets[indices])
            for pixels, indices in own.batches(250)
        ]
    return float(torch.cat(found).double().mean())
