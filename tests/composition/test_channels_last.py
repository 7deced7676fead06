"""Networks that count channels in their last dimension, as ConvNeXt does, against the same channels first."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.artifact.modules import ModuleSet
from modhub.composition import Budget, ComposedClassifier, compose, parts_of
from modhub.data import ImageSet
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from modhub.decomposition.teaching import teach
from modhub.evaluation.evaluate import evaluate
from modhub.importing import import_module
from modhub.nets import channel_space
from modhub.pruning.statistics import compensable_sites
from tests.support.digit_parents import INPUT, digits
from tests.support.quick import QUICK

LABELS = "01345"


class Net(nn.Module):
    """conv, two residual blocks of two 1×1 layers, average, linear; with linear layers on permuted values or
    with 1×1 convolutions, which compute the same."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.stem = nn.Conv2d(1, 12, 3, 2, 1)
        self.wide = nn.ModuleList(self._layer(12, 20) for _ in range(2))
        self.narrow = nn.ModuleList(self._layer(20, 12) for _ in range(2))
        self.conv = nn.Conv2d(12, 16, 3, 1, 1)
        self.head = nn.Linear(16, len(LABELS))

    def _layer(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs) if self.last else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            y = x.permute(0, 2, 3, 1) if self.last else x
            y = narrow(F.gelu(wide(y)))
            x = x + (y.permute(0, 3, 1, 2) if self.last else y)
        out: Tensor = self.head(F.relu(self.conv(x)).mean((2, 3)))
        return out


def parent_of(model: nn.Module) -> Parent:
    return Parent.of(
        import_module(model.eval(), (1, 8, 8)),
        name="digits-permuted",
        architecture="net",
        labels=tuple(LABELS),
        input=INPUT,
        license="MIT",
        dataset="digits",
    )


@cache
def modules(last: bool) -> ModuleSet:
    images = digits(LABELS)
    pixels, order = next(images.batches(len(images)))
    inputs, targets = Preprocess(INPUT)(pixels), torch.from_numpy(images.targets[order])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(last=False)
        optimiser = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(10):
            for batch in torch.randperm(len(inputs)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
                optimiser.step()
    if last:
        weights, model = model.state_dict(), Net(last=True)
        model.load_state_dict(
            {name: weight.reshape(model.state_dict()[name].shape) for name, weight in weights.items()}
        )
    parent = parent_of(model)
    return assemble(
        parent,
        decompose(parent, images, options=DecomposeOptions(images_per_class=50, calibration_images=30)),
    )


def margins(classifier: ComposedClassifier, images: ImageSet) -> Tensor:
    pixels, _ = next(images.batches(len(images)))
    with torch.inference_mode():
        scores: Tensor = classifier(pixels)
    return scores - scores.mean(1, keepdim=True)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_budget_buys_the_same_whichever_dimension_counts_channels(tuned: bool) -> None:
    test = digits("35", "test")
    first, last = (
        compose(
            parts_of(modules(last), ["3", "5"]),
            budget=Budget(flops=0.6),
            tune=digits("35").sample(40, 0) if tuned else None,
            settings=QUICK,
        )
        for last in (False, True)
    )
    for classifier in (first, last):
        report = classifier.trunk_passes[0].report
        assert report.flops <= 0.6 * report.parent_flops
        assert evaluate(classifier, test).top1 > 0.9
    expected, found = margins(first, test), margins(last, test)
    assert float((found - expected).square().mean()) < 0.01 * float(expected.square().mean())


def test_a_class_can_be_taught_to_it() -> None:
    taught = teach(modules(last=True), "6", digits("6").sample(30, 0))
    classifier = compose([*parts_of(modules(last=True), ["3"]), *parts_of(taught)])
    assert evaluate(classifier, digits("36", "test")).top1 > 0.9


class Mixer(nn.Module):
    """A linear layer over positions between two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, channels, 3, 2, 1)
        self.mix = nn.Linear(16, 16)
        self.b = nn.Conv2d(channels, 12, 3, padding=1)
        self.f = nn.Linear(12, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = x + F.relu(self.mix(x.flatten(2))).view(x.shape)
        out: Tensor = self.f(F.relu(self.b(x)).mean((2, 3)))
        return out


@pytest.mark.parametrize("channels", [12, 16])
def test_a_layer_over_positions_mixes_no_channels(channels: int) -> None:
    """With as many channels as positions only the dimension tells them apart."""
    torch.manual_seed(0)
    parent = parent_of(Mixer(channels))
    space = channel_space(parent.trunk)
    consumers = {site.consumer for site in compensable_sites(parent.trunk.graph, space)}
    assert consumers == {node.name for node in parent.trunk.graph.nodes if node.name == "b"}
    options = DecomposeOptions(images_per_class=20, calibration_images=10)
    set_ = assemble(parent, decompose(parent, digits(LABELS), options=options))
    for budget in (None, Budget(flops=0.6)):
        classifier = compose(parts_of(set_, ["3", "5"]), budget=budget, settings=QUICK)
        assert np.isfinite(margins(classifier, digits("35", "test")).numpy()).all()
