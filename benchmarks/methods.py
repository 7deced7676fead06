"""Decomposition methods on equal terms: the same parent, images, sets of classes and baselines for each.

    python benchmarks/methods.py --data D --weights W --out DIR [--methods relevance,concern,FILE.py:CLASS]

D and W are those of composition.py. Each method decomposes the parent with its own settings and the images
that `modhub decompose` would give it. Its modules are composed as they are, without a budget, tuning or
distillation: all of them, pairs of classes, and each alone. Beside every figure stands what the whole parent
says, restricted to the same classes, and random channels of the same multiply-adds, made up for in the same
way. Test images measure only. DIR keeps every measurement: run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ledger import Ledger
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.calibration.calibrator import log_odds
from modhub.calibration.one_against_rest import balanced_accuracy
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.composition.choose_channels import ChannelChooser
from modhub.composition.compiler import join_passes
from modhub.composition.trunk_plan import trunk_plans
from modhub.text import parse_json, pretty_json
from subsets import DRAWS, class_sets, flops_share
from world import PARENTS, World

METHODS = "relevance,concern,random,activation"


def decomposed(world: World, name: str, method: str) -> tuple[list[Part], dict[str, float]]:
    """The modules, and what they cost: seconds, kilobytes and kept channels of a module, mean over them."""
    called = method.rpartition(":")[2].lower()
    directory = world.out / "methods" / name / called
    if not directory.exists():
        given = PARENTS[name]
        done = decompose_to(
            directory,
            given.architecture,
            world.images(given.dataset, "train"),
            dataclasses.replace(world.settings(name), method=method),
        )
        (directory.parent / f"{called}.json").write_bytes(pretty_json(done.to_dict()))
    done = parse_json((directory.parent / f"{called}.json").read_bytes(), f"{called}.json")
    modules = done["modules"]
    return parts_of(read_artifact(directory)), {
        "seconds": done["seconds"],
        "kilobytes": float(np.mean([module["bytes"] for module in modules])) / 1e3,
        "kept": float(np.mean([module["kept_channels_fraction"] for module in modules])),
    }


def random_channels(parts: Sequence[Part], flops: float, seed: int) -> ComposedClassifier:
    """The same modules with channels that went at random, to the same share of the multiply-adds."""
    plans = trunk_plans(parts)
    budget = Budget(flops=flops)
    passes = [plan.compile(ChannelChooser(plan, seed).mask(budget)) for plan in plans]
    return join_passes(parts, plans, passes, reject=False)


def of_set(world: World, name: str, parts: list[Part]) -> dict[str, float]:
    """A set of modules composed, with the two baselines."""
    classifier, dataset = compose(parts), PARENTS[name].dataset
    share = flops_share(classifier)
    drawn = [
        world.accuracy(random_channels(parts, share, seed) if share < 1 else classifier, dataset)
        for seed in range(DRAWS if share < 1 else 1)
    ]
    return {
        "accuracy": world.accuracy(classifier, dataset),
        "restricted": world.restricted(name, [part.name for part in parts]),
        "random": float(np.mean(drawn)),
        "flops": share,
    }


def of_one(world: World, name: str, part: Part) -> dict[str, float]:
    """Balanced accuracy of one module's log-odds being positive, of the whole parent's with the same
    calibration, and of random channels."""
    images = world.images(PARENTS[name].dataset, "test")
    positive = images.targets == images.labels.index(part.name)

    def says(classifier: ComposedClassifier) -> float:
        with torch.inference_mode():
            scores = torch.cat([classifier(pixels)[:, 0] for pixels, _ in images.batches(250)])
        return balanced_accuracy(scores.numpy() > 0, positive)

    classifier = compose([part])
    share = flops_share(classifier)
    drawn = [
        says(random_channels([part], share, seed) if share < 1 else classifier)
        for seed in range(DRAWS if share < 1 else 1)
    ]
    logits, _ = world.test_logits(name)
    row = world.parent(name).labels.index(part.name)
    whole = log_odds(logits.double().numpy(), row, part.module.manifest.calibration)
    return {
        "accuracy": says(classifier),
        "parent": balanced_accuracy(whole > 0, positive),
        "random": float(np.mean(drawn)),
        "flops": share,
    }


def row_of(world: World, ledger: Ledger, name: str, method: str, sets: int) -> dict[str, str]:
    parts, costs = decomposed(world, name, method)
    called = method.rpartition(":")[2]
    key = f"methods/{name}/{called.lower()}"
    by_name = {part.name: part for part in parts}

    def told(found: list[dict[str, float] | None], *names: str) -> str:
        known = [value for value in found if value is not None]
        if not known:
            return "not measured yet"
        means = [100 * float(np.mean([value[each] for value in known])) for each in names]
        share = 100 * float(np.mean([value["flops"] for value in known]))
        return " / ".join(f"{mean:.2f}" for mean in means) + f" at {share:.0f} %"

    every = ledger.measure(f"{key}/all", lambda: of_set(world, name, parts))
    pairs = [
        ledger.measure(
            f"{key}/pair/{'+'.join(labels)}",
            lambda labels=labels: of_set(world, name, [by_name[label] for label in labels]),
        )
        for labels in class_sets(world.parent(name).labels, 2, sets)
    ]
    alone = [
        ledger.measure(f"{key}/alone/{part.name}", lambda part=part: of_one(world, name, part))
        for part in parts
    ]
    return {
        "method": called,
        "decomposing": f"{costs['seconds']:.0f} s",
        "a module": f"{costs['kilobytes']:.0f} kB, {100 * costs['kept']:.0f} % of the channels",
        "all: top-1 / parent / random": told([every], "accuracy", "restricted", "random"),
        f"{sets} pairs: top-1 / restricted / random": told(pairs, "accuracy", "restricted", "random"),
        "one alone: balanced accuracy / parent / random": told(alone, "accuracy", "parent", "random"),
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--parent", default="C10-R20", choices=PARENTS)
    parser.add_argument("--sets", type=int, default=10, help="pairs of classes, in a fixed random order")
    parser.add_argument("--minutes", type=float, help="measure nothing new after so long")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(arguments.data, arguments.weights, arguments.out)
    ledger = Ledger(
        arguments.out / "measurements.jsonl",
        seconds=None if arguments.minutes is None else 60 * arguments.minutes,
    )
    rows = [
        row_of(world, ledger, arguments.parent, method, arguments.sets)
        for method in arguments.methods.split(",")
    ]
    (arguments.out / "methods.json").write_text(json.dumps(rows, indent=1) + "\n")
    (arguments.out / "methods.md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
