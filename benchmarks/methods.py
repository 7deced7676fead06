"""Decomposition methods on equal terms: the same parent, images, sets of classes and controls for each.

    python benchmarks/methods.py --data D --weights W --out DIR [--methods relevance,circuit,FILE.py:CLASS]

D and W are those of composition.py. Each method decomposes the parent with its own settings and the images
that `modhub decompose` would give it, `--seeds` times; `seam`, whose mask is for one set of classes, once for
each set. Modules are composed without tuning or distillation: all of them, fives, pairs, and each alone,

- at the method's own size, beside what the whole parent says restricted to the same classes, and beside
  random channels of the same multiply-adds, made up for in the same way;
- at 70 and 50 % of the parent's multiply-adds, all methods alike: channels go in the method's own ranking
  (the module's `relevance`; for the method `relevance` in the composer's order, which it was made for) and
  are made up for by the same statistics. There `random` is the control. `concern` ranks no channels.

Test images measure only. DIR keeps every measurement: run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ledger import Ledger
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.calibration.calibrator import log_odds
from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser, mask_within
from modhub.composition.compiler import join_passes
from modhub.composition.part_tensors import relevance_of
from modhub.composition.trunk_plan import trunk_plans
from modhub.decomposition import METHODS
from modhub.pruning.baselines import relevance_order
from modhub.text import parse_json, pretty_json
from subsets import class_sets, flops_share
from world import PARENTS, World

OWN = "own"
SHARES = ("0.7", "0.5")
FOR_A_SET = ("seam",)
"""Methods whose modules are for one set of classes."""
UNRANKED = ("concern",)
CLASSES = (10, 5, 2, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One method on one parent with one seed."""

    world: World
    parent: str
    method: str
    seed: int
    per_class: int | None
    fit_images: int

    @property
    def called(self) -> str:
        return self.method.rpartition(":")[2].lower()

    def key(self, size: str, labels: tuple[str, ...]) -> str:
        """Of a measurement."""
        case = f"{self.parent}/{self.called}/{self.seed}/{self.fit_images}/{self.per_class}"
        return f"{case}/{size}/{'+'.join(labels)}"

    def directory(self, labels: tuple[str, ...]) -> Path:
        """Where the modules for these classes are."""
        name = f"{self.called}-{self.seed}-{self.fit_images}"
        if self.called in FOR_A_SET:
            name += "-" + "+".join(labels)
        return self.world.out / "methods" / self.parent / name

    def parts(self, labels: tuple[str, ...]) -> list[Part]:
        """The modules of these classes, made once."""
        directory, given = self.directory(labels), PARENTS[self.parent]
        if not directory.exists():
            settings = dataclasses.replace(
                self.world.settings(self.parent),
                method=self.method,
                seed=self.seed,
                images_per_class=self.fit_images,
                only=list(labels) if self.called in FOR_A_SET else None,
            )
            images = self.world.images(given.dataset, "train")
            done = decompose_to(directory, given.architecture, images, settings)
            directory.with_suffix(".json").write_bytes(pretty_json(done.to_dict()))
        return parts_of(read_artifact(directory), list(labels))

    def costs(self, labels: tuple[str, ...]) -> dict[str, float]:
        """Of the decomposition: seconds and kWh (where known), and kilobytes and kept channels of a module,
        mean over them."""
        path = self.directory(labels).with_suffix(".json")
        done = parse_json(path.read_bytes(), path.name)
        modules = done["modules"]
        kwh = done.get("energy", {}).get("kwh")
        return {
            **({} if kwh is None else {"kwh": kwh}),
            "seconds": done["seconds"],
            "kilobytes": float(np.mean([module["bytes"] for module in modules])) / 1e3,
            "kept": float(np.mean([module["kept_channels_fraction"] for module in modules])),
        }


