"""Keys of tensors in safetensors files: the table of docs/formats.md, read and written in one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modhub.artifact.tensors import ModuleTensors, TrunkTensors, ValueStatistics, statistics_key
from modhub.errors import IntegrityError

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"

MODULE: dict[str, Tensor] = {
    "mask": torch.tensor([1, 0, 1], dtype=torch.uint8),
    "relevance": torch.tensor([1.0, 0.0, 0.5]).half(),
    "head.weight": torch.ones(2, 4),
    "head.bias": torch.zeros(2),
    "head.tail": torch.tensor([1, 2], dtype=torch.uint8),
    "statistics.block.0.relu.mean": torch.tensor([1.0, 2.0]),
    "statistics.block.0.relu.deviation": torch.tensor([3.0, 4.0]),
    "statistics.block.0.relu.sensitivity": torch.tensor([5.0, 6.0]),
    "statistics.block.0.relu.correlation": torch.tensor([0.5]).half(),
    "statistics.mean.mean": torch.tensor([7.0]),
    "position_mask.block.0.relu": torch.ones(2, 1, 1, dtype=torch.uint8),
    "unknown.key": torch.tensor([8.0]),
    "statistics.block.0.relu.skewness": torch.tensor([9.0]),
}
TRUNK: dict[str, Tensor] = {
    "parent.weight": torch.ones(3, 4),
    "parent.bias": torch.zeros(3),
    "statistics.block.0.relu.correlation": torch.tensor([0.5]).half(),
    "unknown.key": torch.tensor([8.0]),
    "statistics.block.0.relu.mean": torch.tensor([9.0]),
}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def test_a_modules_tensors_survive_by_meaning() -> None:
    parsed = ModuleTensors.from_dict(MODULE)
    assert parsed.head_tail == ("average", "flatten")
    assert set(parsed.statistics) == {"block.0.relu", "mean"}
    assert parsed.statistics["block.0.relu"].sensitivity is MODULE["statistics.block.0.relu.sensitivity"]
    assert parsed.statistics["mean"] == ValueStatistics(mean=MODULE["statistics.mean.mean"])
    assert parsed.position_masks == {"block.0.relu": MODULE["position_mask.block.0.relu"]}
    assert set(parsed.others) == {"unknown.key", "statistics.block.0.relu.skewness"}
    assert equal(parsed.to_dict(), MODULE)


def test_what_a_module_need_not_have_is_left_out() -> None:
    least = {key: MODULE[key] for key in ("mask", "head.weight", "head.bias")}
    parsed = ModuleTensors.from_dict(least)
    assert (parsed.relevance, parsed.head_tail) == (None, ())
    assert (parsed.statistics, parsed.position_masks, parsed.others) == ({}, {}, {})
    assert equal(parsed.to_dict(), least)


def test_a_trunks_tensors_survive_by_meaning() -> None:
    parsed = TrunkTensors.from_dict(TRUNK)
    assert parsed.parent_weight is TRUNK["parent.weight"]
    assert parsed.correlations == {"block.0.relu": TRUNK["statistics.block.0.relu.correlation"]}
    assert set(parsed.others) == {"unknown.key", "statistics.block.0.relu.mean"}
    assert equal(parsed.to_dict(), TRUNK)
    assert TrunkTensors.from_dict({}) == TrunkTensors()
    assert TrunkTensors().to_dict() == {}


@pytest.mark.parametrize("key", ["mask", "head.weight", "head.bias"])
def test_a_module_without_mask_or_head_is_none(key: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        ModuleTensors.from_dict({name: MODULE[name] for name in MODULE if name != key}, "The module 'cat'")
    assert str(caught.value) == (
        f"The module 'cat' lacks the tensor '{key}'. Pull it again, or decompose its parent again."
    )


def test_the_table_of_formats_names_the_keys() -> None:
    table = set(re.findall(r"^\| `([a-z_.<>]+)`", FORMATS.read_text(encoding="utf-8"), re.MULTILINE))
    tensors = ModuleTensors.from_dict(MODULE)
    keys = {
        key for key in tensors.to_dict() if key not in tensors.others and not key.startswith("statistics.")
    }
    assert {key.replace("block.0.relu", "<value>") for key in keys} <= table
    parts = [f"statistics.<value>.{part}" for part in ("mean", "sensitivity", "correlation")]
    assert {*parts} <= table
    assert statistics_key("<value>", "mean") == parts[0]
