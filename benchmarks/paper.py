"""The protocol of Pan and Rajan (ICSE 2022, arXiv 2110.07720), beside the paper's own figures.

    python benchmarks/paper.py --data D --weights W --out DIR [--quick] [--minutes 60] [--only whole,reuse]

D holds image folders cifar10/{train,test}, cifar100/{train,test} and tiny-imagenet/{train40,val}, W the
parents' safetensors files; `train_parents.py` trains those that nobody ships. DIR keeps every cell: run it
again to go on where it stopped, or several times at once to share the work. `--quick` measures one cell of
each kind for ResNet-20 of CIFAR-10, in under ten minutes on two cores.

Training images make and tune modules, test images measure, and nothing is chosen by what is measured here.
What is trained from scratch, what is composed and what is decomposed are metered on the same cores.
`python benchmarks/evaluation.py` writes docs/evaluation.md from what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mending
from across import class_pairs, few_shot
from ledger import Ledger
from modhub.api.decompose import decompose_to
from modhub.artifact import read_artifact
from modhub.composition import Budget, ComposedClassifier, Part, compose, parts_of
from modhub.data import as_batch
from modhub.energy import Meter
from modhub.nets.architectures import ARCHITECTURES
from modhub.text import parse_json
from paper_findings import findings
from paper_tables import PAIR_EPOCHS, tables
from subsets import class_sets, flops_share
from training import Recipe, train
from world import PARENTS, World

PAPER_PARENTS = tuple(f"{data}-R{depth}" for data in ("C10", "C100", "TINY") for depth in (20, 32, 56))
ACROSS = (("C10-R20", "C100-R20"), ("C10-R20", "TINY-R20"), ("C100-R20", "TINY-R20"))
SHOTS = 20
"""Labelled training images of each class to calibrate across parents, where the paper continues learning."""
SCRATCH = {
    "cifar10": Recipe(epochs=PAIR_EPOCHS, rate=0.1, batch=64),
    "cifar100": Recipe(epochs=30, rate=0.1, batch=32),
}
"""A network for two classes: about a thousand steps for either set, far fewer than the papers train. Of Tiny
ImageNet only 40 of 500 training images of each class are at hand: a network trained on those could not be
compared with the paper's."""
TEN = Recipe(epochs=200)
"""What the parents' authors trained for; one epoch is measured."""


