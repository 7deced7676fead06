"""Rows about time: everything compared runs interleaved in one process."""

from __future__ import annotations

import functools
import json
import time

import numpy as np
import torch
from torch import nn

from ledger import Ledger, Row
from modhub.composition import Budget, ComposedClassifier, compose
from modhub.evaluation.timing import side_by_side
from modhub.importing import import_module
from modhub.nets import Runner, channel_space, cost, fuse_batch_norm, slice_network
from modhub.nets.architectures import ARCHITECTURES
from subsets import DRAWS, flops_share
from training import Recipe, train
from world import PARENTS, World

__all__ = [
    "compose_hundred",
    "decomposing",
    "epoch",
    "latency",
    "one_pass",
    "pets",
    "side_by_side",
    "wide_latency",
    "wide_pair",
]


def latency(world: World, ledger: Ledger, name: str, what: str, budget: Budget) -> Row:
    """Composed two-class network against its whole parent, PyTorch eager, raw images in."""

    def work() -> dict[str, float]:
        labels = list(world.parent(name).labels[3:6:2])
        classifier = compose(world.parts(name, labels), budget=budget)
        report = classifier.trunk_passes[0].report
        return {"flops": report.flops / report.parent_flops, **_times(world, name, classifier)}

    value = ledger.measure(f"latency/{name}/{what}", work)
    row = f"wall-clock of the composed network / parent, {what}"
    if value is None:
        return Row(row, name, "≤ 0.6 at 50 % FLOPs", "not measured yet", None)
    text = f"{_told(value)}; {100 * value['flops']:.0f} % FLOPs"
    met = max(value["module 1"], value["module 128"]) <= 0.6 if value["flops"] <= 0.5 else None
    return Row(row, name, "≤ 0.6 at 50 % FLOPs", text, met)


def _times(world: World, name: str, classifier: ComposedClassifier) -> dict[str, float]:
    """By batch size, against the module as its authors wrote it ("module 1"), and against the parent run as
    composed networks are, which is faster ("1")."""
    parent, module = world.network(name), world.module(name)
    found = {}
    for batch in (1, 128):
        images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            ours, theirs, plain = side_by_side(
                [functools.partial(each, images) for each in (classifier, parent, module)], 6.0
            )
        found[str(batch)], found[f"module {batch}"] = ours / theirs, ours / plain
    return found


def _told(times: dict[str, float]) -> str:
    return (
        f"{times['module 1']:.2f} at batch 1 and {times['module 128']:.2f} at batch 128 of the plain module, "
        f"{times['1']:.2f} and {times['128']:.2f} of the parent in modhub's runner"
    )


def wide_pair(flops: float) -> tuple[nn.Module, nn.Module, float]:
    """torchvision's resnet18 with the same share of every group's channels cut, and whole, and the share of
    the multiply-adds that is left, at most `flops`. Weights are random: structure alone decides on time."""
    from torchvision.models import resnet18

    whole = resnet18().eval()
    network = import_module(whole, (3, 224, 224))
    space = channel_space(network, keep_output=True)
    fraction, sliced = 1.0, network
    while cost(sliced).flops > flops * cost(network).flops:
        fraction -= 0.01
        mask = space.full_mask()
        for group in space.groups:
            if group.cuttable:
                mask[group.start + int(fraction * group.size) : group.start + group.size] = False
        sliced = slice_network(network, mask, space=space)
    return Runner(fuse_batch_norm(sliced)), whole, cost(sliced).flops / cost(network).flops


def wide_latency(ledger: Ledger, flops: float) -> Row:
    """torchvision's resnet18 at 224 × 224, cut to those FLOPs."""

    def work() -> dict[str, float]:
        torch.manual_seed(0)
        slim, module, _ = wide_pair(flops)
        found = {}
        for batch in (1, 128):
            images = torch.rand(batch, 3, 224, 224)
            with torch.inference_mode():
                ours, theirs = side_by_side([lambda x=images: slim(x), lambda x=images: module(x)], 20.0)
            found[str(batch)] = ours / theirs
        return found

    return _latency_row(
        ledger.measure(f"latency/torchvision-resnet18/{flops:g}", work), "torchvision resnet18", flops
    )


def _latency_row(value: dict[str, float] | None, name: str, flops: float) -> Row:
    what, target = f"wall-clock of the composed network / parent at {100 * flops:.0f} % FLOPs", "≤ 0.6"
    if value is None:
        return Row(what, name, target, "not measured yet", None)
    text = f"{value['1']:.2f} at batch 1, {value['128']:.2f} at batch 128"
    return Row(what, name, target, text, max(value.values()) <= 0.6)


