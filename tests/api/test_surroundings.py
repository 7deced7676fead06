"""What a caller has set in torch changes neither what is made nor whether it can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhub
from modhub.artifact import write_artifact
from modhub.artifact.modules import ModuleSet
from tests.support.digit_parents import digits, pixels_of
from tests.support.packages import ACTIVITY


@contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SURROUNDINGS: dict[str, tuple[Callable[[], AbstractContextManager[object]], ...]] = {
    "inference mode, doubles": (torch.inference_mode, lambda: default_type(torch.float64)),
    "no gradients, halves, another device, strict numpy": (
        torch.no_grad,
        lambda: default_type(torch.bfloat16),
        lambda: torch.device("meta"),
        lambda: np.errstate(all="raise"),
    ),
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16),),
}


@cache
def network() -> nn.Module:
    """It need not know anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)).eval()


def modules() -> ModuleSet:
    return modhub.decompose(
        network(), digits("0123"), method=f"{ACTIVITY}:Activity", only=["1", "2", "3"], images_per_class=20
    )


def answers(folder: Path, build: Path) -> list[Tensor]:
    slim = modhub.compose(folder, budget=modhub.Budget(flops=0.6))
    fitted = modhub.compose(folder, calibrate=digits("0123"), reject=True)
    loaded = modhub.load(build)
    images = pixels_of(digits("0123", "test"))[0][:8]
    return [classifier(images).clone() for classifier in (slim, fitted, loaded)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("surroundings")
    write_artifact(home / "modules", modules())
    modhub.compose(home / "modules").save(home / "build")
    return home


@pytest.fixture(scope="module")
def usual(home: Path) -> tuple[list[str], list[Tensor]]:
    digests = [module.manifest.tensors.sha256 for module in modules().modules]
    return digests, answers(home / "modules", home / "build")


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_same_is_made_whatever_is_set(
    home: Path, usual: tuple[list[str], list[Tensor]], name: str
) -> None:
    with ExitStack() as stack:
        for surroundings in SURROUNDINGS[name]:
            stack.enter_context(surroundings())
        digests = [module.manifest.tensors.sha256 for module in modules().modules]
        found = answers(home / "modules", home / "build")
    assert digests == usual[0]
    # Who runs a classifier in autocast wants its answers coarser.
    tolerance = 0.1 if name == "autocast" else 0.0
    for mine, theirs in zip(found, usual[1], strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=0, atol=tolerance)