def metered(work: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What `work` returns, and what it took."""
    with Meter() as meter:
        result = work()
    return result, meter.use().to_dict()


def top(scores: Tensor, targets: Tensor, count: int) -> float:
    return float((scores.topk(count).indices == targets[:, None]).any(1).double().mean())


def whole(world: World, name: str) -> dict[str, Any]:
    """All modules of a parent composed as they are, against the parent; what decomposing it took."""
    dataset, parts = PARENTS[name].dataset, world.parts(name)
    done = parse_json((world.out / "modules" / f"{name}.json").read_bytes(), name)
    classifier = compose(parts, budget=Budget(multiple=1))
    scores, targets = world.scores(classifier, dataset, classifier.labels)
    logits, expected = world.test_logits(name)
    masks = np.stack([part.module.parsed.mask.bool().numpy() for part in parts])
    kept = masks.sum(1)
    shared = masks.astype(np.float64) @ masks.T
    pairs = np.triu_indices(len(parts), 1)
    return {
        "modules": len(parts),
        "top1": top(scores, targets, 1),
        "top5": top(scores, targets, 5),
        "parent_top1": top(logits, expected, 1),
        "parent_top5": top(logits, expected, 5),
        "flops": flops_share(classifier),
        # A module's channels are among its parent's: the share that is kept is their Jaccard index.
        "jaccard_parent": float(masks.mean()),
        "jaccard_modules": float((shared / (kept[:, None] + kept - shared))[pairs].mean()),
        **{key: done[key] for key in ("examined",) if key in done},
        "energy": done["energy"],
    }


def reuse(world: World, name: str, labels: Sequence[str]) -> dict[str, Any]:
    """Some classes of one parent, composed as they are, against its own logits restricted to them.

    Reading the modules, with all their digests, is metered with the composition.
    """
    world.modules(name)
    directory = world.out / "modules" / name
    classifier, energy = metered(lambda: compose(parts_of(read_artifact(directory), labels)))
    return {
        "accuracy": world.accuracy(classifier, PARENTS[name].dataset),
        "restricted": world.restricted(name, labels),
        "flops": flops_share(classifier),
        "energy": energy,
    }


def decomposed_alone(
    folders: tuple[Path, Path, Path],
    name: str,
    labels: Sequence[str],
    directory: Path,
    threads: int,
    *,
    images: bool,
) -> dict[str, Any]:
    """What decomposing no more than `labels`, or all classes without images, took."""
    torch.set_num_threads(threads)
    world, given = World(*folders), PARENTS[name]
    settings = replace(
        world.settings(name),
        only=list(labels) if images else None,
        labels=world.images(given.dataset, "test").labels,
    )
    data = world.images(given.dataset, "train") if images else None
    return decompose_to(directory, given.architecture, data, settings).energy.to_dict()


def cheaper(world: World, name: str, labels: Sequence[str], *, images: bool) -> dict[str, Any]:
    """`reuse` of modules that were made for less, in a process of its own: what is imported counts there,
    too."""
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as alone:
        directory = Path(folder) / "modules"
        folders = world.data, world.weights, world.out
        arguments = (folders, name, labels, directory, torch.get_num_threads())
        decompose = alone.submit(decomposed_alone, *arguments, images=images).result()
        classifier, energy = metered(lambda: compose(parts_of(read_artifact(directory), labels)))
        return {
            "accuracy": world.accuracy(classifier, PARENTS[name].dataset),
            "restricted": world.restricted(name, labels),
            "flops": flops_share(classifier),
            "decompose": decompose,
            "energy": energy,
        }


def scratch(world: World, name: str, labels: Sequence[str]) -> dict[str, Any]:
    """The parent's architecture, trained from scratch on all training images of `labels`."""
    given = PARENTS[name]
    torch.manual_seed(0)
    module = ARCHITECTURES[given.architecture.removeprefix("modhub:")].build(len(labels))
    images = world.images(given.dataset, "train").only(list(labels))
    seconds, energy = metered(
        lambda: train(
            module,
            as_batch(images.images(range(len(images)))),
            torch.from_numpy(images.targets),
            SCRATCH[given.dataset],
            mean=given.mean,
            std=given.std,
        )
    )
    test = world.images(given.dataset, "test").only(list(labels))
    shift, scale = (torch.tensor(values).view(1, -1, 1, 1) for values in (given.mean, given.std))
    with torch.inference_mode():
        scores = torch.cat(
            [module((pixels.float() / 255 - shift) / scale) for pixels, _ in test.batches(250)]
        )
    return {
        "accuracy": top(scores, torch.from_numpy(test.targets), 1),
        "epochs": len(seconds),
        "images": len(images),
        "energy": energy,
    }


def epoch(world: World, name: str) -> dict[str, Any]:
    """A tenth of an epoch of training the parent's architecture on all its classes, times ten."""
    given = PARENTS[name]
    images = world.images(given.dataset, "train")
    tenth = images.sample(max(len(images) // len(images.labels) // 10, 1), 0)
    module = ARCHITECTURES[given.architecture.removeprefix("modhub:")].build(len(images.labels))
    pixels, targets = as_batch(tenth.images(range(len(tenth)))), torch.from_numpy(tenth.targets)
    _, energy = metered(
        lambda: train(module, pixels, targets, Recipe(epochs=1), mean=given.mean, std=given.std)
    )
    return {"images": len(tenth), "of": len(images), "epochs": TEN.epochs, "energy": energy}


def recalls(world: World, classifier: ComposedClassifier, owners: Sequence[str]) -> list[float]:
    """Of each class of a classifier, on the test images of its own parent's data set."""
    found = []
    for row, (name, label) in enumerate(zip(owners, classifier.labels, strict=True)):
        images = world.images(PARENTS[name].dataset, "test").only([label])
        with torch.inference_mode():
            answers = torch.cat([classifier(pixels).argmax(1) for pixels, _ in images.batches(250)])
        found.append(float((answers == row).double().mean()))
    return found


def across(world: World, one: str, other: str, pair: tuple[str, str]) -> dict[str, Any]:
    """One class of each of two parents: without a sample of the partner, and with a few labelled images."""
    parts: list[Part] = world.parts(one, [pair[0]]) + world.parts(other, [pair[1]])
    classifier, energy = metered(lambda: compose(parts))
    images = few_shot(world, ((one, pair[0]), (other, pair[1])), SHOTS)
    calibrated = compose(parts, calibrate=images)
    return {
        "accuracy": float(np.mean(recalls(world, classifier, (one, other)))),
        "calibrated": float(np.mean(recalls(world, calibrated, (one, other)))),
        "passes": len(classifier.trunk_passes),
        "energy": energy,
    }


def measure(world: World, ledger: Ledger, arguments: argparse.Namespace) -> None:
    """Every cell that is not in the ledger; those of the parents whose weights are there."""
    quick, wanted = arguments.quick, arguments.only.split(",")
    names = [name for name in arguments.parents.split(",") if world.has(name)]
    names = [name for name in names if not quick or name == "C10-R20"]
    # The first cells of each kind for every parent come before the last ones of any.
    rounds = ((0, 1),) if quick or arguments.sets < 2 else ((0, 1), (1, arguments.sets))
    for start, stop in rounds:
        for name in names:
            key = f"paper/whole/{name}"
            if "whole" in wanted and start == 0:
                ledger.measure(key, lambda name=name: whole(world, name))
            for size in (2, 5):
                sets = class_sets(world.parent(name).labels, size, arguments.sets)[start:stop]
                for labels in sets if "reuse" in wanted else ():
                    ledger.measure(
                        f"paper/reuse-{size}/{name}/{'+'.join(labels)}",
                        lambda name=name, labels=labels: reuse(world, name, labels),
                    )
        for one, other in ACROSS if "across" in wanted and not quick else ():
            if one in names and other in names:
                count = arguments.across_pairs if start else 4
                for pair in class_pairs(world, one, other, count, 0):
                    ledger.measure(
                        f"paper/across/{one}x{other}/{'+'.join(pair)}",
                        lambda one=one, other=other, pair=pair: across(world, one, other, pair),
                    )
        if "replace" in wanted:
            mending.measure(world, ledger, names, quick=quick, first=start == 0)
        for name in names if "energy" in wanted else ():
            if PARENTS[name].dataset not in SCRATCH:
                continue
            if start == 0:
                ledger.measure(f"paper/epoch/{name}", lambda name=name: epoch(world, name))
            if start == 0 and name == "C10-R20":
                labels = class_sets(world.parent(name).labels, 2, arguments.sets)[0]
                for kind in ("two", "no-data"):
                    ledger.measure(
                        f"paper/decompose-{kind}/{name}/{'+'.join(labels)}",
                        partial(cheaper, world, name, labels, images=kind == "two"),
                    )
            if quick or not name.endswith("R20"):
                continue
            pairs = class_sets(world.parent(name).labels, 2, arguments.sets)
            for labels in pairs[start : min(stop, arguments.scratch_sets)]:
                ledger.measure(
                    f"paper/scratch-2/{name}/{'+'.join(labels)}",
                    lambda name=name, labels=labels: scratch(world, name, labels),
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="one cell of each kind, CIFAR-10 ResNet-20")
    parser.add_argument("--parents", default=",".join(PAPER_PARENTS))
    parser.add_argument("--only", default="whole,reuse,across,replace,energy")
    parser.add_argument("--sets", type=int, default=10, help="pairs and fives of each parent")
    parser.add_argument("--across-pairs", type=int, default=16, help="pairs of each two parents")
    parser.add_argument("--scratch-sets", type=int, default=4, help="pairs that a network is trained for")
    parser.add_argument(
        "--examine", type=int, help="classes of a parent whose loss is validated; all by default"
    )
    parser.add_argument("--minutes", type=float, help="measure nothing new after so long")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(arguments.data, arguments.weights, arguments.out, examine=arguments.examine)
    seconds = None if arguments.minutes is None else 60 * arguments.minutes
    ledger = Ledger(arguments.out / "paper.jsonl", seconds=seconds)
    measure(world, ledger, arguments)
    text = tables(ledger.known, findings(ledger.known))
    (arguments.out / "paper.md").write_text(text)
    print(text)
    if ledger.skipped:
        print(f"{ledger.skipped} cells are not measured yet: run it again.")


if __name__ == "__main__":
    main()
