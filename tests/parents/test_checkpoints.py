"""Weights as people save them, and those that are none."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import modhub
from modhub.errors import ParentError, StorageError
from modhub.nets import ARCHITECTURES, Runner
from modhub.parents import load_parent
from modhub.parents.weights import fit_weights, fitted, load_weights

CHECK = "Check that the weights are those of this architecture."


def digits() -> nn.Module:
    torch.manual_seed(1)
    return ARCHITECTURES["digits-plain"].build(4).eval()


def under(prefix: str) -> Callable[[nn.Module], Any]:
    return lambda net: {f"{prefix}{key}": value for key, value in net.state_dict().items()}


SAVED: dict[str, Callable[[nn.Module], Any]] = {
    "a state dict": lambda net: net.state_dict(),
    "parallel": lambda net: nn.DataParallel(net).state_dict(),
    "compiled": lambda net: torch.compile(net).state_dict(),
    "averaged": lambda net: AveragedModel(net).state_dict(),
    "Lightning": lambda net: {
        "state_dict": under("model.")(net),
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning with a score": lambda net: {
        "state_dict": under("model.")(net),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
    },
    "a checkpoint with what trains": lambda net: {
        "model": net.state_dict(),
        "criterion": {"weight": torch.ones(4)},
        "scaler": {"scale": torch.tensor(65536.0)},
        "rng": {"torch": torch.get_rng_state()},
    },
    "a checkpoint": lambda net: {
        "model": under("module._orig_mod.")(net),
        "optimizer": {"state": {0: {"step": torch.ones(1)}}},
        "args": argparse.Namespace(lr=0.1),
    },
    "nested": lambda net: {"epoch": 1, "ema": {"net": under("backbone.module.")(net)}},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("case", SAVED)
def test_checkpoints(case: str, suffix: str, tmp_path: Path) -> None:
    net = digits()
    path = tmp_path / f"w{suffix}"
    torch.save(SAVED[case](net), path)
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        answers = Runner(load_parent("modhub:digits-plain", weights=path).network())(images)
        torch.testing.assert_close(answers, net(images))


@pytest.mark.parametrize("case", SAVED)
def test_converted(case: str, tmp_path: Path) -> None:
    net = digits()
    torch.save(SAVED[case](net), tmp_path / "w.ckpt")
    report = modhub.convert(tmp_path / "w.ckpt")
    assert report.path == tmp_path / "w.safetensors"
    assert (report.tensors, report.bytes) == (len(net.state_dict()), report.path.stat().st_size)
    assert report.parameters == sum(each.numel() for each in net.state_dict().values())
    names = {key.removeprefix("backbone.module.") for key in load_file(report.path)}
    assert names == set(net.state_dict())
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        answers = Runner(load_parent("modhub:digits-plain", weights=report.path).network())(images)
        torch.testing.assert_close(answers, net(images))
        # A class that has a wrapper of its own.
        wrapped = nn.Sequential(OrderedDict(model=digits()))
        fit_weights(wrapped, load_file(report.path), "'w'", "wrapped")
        torch.testing.assert_close(wrapped(images), net(images))


def test_a_conversion_is_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "w.pt", tmp_path / "w.safetensors"
    target.write_bytes(b"mine")
    torch.save(digits().state_dict(), source)
    with pytest.raises(StorageError) as exists:
        modhub.convert(source)
    hint = "Choose another file, or replace it: --force, or force=True from Python."
    assert str(exists.value) == f"'{target}' exists already. {hint}"
    for content in ({"epoch": 3}, {"w": torch.ones(2).to_sparse()}, {"w": Evil()}):
        torch.save(content, source)
        with pytest.raises(ParentError):
            modhub.convert(source, force=True)
    assert target.read_bytes() == b"mine"
    with pytest.raises(ParentError) as already:
        modhub.convert(target)
    assert str(already.value) == f"'{target}' is a safetensors file already. Pass it with --weights."
    tied = torch.rand(4, 4)
    torch.save({"a": tied, "b": tied.T, "count": torch.tensor(3)}, source)
    modhub.convert(source, force=True)
    torch.testing.assert_close(load_file(target), {"a": tied, "b": tied.T, "count": torch.tensor(3)})
    assert {path.name for path in tmp_path.iterdir()} == {"w.pt", "w.safetensors"}


def test_a_prefix_stays_where_the_names_would_not_fit() -> None:
    net = digits()
    tensors = {f"model.{key}": value for key, value in net.state_dict().items()}
    assert fitted(net, tensors).keys() == net.state_dict().keys()
    more = {**tensors, "model.extra": torch.ones(1)}
    assert fitted(net, more) == more
    inside = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert fitted(inside, inside.state_dict()).keys() == {"0.0.weight", "0.0.bias"}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-run"),))


def test_what_is_no_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    for content, message in (
        (digits(), f"'{path}' holds something else than tensors, or is damaged ("),
        (
            {"state_dict": digits().state_dict(), "x": Evil()},
            f"'{path}' holds something else than tensors, or is",
        ),
        ({"epoch": 3}, f"'{path}' holds no weights."),
        (
            {"model": digits().state_dict(), "ema": digits().state_dict()},
            f"'{path}' holds 2 sets of weights ('model', 'ema').",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(ParentError) as caught:
            load_parent("modhub:digits-plain", weights=path)
        assert caught.value.message.startswith(message)
    assert not (tmp_path / "was-run").exists()
    path.write_bytes(b"PK damaged")
    with pytest.raises(ParentError, match="holds something else than tensors, or is damaged"):
        load_parent("modhub:digits-plain", weights=path)
    with pytest.raises(ParentError, match="formats that can carry code are not read"):
        load_weights(path)  # what a hub's repository names


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_quantised_weights_without_scales(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = digits().state_dict()
    tensors["hidden.weight"] = (tensors["hidden.weight"] * 100).to(dtype)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ParentError) as caught:
        load_parent("modhub:digits-plain", weights=tmp_path / "w.safetensors")
    assert str(caught.value) == (
        f"'hidden.weight' in 'w.safetensors' is of type {str(dtype).removeprefix('torch.')}; without the "
        "scales that it was quantised by, it is no weight. Save the weights as decimals, before "
        "they are quantised."
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_pointer_of_git_lfs(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 44730000\n")
    with pytest.raises(ParentError) as caught:
        load_parent("modhub:digits-plain", weights=path)
    assert str(caught.value) == (
        f"'{path}' is a Git LFS pointer, not the weights themselves. Fetch them in its repository with: "
        "git lfs pull"
    )
