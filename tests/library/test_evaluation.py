"""docs/evaluation.md says what benchmarks/measured holds, and what is not measured."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import modhub

ROOT = Path(__file__).parents[2]
ENERGY = {"seconds": 10.0, "cores": 2.0, "processor": "EPYC", "kwh": 0.002, "power_model": "12 W"}
CELLS = {
    "paper/whole/C10-R20": {
        "modules": 10,
        "top1": 0.9173,
        "top5": 0.997,
        "parent_top1": 0.9183,
        "parent_top5": 0.997,
        "flops": 1.0,
        "jaccard_parent": 0.5,
        "jaccard_modules": 0.25,
        "energy": ENERGY,
    },
    "paper/reuse-2/C10-R20/cat+dog": {
        "accuracy": 0.91,
        "restricted": 0.92,
        "flops": 0.8,
        "energy": {**ENERGY, "kwh": 0.001},
    },
    "paper/scratch-2/C10-R20/cat+dog": {"accuracy": 0.89, "epochs": 8, "energy": {**ENERGY, "kwh": 0.004}},
    "paper/epoch/C10-R20": {
        "images": 5000,
        "of": 50000,
        "epochs": 200,
        "energy": {**ENERGY, "kwh": 0.0005},
    },
}


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("evaluation")


def test_the_page_is_what_its_command_writes(evaluation: ModuleType) -> None:
    paths = sorted((ROOT / "benchmarks" / "measured").glob("*.jsonl"))
    assert max(path.stat().st_size for path in paths) < 100_000
    measured = {path.stem: evaluation.read(path) for path in paths}
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert text == evaluation.page(measured, modhub.__version__), "python benchmarks/evaluation.py"


def test_what_is_not_measured_says_so(evaluation: ModuleType) -> None:
    page = evaluation.page({}, "1")
    assert page.count("not measured |") >= 9 + 18 + 3 + 4 + 2
    assert "reproduced" not in page
    assert "plots/" not in page


def test_cells_become_rows(evaluation: ModuleType) -> None:
    page = evaluation.page({"paper": CELLS}, "1")
    rows = [line.split(" | ") for line in page.splitlines()]
    (whole,) = [row for row in rows if row[0] == "| C10-R20, 10 modules"]
    assert whole[1:6] == [
        "91.83 → 91.73 (−0.10)",
        "99.70 → 99.70 (+0.00)",
        "0.50 / 0.25",
        "100 %",
        "10 s × 2.0 cores, 2 Wh",
    ]
    (reuse,) = [row for row in rows if row[0] == "| 2 of C10-R20, 1 set"]
    assert reuse[1:5] == ["91.00", "−1.00", "+2.00 (1 set)", "80 %"]
    # 200 epochs of ten times 0.5 Wh are 1000 Wh; a reuse takes 1 Wh, decomposing 2, the pair's network 4.
    ten, pair = (
        next(row for row in rows if row[0].startswith(f"| training {what}")) for what in ("on", "for")
    )
    assert ten[1:4] == ["1,000 ×", "333.3 ×", "1"]
    assert pair[1:4] == ["4 ×", "1.3 ×", "1"]
    assert "333 × less than training on all ten classes, 1.3 × less than a network for the pair" in page


def test_methods_become_rows(evaluation: ModuleType) -> None:
    value = {"flops": 0.6, "params": 0.5, "passes": 1, "accuracy": 0.9, "parent": 0.91, "random": 0.8}
    known = {f"C10-R20/firing/{seed}/300/None/own/cat+dog": value for seed in range(2)}
    known["C10-R20/firing/0/300/None/0.5/cat+dog"] = {**value, "accuracy": 0.86, "flops": 0.5}
    known["C10-R20/firing/0/300/None/costs/cat+dog+owl"] = {"seconds": 12.4, "kilobytes": 52.0, "kept": 0.9}
    page = evaluation.page({"methods": known}, "1")
    dash = " | –" * 4
    assert (
        "| C10-R20 | `firing` | 12 s | not measured | not measured | 90.00 / 91.00 / 80.00 at 60 % | "
        "not measured |"
    ) in page
    assert "Seeds: 2; 300 training images a class to choose by; all test images a class" in page
    assert f"| C10-R20 | `firing`{dash} | – | – | 5.00 | – |" in page
    assert "plots/methods-c10-r20.svg" in page
    assert evaluation.method_series(known) == {"C10-R20": {"firing": [(50.0, 5.0), (60.0, 1.0)]}}


def test_measurements_are_taken_over_rounded(
    evaluation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MEASURED", tmp_path)
    ledger = tmp_path / "out" / "paper.jsonl"
    ledger.parent.mkdir()
    ledger.write_text(json.dumps({"key": "b", "value": {"x": [0.123456789]}}) + "\n")
    evaluation.add("paper", ledger)
    ledger.write_text(json.dumps({"key": "a", "value": 1}) + "\n")
    evaluation.add("paper", ledger)
    assert evaluation.read(tmp_path / "paper.jsonl") == {"a": 1, "b": {"x": [0.123457]}}
    monkeypatch.setattr(evaluation, "LIMIT", 10)
    with pytest.raises(ValueError, match=re.escape("paper.jsonl would have more than 10 bytes.")):
        evaluation.add("paper", ledger)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (modhub.__version__, "Apache-2.0")