def pets(world: World, ledger: Ledger, name: str, what: str) -> Row:
    """Cat and dog of one parent: accuracy beside restricted logits and random channels, and its cost.

    `what` is a budget such as flops=0.5, or "default". Random channels are drawn `DRAWS` times.
    """

    labels, dataset = ["cat", "dog"], PARENTS[name].dataset
    kind, _, limit = what.partition("=")
    budget = Budget(**{kind: float(limit)}) if limit else Budget(multiple=1)

    def drawn(seed: int) -> float:
        parts = world.parts(name, labels)
        # Without a budget the control may spend as much as the modules' masks do.
        spent = budget if budget.limited else Budget(flops=flops_share(compose(parts, budget=budget)))
        control = compose(parts, budget=spent, control=seed, synthesizer=world.synthesizer)
        return world.accuracy(control, dataset)

    def work() -> dict[str, float]:
        start = time.perf_counter()
        classifier = compose(world.parts(name, labels), budget=budget)
        seconds = time.perf_counter() - start
        report = classifier.trunk_passes[0].report
        share = report.flops / report.parent_flops
        return {
            "accuracy": world.accuracy(classifier, dataset),
            "restricted": world.restricted(name, labels),
            "flops": share,
            "seconds": seconds,
            "passes": float(len(classifier.passes)),
            **_times(world, name, classifier),
        }

    value = ledger.measure(f"pets/{name}/{what}", work)
    random = [
        ledger.measure(f"pets-random-{seed}/{name}/{what}", functools.partial(drawn, seed))
        for seed in range(DRAWS)
    ]
    row = "cat or dog, " + (what if what == "default" else f"--budget {what}")
    if value is None or None in random:
        return Row(row, name, "reported", "not measured yet", None)
    text = (
        f"{100 * value['accuracy']:.2f} % (restricted logits {100 * value['restricted']:.2f}, random "
        f"channels {100 * np.mean(random):.2f}, {DRAWS} draws), {100 * value['flops']:.0f} % FLOPs, "
        f"{value['passes']:.0f} pass, time {_told(value)}, composed in {value['seconds']:.1f} s"
    )
    return Row(row, name, "reported", text, None)


def epoch(world: World, ledger: Ledger, name: str) -> Row:
    """Decomposing into all modules beside one epoch of training the same network on the same machine."""

    def work() -> dict[str, float]:
        given = PARENTS[name]
        images = world.images(given.dataset, "train")
        pixels = torch.from_numpy(np.stack(images.images(range(len(images))))).permute(0, 3, 1, 2)
        torch.manual_seed(0)
        module = ARCHITECTURES[given.architecture.partition(":")[2]].build(len(images.labels))
        (seconds,) = train(
            module,
            pixels.contiguous(),
            torch.from_numpy(images.targets),
            Recipe(epochs=1),
            mean=given.mean,
            std=given.std,
        )
        world.modules(name)
        done = json.loads((world.out / "modules" / f"{name}.json").read_text())
        return {"epoch": seconds, "decompose": done["wall"]}

    value = ledger.measure(f"epoch/{name}", work)
    what = "decomposing into all modules / one epoch of training"
    if value is None:
        return Row(what, name, "< 1", "not measured yet", None)
    text = f"{value['decompose']:.0f} s / {value['epoch']:.0f} s"
    return Row(what, name, "< 1", text, value["decompose"] < value["epoch"])


def one_pass(world: World, ledger: Ledger, name: str) -> Row:
    """All N modules in one network against N networks of one module each, run one after the other."""

    def work() -> dict[str, float]:
        together = compose(world.parts(name))
        apart = [compose([part]) for part in world.parts(name)]
        images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            ours, theirs = side_by_side(
                [lambda: together(images), lambda: [each(images) for each in apart]], 10.0
            )
        return {"ratio": theirs / ours, "modules": len(apart)}

    value = ledger.measure(f"one-pass/{name}", work)
    what = "N modules in one network / N separate passes"
    if value is None:
        return Row(what, name, "≥ 0.9·N times faster", "not measured yet", None)
    text = f"{value['ratio']:.1f} times faster for N = {value['modules']:.0f}"
    return Row(what, name, "≥ 0.9·N times faster", text, value["ratio"] >= 0.9 * value["modules"])


def compose_hundred(world: World, ledger: Ledger, name: str) -> Row:
    """Seconds to compose every module of a parent, files already read."""

    def work() -> float:
        parts = world.parts(name)
        start = time.perf_counter()
        compose(parts)
        return time.perf_counter() - start

    value = ledger.measure(f"compose/{name}", work)
    count = len(world.parent(name).labels)
    text = "not measured yet" if value is None else f"{value:.2f} s"
    return Row(f"composing {count} modules of one parent", name, "≤ 2 s", text, value and value <= 2)


def decomposing(world: World, name: str, minutes: float) -> Row:
    """How long the decomposition took that all other rows use."""
    world.modules(name)
    done = json.loads((world.out / "modules" / f"{name}.json").read_text())
    size = np.mean([module["bytes"] for module in done["modules"]]) / 1000
    text = (
        f"{done['wall']:.0f} s for {len(done['modules'])} modules of {size:.0f} kB, {done['images']} images"
    )
    return Row(
        "decomposing a parent",
        f"{name} ({PARENTS[name].dataset})",
        f"≤ {minutes:g} min",
        text,
        done["wall"] <= 60 * minutes,
    )
