"""Two heads trained apart on halves of CIFAR-100 over one frozen trunk, composed, against a joint head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from features import features, linear_head
from ledger import Ledger, Row
from modhub.artifact import read_artifact, write_artifact
from modhub.composition import Part, compose, parts_of
from modhub.decomposition import DecomposeOptions, Parent, decompose
from modhub.decomposition.assembly import assemble
from subsets import calibration_error
from world import World

__all__ = ["two_heads"]

_DATASET = "cifar100"
_DRAW = 0
"""Seed of the split into halves of 50 and 50 classes."""


def _halves(world: World) -> list[list[int]]:
    order = np.random.default_rng(_DRAW).permutation(len(world.images(_DATASET, "train").labels))
    half = len(order) // 2
    return [sorted(order[:half].tolist()), sorted(order[half:].tolist())]


def _head(world: World, name: str, classes: list[int]) -> tuple[Tensor, Tensor]:
    values, targets = features(world, name, _DATASET, "train")
    place = torch.full((len(world.images(_DATASET, "train").labels),), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    mine = place[targets] >= 0
    return linear_head(values[mine], place[targets[mine]], len(classes))


def _parts(world: World, name: str, number: int) -> list[Part]:
    """The modules of one half's head, decomposed as a parent of its own that knows 50 classes."""
    directory = world.out / "modules" / f"{name}-{_DATASET}-half{number}"
    if not directory.exists():
        images, base = world.images(_DATASET, "train"), world.parent(name)
        classes = _halves(world)[number]
        parent = Parent.of(
            base.head.join(base.trunk, *_head(world, name, classes)),
            name=f"{base.name}-half{number}",
            architecture=base.architecture,
            labels=[images.labels[row] for row in classes],
            input=base.input,
        )
        done = decompose(parent, images.only(parent.labels), options=DecomposeOptions(examine=8))
        write_artifact(directory, assemble(parent, done))
    return parts_of(read_artifact(directory))


def two_heads(world: World, ledger: Ledger, name: str) -> Row:
    """Top-1 on the test images of all 100 classes; beside it the margins without densities."""

    def work() -> dict[str, float]:
        values, targets = features(world, name, _DATASET, "test")
        every = list(range(len(world.images(_DATASET, "train").labels)))
        weight, bias = _head(world, name, every)
        joint = values @ weight.T + bias
        classifier = compose([part for number in (0, 1) for part in _parts(world, name, number)])
        order = world.images(_DATASET, "test").labels
        margins, scores = [], []
        with torch.inference_mode():
            for pixels, _ in world.images(_DATASET, "test").batches(250):
                scores.append(classifier(pixels))
                (each,) = classifier.trunk_passes
                found = [answer.head.scaled(answer.margin) for answer in each.outputs(pixels)]
                margins.append(torch.cat(found, 1)[:, classifier.order])
        columns = torch.tensor([classifier.labels.index(label) for label in order])
        composed, alone = torch.cat(scores)[:, columns], torch.cat(margins)[:, columns]
        inside = []
        for half in _halves(world):
            rows = torch.tensor(half)
            mine = torch.isin(targets, rows)
            inside.append(_right(composed[mine][:, rows], torch.searchsorted(rows, targets[mine])))
        return {
            "passes": len(classifier.passes),
            "flops": classifier.trunk_passes[0].report.flops / classifier.trunk_passes[0].report.parent_flops,
            "joint": _right(joint, targets),
            "composed": _right(composed, targets),
            "margins": _right(alone, targets),
            "inside": float(np.mean(inside)),
            "ece": calibration_error(composed, targets),
        }

    value = ledger.measure(f"heads/{name}", work)
    what, target = "two heads on one trunk, 50 + 50 classes of CIFAR-100", "within 1 pp of the joint head"
    if value is None:
        return Row(what, name, target, "not measured yet", None)
    loss = 100 * (value["joint"] - value["composed"])
    text = (
        f"{100 * value['composed']:.2f} % in {value['passes']:.0f} pass, joint head "
        f"{100 * value['joint']:.2f} %: {-loss:+.2f} pp (margins alone "
        f"{100 * (value['margins'] - value['joint']):+.2f} pp); calibration error {100 * value['ece']:.1f} %"
    )
    return Row(what, name, target, text, loss <= 1 and value["passes"] == 1)


def _right(scores: Tensor, targets: Tensor) -> float:
    return float((scores.argmax(1) == targets).double().mean())
