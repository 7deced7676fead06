"""The cells of paper.py as tables, each beside the paper's own figure. What is not measured says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["NOT_MEASURED", "PAIR_EPOCHS", "cells", "energy_figures", "many", "markdown_table", "tables"]

NOT_MEASURED = "not measured"
PARENTS = tuple(f"{data}-R{depth}" for data in ("C10", "C100", "TINY") for depth in (20, 32, 56))
PAIR_EPOCHS = 8
_WHOLE = {"C10-R20": "87.1 → 87.0", "C10-R32": "85.3 → 78.6"}
_SCRATCH = {"C10": "+6.6", "C100": "−0.67", "TINY": "+1.5"}

Known = Mapping[str, Any]
Rows = Sequence[Sequence[str]]


def cells(known: Known, *prefix: str) -> dict[str, Any]:
    """Values by what follows `paper/…/` in their key, in the order they were measured."""
    start = "/".join(("paper", *prefix, ""))
    return {key.removeprefix(start): value for key, value in known.items() if key.startswith(start)}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def spread(values: Sequence[float]) -> str:
    """Mean and its standard error, in percentage points with a sign."""
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{mean(values):+.2f}{error}".replace("-", "−")


def wh(kwh: float) -> str:
    return f"{1000 * kwh:.3g} Wh"


def whole_rows(known: Known) -> Rows:
    found, rows = cells(known, "whole"), []
    for name in PARENTS:
        paper = _WHOLE.get(name, "mean loss 1.77 / 0.85, Jaccard .63")
        if (value := found.get(name)) is None:
            rows.append([name, NOT_MEASURED, "", "", "", "", paper])
            continue
        top = [100 * value[key] for key in ("parent_top1", "top1", "parent_top5", "top5")]
        energy = value["energy"]
        rows.append(
            [
                f"{name}, {value['modules']} modules"
                + (f" ({value['examined']} validated)" if "examined" in value else ""),
                f"{top[0]:.2f} → {top[1]:.2f} ({top[1] - top[0]:+.2f})".replace("-", "−"),
                f"{top[2]:.2f} → {top[3]:.2f} ({top[3] - top[2]:+.2f})".replace("-", "−"),
                f"{value['jaccard_parent']:.2f} / {value['jaccard_modules']:.2f}",
                f"{100 * value['flops']:.0f} %",
                f"{energy['seconds']:.0f} s × {energy['cores']:.1f} cores, {wh(energy['kwh'])}",
                paper,
            ]
        )
    return rows


def reuse_rows(known: Known) -> Rows:
    rows = []
    for size in (2, 5):
        for name in PARENTS:
            found = cells(known, f"reuse-{size}", name)
            scratch = cells(known, f"scratch-{size}", name)
            paper = _SCRATCH[name.partition("-")[0]] if size == 2 else "–"
            if not found:
                rows.append([f"{size} of {name}", NOT_MEASURED, "", "", "", paper])
                continue
            both = [
                100 * (found[key]["accuracy"] - scratch[key]["accuracy"]) for key in found if key in scratch
            ]
            rows.append(
                [
                    f"{size} of {name}, {many(len(found), 'set')}",
                    f"{100 * mean(value['accuracy'] for value in found.values()):.2f}",
                    spread([100 * (value["accuracy"] - value["restricted"]) for value in found.values()]),
                    f"{spread(both)} ({many(len(both), 'set')})" if both else NOT_MEASURED,
                    f"{100 * mean(value['flops'] for value in found.values()):.0f} %",
                    paper,
                ]
            )
    return rows


def across_rows(known: Known) -> Rows:
    rows = []
    for one, other in (("C10", "C100"), ("C10", "TINY"), ("C100", "TINY")):
        found = cells(known, "across", f"{one}-R20x{other}-R20")
        paper = "84.7; 89.8 after continuous learning; trained 97.4" if other == "C100" else "–"
        if not found:
            rows.append([f"{one} × {other}", NOT_MEASURED, "", paper])
            continue
        alone, helped = ([100 * value[key] for value in found.values()] for key in ("accuracy", "calibrated"))
        rows.append(
            [
                f"{one} × {other}, {many(len(found), 'pair')}",
                f"{mean(alone):.2f} (worst {min(alone):.1f})",
                f"{mean(helped):.2f} (worst {min(helped):.1f})",
                paper,
            ]
        )
    return rows


_CASES = {
    "replace-weak": ("a weak parent's class by a better one's", "+0.7 (whole classifier)"),
    "replace-damaged": ("classes damaged by label noise, by a sound parent's", "–"),
    "replace-equal": ("a class swapped between equals", "–"),
    "replace-inter": ("a class by another data set's", "+2.5 (whole classifier)"),
}


def replace_rows(known: Known) -> Rows:
    rows = []
    for case, (what, paper) in _CASES.items():
        found: dict[str, list[dict[str, float]]] = {}
        for key, value in cells(known, case).items():
            pair, _, labels = key.partition("/")
            # One class and two at once are different repairs.
            found.setdefault(
                pair.replace("<", " ← ") + (", two at once" if "+" in labels else ""), []
            ).append(value)
        if not found:
            rows.append([what, NOT_MEASURED, "", "", paper])
        for pair, values in found.items():
            before, after = (
                100 * mean(value[f"target_{when}"] for value in values) for when in ("before", "after")
            )
            rows.append(
                [
                    f"{what}: {pair}, {many(len(values), 'cell')}",
                    f"{before:.1f} → {after:.1f}",
                    spread([100 * (value["target_after"] - value["target_before"]) for value in values]),
                    spread([100 * (value["others_after"] - value["others_before"]) for value in values]),
                    paper,
                ]
            )
    return rows


def energy_figures(known: Known) -> dict[str, float]:
    """kWh of C10 ResNet-20, of what was measured: `decompose` (all ten modules, once), `two` (no more than
    two of them), `no-data` (all ten, without images), `reuse` (composing two), `ten` (training on all
    classes), `pair` (training for the two) and `long` (the same for as many epochs as `ten`). What is trained
    is from a tenth of an epoch; `pair` and `long` are from networks for pairs where there are some."""
    found: dict[str, float] = {}
    if (value := cells(known, "whole").get("C10-R20")) is not None:
        found["decompose"] = value["energy"]["kwh"]
    for kind in ("two", "no-data"):
        if made := cells(known, f"decompose-{kind}", "C10-R20"):
            found[kind] = mean(value["decompose"]["kwh"] for value in made.values())
    if reused := cells(known, "reuse-2", "C10-R20"):
        found["reuse"] = mean(value["energy"]["kwh"] for value in reused.values())
    if (value := cells(known, "epoch").get("C10-R20")) is not None:
        image = value["energy"]["kwh"] / value["images"]
        found["ten"] = image * value["of"] * value["epochs"]
        # A fifth of the images: those of two classes of ten.
        found["pair"] = image * value["of"] / 5 * PAIR_EPOCHS
        if trained := cells(known, "scratch-2", "C10-R20"):
            found["pair"] = mean(value["energy"]["kwh"] for value in trained.values())
        found["long"] = found["pair"] / PAIR_EPOCHS * value["epochs"]
    return found


def energy_rows(known: Known) -> Rows:
    found, rows = energy_figures(known), []
    epochs = next((value["epochs"] for value in cells(known, "epoch").values()), 200)
    trained = cells(known, "scratch-2", "C10-R20").values()
    right = f", {100 * mean(value['accuracy'] for value in trained):.1f} % right" if trained else ""
    names = {
        "ten": f"training on all ten classes, {epochs} epochs",
        "pair": f"training for the two classes, {PAIR_EPOCHS} epochs{right}",
        "long": f"training for the two classes, {epochs} epochs",
    }
    paper = "23.7 × (reuse), decomposition not counted"
    for other, what in names.items():
        if not {"decompose", "reuse", other} <= found.keys():
            rows.append([what, NOT_MEASURED, "", "", "", "", paper])
            continue
        energy, reuse = found[other], found["reuse"]
        saved = energy - reuse
        counted = [
            f"{energy / (reuse + found[kind]):,.1f} ×" if kind in found else NOT_MEASURED
            for kind in ("decompose", "two", "no-data")
        ]
        paid = f"{max(int(np.ceil(found['decompose'] / saved)), 1)}" if saved > 0 else "never"
        rows.append([f"{what}: {wh(energy)}", f"{energy / reuse:,.0f} ×", *counted, paid, paper])
    return rows


def tables(known: Known, findings: Mapping[str, str]) -> str:
    """All tables, with what their columns mean, below the `findings` of their titles."""
    parts = [
        (
            "Decomposition",
            "All modules of a parent composed as they are, on the whole test split; Jaccard index of a "
            "module's channels with its parent's / with another module's. Where only some modules were "
            "validated (`--examine`), the others reuse the threshold that these found.",
            ("parent", "top-1", "top-5", "Jaccard", "multiply-adds", "decomposing", "paper"),
            whole_rows(known),
        ),
        (
            "Reuse within a data set",
            "Classes of one parent composed as they are, without images. Beside them the parent's own logits "
            "restricted to the same classes, and the same architecture trained from scratch on all training "
            "images of these classes. The paper's figure is against the latter.",
            ("classes", "top-1", "against restricted logits", "against scratch", "multiply-adds", "paper"),
            reuse_rows(known),
        ),
        (
            "Reuse across data sets",
            "One class of each parent, both ResNet-20; mean recall of the two. Without a sample of the "
            "partner, and calibrated with 20 labelled training images of each class.",
            ("parents", "no sample", "20 images", "paper"),
            across_rows(known),
        ),
        (
            "Replacement",
            "Recall of the replaced classes, and what they gain and the others of the classifier lose, in "
            "points.",
            ("what", "recall", "gain", "change of the others", "paper"),
            replace_rows(known),
        ),
        (
            "Energy",
            "C10 ResNet-20: composing two modules against training from scratch; without decomposition, with "
            "that of all ten classes counted, of the two alone, and of all without images; and after how "
            "many reuses that of all ten is paid back, by one power model. Training on all classes is "
            f"extrapolated from a tenth of an epoch, that for the two from {PAIR_EPOCHS} epochs.",
            (
                *("against", "one reuse", "all ten decomposed", "the two decomposed", "without images"),
                *("paid back after", "paper"),
            ),
            energy_rows(known),
        ),
    ]
    return "\n".join(
        f"### {title}\n\n"
        + (f"{findings[title]}\n\n" if title in findings else "")
        + f"{what}\n\n{markdown_table(header, rows)}"
        for title, what, header, rows in parts
    )