@cache
def tested(
    world: World, parent: str, per_class: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Test images (uint8), their targets and the whole parent's logits."""
    images = world.images(PARENTS[parent].dataset, "test")
    if per_class is not None:
        images = images.sample(per_class, 0)
    batches = list(images.batches(250))
    with torch.inference_mode():
        logits = torch.cat([world.network(parent)(pixels) for pixels, _ in batches])
    indices = np.concatenate([numbers for _, numbers in batches])
    return torch.cat([pixels for pixels, _ in batches]), torch.from_numpy(images.targets[indices]), logits


def scores(classifier: ComposedClassifier, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([classifier(part) for part in pixels.split(250)])


def at_share(parts: Sequence[Part], share: float, method: str, seed: int | None = None) -> ComposedClassifier:
    """The modules at a share of the multiply-adds: channels gone in the method's ranking, or with a `seed` at
    random."""
    plans, budget = trunk_plans(parts), Budget(flops=share)
    passes = []
    for plan in plans:
        if seed is not None or method == "relevance":
            mask = ChannelChooser(plan, seed).mask(budget)
        else:
            worth = np.sum([relevance_of(part, plan.space) for part in plan.parts], axis=0)
            order = relevance_order(worth, plan.space, np.ones(plan.space.slots))
            mask = mask_within(plan.trunk, plan.space, order, budget)
        passes.append(plan.compile(mask))
    return join_passes(parts, plans, passes, reject=False)


def measured(case: Case, labels: tuple[str, ...], size: str) -> dict[str, float]:
    """A composition at `size`, beside the parent and, at the method's own size, beside random channels."""
    parts = case.parts(labels)
    classifier = compose(parts) if size == OWN else at_share(parts, float(size), case.called)
    report = classifier.trunk_passes[0].report
    share = flops_share(classifier)
    found = {
        "flops": share,
        "params": report.kept_params_fraction,
        "passes": len(classifier.trunk_passes),
        "accuracy": answered(case, labels, parts, classifier),
        "parent": answered(case, labels, parts, None),
    }
    if size == OWN and share < 1:
        found["random"] = answered(case, labels, parts, at_share(parts, share, case.called, case.seed))
    elif size == OWN:
        found["random"] = found["accuracy"]
    return found


def answered(
    case: Case, labels: tuple[str, ...], parts: Sequence[Part], classifier: ComposedClassifier | None
) -> float:
    """Top-1 among several classes, on their images; of one alone the balanced accuracy of its log-odds being
    positive, on all. Of the whole parent where there is no classifier."""
    pixels, targets, logits = tested(case.world, case.parent, case.per_class)
    known = case.world.parent(case.parent).labels
    if len(labels) == 1:
        row = known.index(labels[0])
        if classifier is None:
            odds = log_odds(logits.double().numpy(), row, parts[0].module.manifest.calibration)
        else:
            odds = scores(classifier, pixels)[:, 0].numpy()
        return balanced_accuracy(odds > 0, (targets == row).numpy())
    rows = torch.tensor(
        [known.index(label) for label in (labels if classifier is None else classifier.labels)]
    )
    chosen = torch.isin(targets, rows)
    said = logits[chosen][:, rows] if classifier is None else scores(classifier, pixels[chosen])
    return float((rows[said.argmax(1)] == targets[chosen]).double().mean())


def means(values: Sequence[Mapping[str, float] | None]) -> dict[str, float]:
    """The mean of every number, in percent; nothing where nothing was measured."""
    known = [value for value in values if value is not None]
    return {
        name: 100 * float(np.mean([value[name] for value in known])) for name in (known[0] if known else ())
    }


def rows_of(
    cases: Sequence[Case], ledger: Ledger, sets: Mapping[int, list[tuple[str, ...]]]
) -> dict[str, dict]:
    """By size and number of classes what one method does, mean over seeds and sets, and what it cost."""
    found: dict[str, dict] = {}
    for size in (OWN, *SHARES):
        for count, chosen in sets.items():
            if size != OWN and cases[0].called in UNRANKED:
                continue
            values = [
                ledger.measure(
                    case.key(size, labels),
                    lambda case=case, labels=labels, size=size: measured(case, labels, size),
                )
                for case in cases
                for labels in chosen
            ]
            found[f"{size}/{count}"] = means(values)
    costs = [
        ledger.measure(case.key("costs", labels), lambda case=case, labels=labels: case.costs(labels))
        for case in cases
        for labels in sets[max(sets)]
        if case.directory(labels).with_suffix(".json").exists()
    ]
    known = [cost for cost in costs if cost is not None]
    found["costs"] = {
        name: float(np.mean([cost[name] for cost in known])) for name in (known[0] if known else ())
    }
    return found


def own_table(rows: Mapping[str, dict]) -> str:
    head = ["method", "seconds", "a module", *(_title(count) for count in CLASSES)]
    lines = [head, ["---"] * len(head)]
    for method, row in rows.items():
        cost = row["costs"]
        cells = [
            f"`{method}`",
            f"{cost['seconds']:.0f}" if cost else "–",
            f"{cost['kilobytes']:.0f} kB, {100 * cost['kept']:.0f} % of the channels" if cost else "–",
        ]
        for count in CLASSES:
            value = row.get(f"{OWN}/{count}")
            cells.append(
                f"{value['accuracy']:.2f} / {value['parent']:.2f} / {value['random']:.2f}; "
                f"{value['flops']:.0f} %, {value['params']:.0f} %"
                if value
                else "not measured"
            )
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def share_table(rows: Mapping[str, dict]) -> str:
    head = [
        "method",
        *(f"{_title(count)}, {100 * float(size):.0f} %" for size in SHARES for count in CLASSES),
    ]
    lines = [head, ["---"] * len(head)]
    for method, row in rows.items():
        values = [row.get(f"{size}/{count}") for size in SHARES for count in CLASSES]
        cells = [f"{value['parent'] - value['accuracy']:.2f}" if value else "–" for value in values]
        lines.append([f"`{method}`", *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _title(count: int) -> str:
    return {10: "ten", 5: "five", 2: "two", 1: "one alone"}[count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--parents", default="C10-R20,C10-R56")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fives", type=int, default=5, help="sets of five classes, in a fixed random order")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--alone", type=int, default=10, help="classes measured alone")
    parser.add_argument("--test-images", type=int, help="per class; all by default")
    parser.add_argument("--fit-images", type=int, default=300, help="per class, to choose channels by")
    parser.add_argument("--quick", action="store_true", help="ResNet-20, one seed, few sets and images")
    parser.add_argument("--minutes", type=float, help="measure nothing new after so long")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.quick:
        quick = {"parents": "C10-R20", "seeds": 1, "fives": 1, "pairs": 3, "alone": 2}
        vars(arguments).update(quick, test_images=100, fit_images=100)
    torch.set_num_threads(arguments.threads)
    world = World(arguments.data, arguments.weights, arguments.out)
    ledger = Ledger(
        arguments.out / "measurements.jsonl",
        seconds=None if arguments.minutes is None else 60 * arguments.minutes,
    )
    text = []
    for parent in arguments.parents.split(","):
        labels = world.parent(parent).labels
        sets = {
            count: class_sets(labels, count, number)
            for count, number in zip(
                CLASSES, (1, arguments.fives, arguments.pairs, arguments.alone), strict=True
            )
        }
        rows = {}
        for method in arguments.methods.split(","):
            cases = [
                Case(world, parent, method, seed, arguments.test_images, arguments.fit_images)
                for seed in range(arguments.seeds)
            ]
            rows[cases[0].called] = rows_of(cases, ledger, sets)
        (arguments.out / f"methods-{parent}.json").write_text(json.dumps(rows, indent=1) + "\n")
        tests = "all test images" if arguments.test_images is None else f"{arguments.test_images} a class"
        text.append(
            f"**{parent}**, {arguments.seeds} seed(s), {arguments.fives} fives, {arguments.pairs} pairs, "
            f"{arguments.alone} alone, {arguments.fit_images} images a class to fit, tested on {tests}. "
            "At its own size: accuracy / whole parent restricted / random channels of as many multiply-adds; "
            "multiply-adds, parameters; all in one pass.\n\n"
            + own_table(rows)
            + "\n\nAt equal multiply-adds, points lost against the whole parent:\n\n"
            + share_table(rows)
        )
    print("\n\n".join(text))
    (arguments.out / "methods.md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
