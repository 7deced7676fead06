"""The loss of MODA: its terms by hand, in a loop, and the example of docs/training.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modhub.errors import MethodError
from modhub.training import ModularityLoss

ROOT = Path(__file__).parents[2]
# Three images, two channels: the first two point the same way, the third is at a right angle to them.
ACTIVATIONS = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


def passed(values: Tensor) -> tuple[nn.Module, ModularityLoss]:
    """A network whose only activation is ReLU, after it has seen `values`."""
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    loss = ModularityLoss(model)
    model(values.requires_grad_())
    return model, loss


@pytest.mark.parametrize(
    ("targets", "affinity", "dispersion"),
    [
        # The pair of class 0 is alike; both pairs of different classes are at a right angle.
        ([0, 0, 1], 0.0, 0.0),
        # The pair of class 0 is at a right angle; of the other pairs one is alike and one is not.
        ([0, 1, 0], 1.0, 0.5),
        # All of one class: one pair of three is alike. All of different classes: the same.
        ([0, 0, 0], 1 - 1 / 3, 0.0),
        ([0, 1, 2], 0.0, 1 / 3),
    ],
)
def test_the_three_terms(targets: list[int], affinity: float, dispersion: float) -> None:
    _, loss = passed(ACTIVATIONS.clone())
    terms = loss.terms(torch.tensor(targets))
    assert terms.affinity.item() == pytest.approx(affinity)
    assert terms.dispersion.item() == pytest.approx(dispersion)
    # (3 + 1 + 2) / 6
    assert terms.sparsity.item() == pytest.approx(1.0)
    assert loss(torch.tensor(targets)).item() == pytest.approx(affinity + dispersion + 0.1)


def test_a_channel_counts_and_not_where_it_is_active() -> None:
    left = torch.zeros(2, 2, 1, 4)
    left[0, 0, 0, 0] = left[1, 0, 0, 3] = 4.0
    _, loss = passed(left)
    terms = loss.terms(torch.tensor([0, 0]))
    assert terms.affinity.item() == pytest.approx(0.0)
    assert terms.sparsity.item() == pytest.approx(0.5)


def test_layers_are_averaged_and_a_layer_that_is_used_twice_counts_twice() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Identity())
    model.append(model[0])
    loss = ModularityLoss(model)
    model(ACTIVATIONS.clone().requires_grad_())
    assert loss.terms(torch.tensor([0, 1, 0])).dispersion.item() == pytest.approx(0.5)
    named = ModularityLoss(model, ["1"], affinity=0, dispersion=0, sparsity=2)
    model(ACTIVATIONS.clone())
    assert named(torch.tensor([0, 1, 0])).item() == pytest.approx(2.0)


def test_only_the_last_pass_in_training_is_kept() -> None:
    model, loss = passed(ACTIVATIONS.clone())
    model(ACTIVATIONS[:2].clone())
    assert loss(torch.tensor([0, 0])).item() == pytest.approx(0.1)
    with pytest.raises(MethodError) as caught:
        loss(torch.tensor([0, 0, 1]))
    assert caught.value.message == "There are 3 targets, but activations of 2 images."
    model.eval()(ACTIVATIONS.clone())
    with pytest.raises(MethodError, match="No activations were kept"):
        loss(torch.tensor([0, 0, 1]))
    model.train()
    with torch.no_grad():
        model(ACTIVATIONS.clone())
    with pytest.raises(MethodError, match="No activations were kept"):
        loss(torch.tensor([0, 0, 1]))


def test_layers_that_are_not_there() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(MethodError) as caught:
        ModularityLoss(model, ["relu"])
    assert str(caught.value) == "The network has no layer 'relu'. It has, among others: 0."
    with pytest.raises(MethodError, match="has no activation function that is a module"):
        ModularityLoss(model)


def blobs() -> Iterator[tuple[Tensor, Tensor]]:
    dice = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 8, generator=dice) * 2
    for _ in range(100):
        targets = torch.randint(4, (64,), generator=dice)
        yield centres[targets] + torch.randn(64, 8, generator=dice), targets


def trained(modular: bool) -> tuple[float, dict[str, float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    before = model.state_dict().keys()
    with ModularityLoss(model) as modularity:
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for inputs, targets in blobs():
            loss = F.cross_entropy(model(inputs), targets)
            terms = modularity.terms(targets)
            optimizer.zero_grad()
            (loss + modularity(targets) if modular else loss).backward()
            optimizer.step()
        accuracy = float((model(inputs).argmax(1) == targets).double().mean())
    assert model.state_dict().keys() == before
    model(inputs)
    with pytest.raises(MethodError, match="No activations were kept"):
        modularity(targets)
    return accuracy, {name: getattr(terms, name).item() for name in terms.__slots__}


def test_a_network_trains_and_becomes_modular() -> None:
    (plain_accuracy, plain), (accuracy, modular) = trained(False), trained(True)
    assert min(plain_accuracy, accuracy) > 0.9
    assert modular["affinity"] < plain["affinity"]
    assert modular["dispersion"] < 0.7 * plain["dispersion"]
    assert modular["sparsity"] < 0.7 * plain["sparsity"]


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(code, {"__name__": "example"})
    plain, modular = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (plain[0], modular[0]) == ("plain:", "modular:")
    assert float(modular[1]) < float(plain[1])
