"""Composed classifiers beside their baselines, measured: the tables of compositions in docs/evaluation.md.

    python benchmarks/composition.py --data D --weights W --out DIR [--minutes 60] [--only pairs,across]

D holds image folders cifar10/{train,test} and cifar100/{train,test}, W the parents' safetensors files. DIR
keeps every single measurement: run it again to go on where it stopped, or several times at once to share the
work. Training images make and tune modules, test images measure, and nothing is chosen by what is measured
here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import across
import halves
import shared_trunk
import speed
import subsets
import taught
import wide
from ledger import Ledger, Row, markdown
from modhub.composition import Budget, ComposedClassifier, Part, compose
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.devices import pick_device
from subsets import DRAWS, Build
from world import World

TEN = ("C10-R20", "C10-R32", "C10-R44", "C10-R56", "C10-T")
MAIN = ("C10-R20", "C10-R56", "C10-T")
NO_DATA = (0.7, 0.5, 0.35, 0.8, 0.9)
TUNED = (0.5, 0.35)
TIMES = (0.7, 0.6)


def all_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    return [subsets.all_classes(world, ledger, chosen(arguments, (*TEN, "C100-R20")))]


def chosen(arguments: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Those of `names` that --parents asks for."""
    return [name for name in names if name in arguments.parents.split(",")]


def pets_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """Cat or dog, from one parent: what the README shows."""
    return [
        speed.pets(world, ledger, name, what)
        for name in chosen(arguments, MAIN)
        for what in ("default", "flops=0.7", "flops=0.5", "time=0.6")
    ]


def epoch_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    return [speed.epoch(world, ledger, name) for name in chosen(arguments, ("C10-R20",))]


def no_data(world: World, seed: int = 0) -> Build:
    synthesizer = world.synthesizer if seed == 0 else ImageSynthesizer(seed, world.device)
    return lambda parts, budget: compose(
        parts, budget=budget, seed=seed, synthesizer=synthesizer, device=world.device
    )


def random_channels(world: World, kind: str) -> dict[str, Build]:
    """The same budget spent on random channels, compensated and refitted like any other choice."""

    def drawn(seed: int) -> Build:
        return lambda parts, budget: compose(
            parts, budget=budget, control=seed, synthesizer=world.synthesizer, device=world.device
        )

    return {f"{kind}-{seed}": drawn(seed) for seed in range(DRAWS)}


def tuned(world: World, name: str, seed: int = 0) -> Build:
    def build(parts: list[Part], budget: Budget) -> ComposedClassifier:
        labels = [part.name for part in parts]
        images = subsets.tuning_images(world, name, labels, seed)
        return compose(parts, budget=budget, tune=images, seed=seed, device=world.device)

    return build


def pair_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """2 of 10: no data, tuned, and the random mask, on the same pairs."""
    rows = []
    for name in chosen(arguments, MAIN):
        pairs = subsets.class_sets(world.parent(name).labels, 2, arguments.sets)
        plain = subsets.frontier(world, ledger, name, pairs, arguments.budgets, {"pair": no_data(world)})
        tune = subsets.frontier(
            world, ledger, name, pairs[: arguments.tuned_sets], TUNED, {"tuned": tuned(world, name)}
        )
        chance = subsets.frontier(
            world, ledger, name, pairs[: arguments.random_sets], (0.7, 0.5), random_channels(world, "random")
        )
        plot(
            arguments.out / f"frontier-{name}.svg", name, {"no data": plain, "tuned": tune, "random": chance}
        )
        rows += [
            budget_row("2 of 10, no data", name, "≤ 1 pp at ≤ 70 % FLOPs", plain, {0.7: 1.0}),
            budget_row(
                "2 of 10, tuned", name, "≤ 0.5 pp at ≤ 50 %, ≤ 1 pp at ≤ 35 %", tune, {0.5: 0.5, 0.35: 1.0}
            ),
            budget_row(
                "2 of 10, random channels, same compensation", name, "beaten by a wide margin", chance, None
            ),
        ]
    return rows


