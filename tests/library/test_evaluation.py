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
    "paper/decompose-two/C10-R20/cat+dog": {
        "accuracy": 0.91,
        "restricted": 0.92,
        "flops": 0.8,
        "decompose": {**ENERGY, "kwh": 0.001},
        "energy": {**ENERGY, "kwh": 0.001},
    },
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
    # 200 epochs of ten times 0.5 Wh are 1000 Wh; a reuse takes 1 Wh, decomposing 2, the two alone 1, eight
    # epochs of the pair's network 4.
    ten, pair, long = (row for row in rows if row[0].startswith("| training "))
    assert ten[1:6] == ["1,000 ×", "333.3 ×", "500.0 ×", "not measured", "1"]
    assert pair[0] == "| training for the two classes, 8 epochs, 89.0 % right: 4 Wh"
    assert pair[1:6] == ["4 ×", "1.3 ×", "2.0 ×", "not measured", "1"]
    assert long[1:6] == ["100 ×", "33.3 ×", "50.0 ×", "not measured", "1"]
    assert "333 × less than training on all ten classes, 1.3 × less than 8 epochs for the pair" in page
    assert "2 × for decomposing no more than the two; the goal is 50 ×" in page


@pytest.mark.parametrize(
    ("cell", "before", "after", "said"),
    [
        ("replace-weak", 0.5, 0.9, "repairs a class*: reproduced, where the class is weak or damaged (+40.0"),
        ("replace-damaged", 0.5, 0.4, "repairs a class*: not reproduced, where the class is weak"),
        ("replace-equal", 0.9, 0.88, "swapped between equals, the class has −2.0 points"),
        (
            "replace-inter",
            0.9,
            0.95,
            "another data set improves the class* (+2.5 for the whole classifier): repro",
        ),
        ("replace-inter", 0.9, 0.85, "(+2.5 for the whole classifier): not reproduced (−5.0 points"),
    ],
)
def test_words_follow_the_figures(
    evaluation: ModuleType, cell: str, before: float, after: float, said: str
) -> None:
    value = {"target_before": before, "others_before": 0.9, "target_after": after, "others_after": 0.9}
    page = evaluation.page({"paper": {f"paper/{cell}/A<B/cat": value}}, "1")
    assert said in page.partition("### Replacement")[2].partition("### ")[0]


@pytest.mark.parametrize(
    ("accuracy", "word"), [(0.847, "reproduced"), (0.95, "reproduced, by far less"), (0.98, "not reproduced")]
)
def test_words_of_classes_of_two_data_sets(evaluation: ModuleType, accuracy: float, word: str) -> None:
    value = {"accuracy": accuracy, "calibrated": 0.985}
    page = evaluation.page({"paper": {"paper/across/C10-R20xC100-R20/cat+bee": value}}, "1")
    assert f"samples 89.8): {word}. Here {100 * accuracy:.1f} % without a sample, 98.5 % with 20" in page


def test_peers_become_rows(evaluation: ModuleType) -> None:
    value = {"accuracy": 0.95, "restricted": 0.97, "flops": 0.5, "seconds": 12.0, "bytes": 500_000}
    known = {
        "peers/C10-R20/cat+frog/0.5/slim": value,
        "peers/C10-R20/deer+horse/0.5/slim": {**value, "accuracy": 0.96, "seconds": 20.0},
        "peers/C10-R20/cat+frog/int8": {**value, "bytes": 300_000},
        "peers/C10-R20/cat+frog/0.5/latency": {
            "parent": {"PyTorch, batch 1": 1.0},
            "slim": {"PyTorch, batch 1": 0.5},
        },
    }
    page = evaluation.page({"peers": known}, "1")
    blank = "not measured"
    assert f"| C10-R20 | slim | {blank} | 1.50 ± 0.50 (2 pairs) | {blank} | 500 | 12 to 20 |" in page
    assert "| C10-R20 | int8 | 2.00 (1 pair) | 2.00 (1 pair) | 2.00 (1 pair) | 300 | 12 to 12 |" in page
    assert f"| C10-R20 | torch-pruning | {blank} | {blank} | {blank} |  |  |" in page
    assert "| C10-R20, cat+frog | slim | 50 % | 0.50 | – | – | – |" in page
    assert "| C10-R20, cat+frog | parent | 100 % | 1.00 | – | – | – |" in page


def test_parents_trained_to_be_modular_become_rows(evaluation: ModuleType) -> None:
    value = {"accuracy": 0.9, "parent": 0.92, "flops": 0.6}
    known = {f"modular/plain/{seed}/random/own/2": value for seed in range(2)}
    known["modular/plain/0/random/0.35/5"] = value
    known["modular/plain/0/activation/0.35/2"] = {**value, "accuracy": 0.8}
    known["modular/modular/0/activation/0.35/2"] = {**value, "accuracy": 0.7}
    page = evaluation.page({"modular": known}, "1")
    row = ["90.0 of 92.0 at 60 %", *["not measured"] * 6, "90.0"]
    assert f"| plain | `random` | {' | '.join(row)} |" in page
    assert "2 seeds, ten pairs" in page
    assert "Pairs at 35 %, trained for it / plainly: `activation` 70.0 / 80.0.\n" in page


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
    assert (
        "The fewest are lost by `firing` for two at 50 % (C10-R20). C10-R56: not measured; `--parents C10-R56"
        in page
    )
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
