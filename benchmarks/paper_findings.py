"""The paper's findings, each reproduced or not by what paper.py has measured, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from paper_tables import PAIR_EPOCHS, cells, energy_figures, many

__all__ = ["findings"]

Known = Mapping[str, Any]


def findings(known: Known) -> dict[str, str]:
    """By title of the table that it stands above; nothing of what was not measured."""
    said = {
        "Decomposition": decomposition(known),
        "Reuse within a data set": reuse(known),
        "Reuse across data sets": across(known),
        "Replacement": replacement(known),
        "Energy": energy(known),
    }
    return {title: text for title, text in said.items() if text}


def decomposition(known: Known) -> str:
    whole = cells(known, "whole")
    if not whole:
        return ""
    losses = {name: 100 * (value["parent_top1"] - value["top1"]) for name, value in whole.items()}
    worst = max(losses, key=lambda name: losses[name])
    lost = round(mean(losses.values()), 2) + 0.0
    kept = 100 * mean(value["jaccard_parent"] for value in whole.values())
    word = "not reproduced" if lost <= 0.1 else "reproduced, by less" if lost < 1.77 else "reproduced"
    return (
        f"*Decomposition costs accuracy* (1.77 points on average): {word}. All modules of "
        f"{len(whole)} of nine parents, {sum(value['modules'] for value in whole.values())} of 930, lose "
        f"{lost:.2f} points on average when composed, at most {losses[worst]:.2f} ({worst}). That "
        f"proves little alone: by default a module keeps {kept:.0f} % of its parent's channels (the paper's "
        "63 %), and all of them together nearly the whole network; what is lost where channels go stands "
        "[below](#accuracy-against-multiply-adds). The parents have batch-norm; the paper's have not."
    )


def reuse(known: Known) -> str:
    reused, scratch = cells(known, "reuse-2"), cells(known, "scratch-2")
    sets = [value for size in (2, 5) for value in cells(known, f"reuse-{size}").values()]
    if not sets:
        return ""
    lost = 100 * mean(value["restricted"] - value["accuracy"] for value in sets) + 0.0
    text = (
        "*Modules of a few classes answer like their parent*: reproduced, against the harder baseline of its "
        f"own restricted logits, which the paper does not report: {lost:.2f} points lost on "
        f"{many(len(sets), 'set')}, with nearly all channels kept."
    )
    if both := [key for key in reused if key in scratch]:
        gains = [100 * (reused[key]["accuracy"] - scratch[key]["accuracy"]) for key in both]
        word = "reproduced" if mean(gains) > 0 else "not reproduced"
        trained = 100 * mean(scratch[key]["accuracy"] for key in both)
        text += (
            f" *They are better than a network trained from scratch for the pair* (+6.6 on CIFAR-10): {word} "
            f"({signed(mean(gains))} points on {many(len(both), 'pair')}), and worth little, for that "
            f"network was trained for {PAIR_EPOCHS} epochs only, and {trained:.1f} % is not the best that it "
            "can do."
        )
    return text


def across(known: Known) -> str:
    pairs = cells(known, "across")
    if not pairs:
        return ""
    paper = {key: value for key, value in pairs.items() if key.startswith("C10-R20xC100-R20")} or pairs
    alone, helped = (
        100 * mean(value[name] for value in paper.values()) for name in ("accuracy", "calibrated")
    )
    word = "reproduced" if alone <= 90 else "reproduced, by far less" if alone < 97.4 else "not reproduced"
    every = 100 * mean(value["accuracy"] for value in pairs.values())
    return (
        "*Composing across data sets loses accuracy* (trained 97.4, composed 84.7, with samples 89.8): "
        f"{word}. Here {alone:.1f} % without a sample, {helped:.1f} % with 20 images of each class, on "
        f"{many(len(paper), 'pair')} of those data sets; {every:.1f} % without a sample on all "
        f"{many(len(pairs), 'pair')} below. No network was trained for these pairs."
    )


def replacement(known: Known) -> str:
    weak = [*cells(known, "replace-weak").values(), *cells(known, "replace-damaged").values()]
    equal, inter = (list(cells(known, f"replace-{case}").values()) for case in ("equal", "inter"))
    said = []
    if weak:
        word = "reproduced" if gain(weak) > 0 else "not reproduced"
        said.append(
            f"*A better parent's module repairs a class*: {word}, where the class is weak or damaged "
            f"({signed(gain(weak))} points for the class, {signed(gain(weak, 'others'))} for the others, "
            f"{many(len(weak), 'cell')})."
        )
    if equal:
        said.append(
            "Where nothing is wrong it repairs nothing: swapped between equals, the class has "
            f"{signed(gain(equal))} points and the others {signed(gain(equal, 'others'))} "
            f"({many(len(equal), 'cell')})."
        )
    if inter:
        word = "reproduced" if gain(inter) > 0 else "not reproduced"
        said.append(
            f"*A module of another data set improves the class* (+2.5 for the whole classifier): {word} "
            f"({signed(gain(inter))} points for the class, {signed(gain(inter, 'others'))} for the others, "
            f"{many(len(inter), 'cell')}): it knows the class from other pictures, and these parents are not "
            "as weak as the paper's."
        )
    return " ".join(said)


def energy(known: Known) -> str:
    figures = energy_figures(known)
    if not {"decompose", "reuse", "ten"} <= figures.keys():
        return ""
    ratio = figures["ten"] / (figures["decompose"] + figures["reuse"])
    word = "reproduced" if ratio > 1 else "not reproduced"
    text = (
        f"*Reuse takes a fraction of the energy of training*: {word} with decomposition "
        f"counted, which the paper leaves out: {ratio:,.0f} × less than training on all ten classes"
    )
    if "pair" not in figures:
        return f"{text}."
    pair = figures["pair"]
    least = pair / (figures["decompose"] + figures["reuse"])
    text += f", {least:,.1f} × less than {PAIR_EPOCHS} epochs for the pair."
    names = {"two": "decomposing no more than the two", "no-data": "decomposing without images (`--no-data`)"}
    cheaper = [
        f"{pair / (figures[kind] + figures['reuse']):,.0f} × for {name}"
        for kind, name in names.items()
        if kind in figures
    ]
    if cheaper:
        text += (
            f" All ten modules are more than a pair needs: {', '.join(cheaper)}; the goal is 50 ×. Without "
            "images a module keeps every channel, and nothing is known of its recall; with images half of "
            "the work is to validate and measure cut networks on held-out images."
        )
    return text


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def gain(values: Iterable[Mapping[str, float]], whose: str = "target") -> float:
    """Points of recall."""
    return 100 * mean(value[f"{whose}_after"] - value[f"{whose}_before"] for value in values)