def seed_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """2 of 10 at half the multiply-adds with other seeds: of what is imagined, which images tune, how all are
    changed and drawn."""
    rows = []
    for name in chosen(arguments, MAIN):
        pairs = subsets.class_sets(world.parent(name).labels, 2, arguments.seed_sets)
        plain = {f"seed-{seed}": no_data(world, seed) for seed in range(DRAWS)}
        tune = {f"tuned-seed-{seed}": tuned(world, name, seed) for seed in range(DRAWS)}
        for what, builds in (("no data", plain), ("tuned", tune)):
            found = subsets.frontier(world, ledger, name, pairs, (0.5,), builds)
            rows.append(budget_row(f"2 of 10, {what}, other seeds", name, "reported", found, None))
    return rows


def timed_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """2 of 10 under budgets of time, without data and tuned."""
    rows = []
    for name in chosen(arguments, MAIN):
        pairs = subsets.class_sets(world.parent(name).labels, 2, arguments.sets)
        tuned_pairs = pairs[: arguments.tuned_sets]
        plain = subsets.frontier(world, ledger, name, pairs, TIMES, {"time": no_data(world)}, limit="time")
        tune = subsets.frontier(
            world, ledger, name, tuned_pairs, TIMES, {"time-tuned": tuned(world, name)}, limit="time"
        )
        chance = subsets.frontier(
            world,
            ledger,
            name,
            pairs[: arguments.random_sets],
            TIMES[:1],
            random_channels(world, "time-random"),
            limit="time",
        )
        times = " and ".join(f"{time:g}" for time in TIMES)
        rows += [
            budget_row(f"2 of 10, no data, time={times}", name, "reported", plain, None),
            budget_row(f"2 of 10, tuned, time={times}", name, "reported", tune, None),
            budget_row(
                f"2 of 10, random channels and branches, time={TIMES[0]:g}", name, "beaten", chance, None
            ),
        ]
    return rows


def latency_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    budgets = {
        "flops=0.5": Budget(flops=0.5),
        **{f"time={time:g}": Budget(time=time) for time in TIMES},
        "flops=0.5 and time=0.6": Budget(flops=0.5, time=0.6),
    }
    return [
        speed.latency(world, ledger, name, what, budget)
        for name in chosen(arguments, MAIN)
        for what, budget in budgets.items()
    ]


def five_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for name in chosen(arguments, MAIN):
        fives = subsets.class_sets(world.parent(name).labels, 5, 20)[: arguments.tuned_sets]
        found = subsets.frontier(world, ledger, name, fives, (0.7,), {"tuned": tuned(world, name)})
        rows.append(budget_row("5 of 10, tuned", name, "≤ 0.5 pp at ≤ 70 % FLOPs", found, {0.7: 0.5}))
    return rows


def alone_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for name in chosen(arguments, MAIN):

        def build(parts: list[Part], budget: Budget, name: str = name) -> ComposedClassifier:
            # Images of all classes: "not a cat" must be seen too. Their labels are not read.
            images = subsets.tuning_images(world, name, world.parent(name).labels)
            return compose(parts, budget=budget, tune=images, device=world.device)

        def build_on_own(parts: list[Part], budget: Budget, name: str = name) -> ComposedClassifier:
            images = subsets.tuning_images(world, name, [part.name for part in parts])
            return compose(
                parts, budget=budget, tune=images, synthesizer=world.synthesizer, device=world.device
            )

        target = "≤ 1 pp at ≤ 35 % FLOPs"
        found = subsets.alone(world, ledger, name, 0.35, {"alone": build})
        rows.append(alone_row("one module alone, tuned: balanced accuracy", name, target, found, 1.0))
        for budget, what, builds in (
            (0.7, "no data", {"alone-none": no_data(world)}),
            (0.5, "no data", {"alone-none": no_data(world)}),
            (0.5, "no data, random channels", random_channels(world, "alone-random")),
            (0.5, "tuned on its own images only", {"alone-own": build_on_own}),
        ):
            found = subsets.alone(world, ledger, name, budget, builds)
            rows.append(alone_row(f"one module alone, {what}, {budget:g}", name, "reported", found, None))
    return rows


