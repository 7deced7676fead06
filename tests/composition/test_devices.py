"""Composing where the user says; on a machine without CUDA tensors that only claim to be there must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch._subclasses.fake_tensor import FakeTensorMode

from modhub.composition import Budget, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.fitting.reconstruction import refit_head, refit_network
from modhub.composition.trunk_plan import trunk_plans
from modhub.nets import Network, fuse_batch_norm
from modhub.pruning.compensation import cut
from tests.support.console import Console
from tests.support.digit_parents import digit_modules, digit_parent

CUDA = torch.device("cuda")


def claimed(network: Network) -> Network:
    """The network with tensors that have a shape and a device, but no numbers."""
    shapes = {name: torch.empty(tensor.shape, device=CUDA) for name, tensor in network.tensors.items()}
    return Network(network.graph, shapes)


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.10"),
    reason="this torch asks the driver even for tensors without numbers",
)
def test_refitting_stays_on_the_device_of_its_images() -> None:
    (plan,) = trunk_plans(parts_of(digit_modules(), ["1", "4"]))
    mask = ChannelChooser(plan).mask(Budget(flops=0.4))
    head = digit_parent().head
    slim, weight, _ = cut(plan.trunk, mask, plan.space, plan.statistics, head.weight, head.bias)
    dense, slim = fuse_batch_norm(plan.trunk), fuse_batch_norm(slim)
    # Every operator here refuses tensors of two devices.
    with FakeTensorMode(allow_non_fake_inputs=False):
        images = torch.empty(60, *plan.trunk.graph.input_shape, device=CUDA)
        whole, less = claimed(dense), claimed(slim)
        fitted, goal = refit_network(whole, less, plan.space, mask, images)
        features = torch.empty(60, weight.shape[1], device=CUDA)
        rows = torch.empty(2, weight.shape[1], device=CUDA), torch.empty(2, device=CUDA)
        found = refit_head(*rows, torch.empty(60, 2, device=CUDA), features)
    places = {tensor.device.type for tensor in (*fitted.tensors.values(), goal, *found)}
    assert places == {"cuda"}


@pytest.mark.parametrize(
    "command", [("compose", "-o", "out"), ("frontier",), ("replace", "build", "cat=a/b/cat", "-o", "out")]
)
def test_a_device_that_is_not_there_is_one_sentence(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = Console(tmp_path, monkeypatch, capsys)(*command, "--device", "cuda", "-q")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "Error: The device 'cuda' was asked for, but this machine has no CUDA device that PyTorch can use.\n"
        "Use --device auto or --device cpu.\n"
    )
    assert list(tmp_path.iterdir()) == []
