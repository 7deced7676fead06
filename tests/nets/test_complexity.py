"""Multiply-adds and parameters as PyTorch counts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from modhub.importing import import_module
from modhub.nets import ARCHITECTURES, Network, Runner, channel_space, cost, slice_network
from tests.support.pico import pico_network

NETWORKS = {
    "pico": (lambda: pico_network(), (3, 8, 8)),
    "resnet20": (lambda: import_module(ARCHITECTURES["resnet20"].build(10).eval(), (3, 32, 32)), (3, 32, 32)),
    "conv3": (lambda: import_module(ARCHITECTURES["conv3"].build(10).eval(), (3, 32, 32)), (3, 32, 32)),
    # Depthwise and grouped convolutions, squeeze-and-excitation, channel shuffle.
    "mobilenet": (
        lambda: import_module(torchvision.models.mobilenet_v3_small(num_classes=4).eval(), (3, 64, 64)),
        (3, 64, 64),
    ),
    "shufflenet": (
        lambda: import_module(torchvision.models.shufflenet_v2_x0_5(num_classes=4).eval(), (3, 64, 64)),
        (3, 64, 64),
    ),
}


def counted(network: Network, shape: tuple[int, ...]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        Runner(network)(torch.zeros(1, *shape))
    operations = counter.get_total_flops()
    assert operations % 2 == 0, "a multiply-add is two operations to PyTorch"
    return int(operations) // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_are_those_that_pytorch_counts(name: str) -> None:
    build, shape = NETWORKS[name]
    network = build()
    assert cost(network).flops == counted(network, shape) > 0
    space = channel_space(network)
    mask = space.close(np.random.default_rng(0).random(space.slots) < 0.6)
    sliced = slice_network(network, mask, space=space)
    assert cost(sliced).flops == counted(sliced, shape) < cost(network).flops


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "digits-plain", "digits-residual"])
def test_parameters_are_those_of_the_module(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model = architecture.build(10).eval()
    shape = (3, 32, 32) if name.startswith("resnet") else (1, 8, 8)
    assert cost(import_module(model, shape)).parameters == sum(each.numel() for each in model.parameters())