def alone_row(what: str, name: str, target: str, found: dict[str, float] | None, most: float | None) -> Row:
    """Losses in pp of balanced accuracy; `most` is what may be lost against the parent's own answer."""
    if found is None:
        return Row(what, name, target, "not measured yet", None)
    losses = {key: 100 * (found[key] - found["accuracy"]) for key in ("argmax", "whole")}
    text = (
        f"{100 * found['accuracy']:.2f} % at {100 * found['flops']:.0f} % FLOPs, "
        f"{100 * found['params']:.0f} % of the parameters ({found['sets']:.0f} classes{_draws(found)}): "
        f"{losses['argmax']:.2f} pp behind the parent's largest logit, {losses['whole']:.2f} pp behind its "
        "calibrated log-odds"
    )
    return Row(what, name, target, text, None if most is None else losses["argmax"] <= most)


def across_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for name in chosen(arguments, MAIN):
        pairs = across.class_pairs(world, name, "C100-R20", arguments.pairs, seed=2022)
        rows.append(across.pairs_across(world, ledger, name, "C100-R20", pairs))
        rows.append(across.pairs_across(world, ledger, name, "C100-R20", pairs, shots=10))
        rows.append(across.pairs_across(world, ledger, name, "C100-R20", pairs, whole=True))
        rows.append(across.pairs_across(world, ledger, name, "C100-R20", pairs, shots=10, whole=True))
        rows.append(across.probe_of_pairs(world, ledger, name, "C100-R20", pairs))
        rows.append(across.mixed_calibration(world, ledger, name, "C100-R20"))
    return rows


def strange_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """ "None of these": images of the other data set, shown to few, half and all classes of a parent."""
    return (
        [
            across.none_of_these(world, ledger, name, foreign, size)
            for names, foreign in ((MAIN, "cifar100"), (("C100-R20",), "cifar10"))
            for name in chosen(arguments, names)
            for size in (2, 5, None)
        ]
        + [
            across.none_of_these(world, ledger, name, "cifar100", 2, 4, flops=flops)
            for name in chosen(arguments, MAIN)
            for flops in (0.7, 0.5)
        ]
        + [
            across.none_of_these(world, ledger, name, "cifar100", 2, 4, flops=0.5, tuned=tuned)
            for name in chosen(arguments, MAIN)
            for tuned in ("own", "all")
        ]
    )


def head_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    names = chosen(arguments, ("C100-R20", "C10-R20", "C10-T"))
    return [shared_trunk.two_heads(world, ledger, name) for name in names]


def half_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    return halves.ten_of_two(world, ledger)


def teach_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    return [
        row for name in chosen(arguments, ("C10-R56",)) for row in taught.taught_classes(world, ledger, name)
    ]


def wide_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    """Left open on the CPU, unless --wide says for how many epochs to train here."""
    epochs = arguments.wide or (wide.RECIPE.epochs if world.device.type == "cuda" else None)
    if epochs is None:
        text = "left open: it takes --device cuda, or --wide EPOCHS and patience"
        return [Row("2 of 10 on a wide network", wide.PARENT, "≤ 0.5 pp at ≤ 25 % FLOPs", text, None)]
    sets = subsets.class_sets(world.images("cifar10", "train").labels, 2, arguments.tuned_sets)
    recipe = replace(wide.RECIPE, epochs=epochs)
    return wide.two_of_ten(world, ledger, sets, subsets.TUNE_IMAGES, recipe)


def speed_rows(world: World, ledger: Ledger, arguments: argparse.Namespace) -> list[Row]:
    return [
        speed.wide_latency(ledger, 0.5),
        speed.one_pass(world, ledger, "C10-R20"),
        speed.one_pass(world, ledger, "C100-R20"),
        speed.compose_hundred(world, ledger, "C100-R20"),
        speed.decomposing(world, "C10-R56", 2),
        speed.decomposing(world, "C100-R20", 5),
    ]


def budget_row(
    what: str,
    name: str,
    target: str,
    found: dict[float, dict[str, float]],
    limits: dict[float, float] | None,
) -> Row:
    text = "; ".join(
        f"{value['loss']:.2f} ± {value['error']:.2f} pp at {100 * value['flops']:.0f} % FLOPs "
        f"({value['sets']:.0f} sets, the worst {value['worst']:.2f}{_draws(value)}, "
        f"{value['seconds']:.0f} s each)"
        for value in found.values()
    )
    met = None
    if limits is not None and all(budget in found for budget in limits):
        met = all(found[budget]["loss"] <= limit for budget, limit in limits.items())
    return Row(what, name, target, text or "not measured yet", met)


def _draws(value: dict[str, float]) -> str:
    """How often something random was drawn, and what the best and the worst draw lose, mean over all sets."""
    if value["draws"] == 1:
        return ""
    text = f", {value['draws']:.0f} draws"
    if "luckiest" in value:
        text += f" of {value['luckiest']:.2f} to {value['unluckiest']:.2f}"
    return text


def plot(path: Path, name: str, curves: dict[str, dict[float, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    for label, found in curves.items():
        points = sorted((100 * value["flops"], value["loss"], value["error"]) for value in found.values())
        if points:
            x, y, error = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=error, marker="o", label=label)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="% of the parent's FLOPs", ylabel="pp lost against restricted logits", title=name)
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


GROUPS = {
    "all": all_rows,
    "pets": pets_rows,
    "epoch": epoch_rows,
    "speed": speed_rows,
    "across": across_rows,
    "strange": strange_rows,
    "pairs": pair_rows,
    "seeds": seed_rows,
    "timed": timed_rows,
    "latency": latency_rows,
    "five": five_rows,
    "alone": alone_rows,
    "heads": head_rows,
    "halves": half_rows,
    "teach": teach_rows,
    "wide": wide_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--minutes", type=float, help="measure nothing new after so long")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--parents", default=",".join((*TEN, "C100-R20")), help="which parents")
    parser.add_argument("--sets", type=int, default=45, help="class pairs without data (45: all)")
    parser.add_argument(
        "--budgets",
        type=lambda text: tuple(map(float, text.split(","))),
        default=NO_DATA,
        help="of class pairs without data",
    )
    parser.add_argument("--tuned-sets", type=int, default=45, help="class sets with tuning")
    parser.add_argument("--seed-sets", type=int, default=5, help=f"class pairs with {DRAWS} seeds")
    parser.add_argument(
        "--random-sets", type=int, default=10, help=f"class pairs with random channels, {DRAWS} draws each"
    )
    parser.add_argument("--pairs", type=int, default=200, help="pairs across parents")
    parser.add_argument("--wide", type=int, metavar="EPOCHS", help="train the wide network here, so long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where networks are composed: cpu, cuda or auto")
    parser.add_argument("--keys", default="", help="measure only what DIR keeps by names like this (regex)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(arguments.data, arguments.weights, arguments.out, pick_device(arguments.device))
    ledger = Ledger(
        arguments.out / "measurements.jsonl",
        seconds=None if arguments.minutes is None else 60 * arguments.minutes,
        only=arguments.keys,
    )
    rows: list[Row] = []
    for group in arguments.only.split(","):
        rows += GROUPS[group](world, ledger, arguments)
    table = markdown(rows)
    (arguments.out / "composition.md").write_text(table)
    (arguments.out / "composition.json").write_text(
        json.dumps([row.cells() for row in rows], indent=1) + "\n"
    )
    print(table)
    if ledger.skipped:
        print(f"{ledger.skipped} measurements are still to be made: run it again to go on.")


if __name__ == "__main__":
    main()
