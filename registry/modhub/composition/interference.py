"""What a taught class takes from the classes that its parent knows.

Every composed class is asked of features f of each known class: images of it where there are some, else draws
from N(μ_c, Σ_c), the moments that its module carries. Real features stray further than normal ones, and far
from all classes densities leap; so of draws not decisions are counted but the new class's share in a softmax
of the scores, at a higher temperature than that of the parent. It is a guess: right in which class is hit and
roughly in how hard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modhub.composition.classifier import TrunkPass
from modhub.composition.parts import Part
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.refs import rows_of
from modhub.results import Document

_TEMPERATURE = 4.0
_DRAWN = 300
_BATCH = 250
_PAIRED = 20
"""Known classes, those with the most interference, that are also composed with the taught one alone."""


@dataclass(frozen=True, slots=True)
class Interference(Document):
    """The share of a known class's images that are classified as the taught class: where all known classes
    are composed, and where this one alone is, when it is most often larger; None where that was not
    computed."""

    share: float
    alone: float | None

    @property
    def largest(self) -> float:
        return max(self.share, self.alone or 0.0)


def estimate_interference(others: Sequence[Part], taught: Part, *, seed: int = 0) -> dict[str, Interference]:
    """By known label, the largest first, estimated from the statistics of the modules alone; empty when one
    of them carries none."""
    (plan,) = trunk_plans(others)
    statistics = plan.class_statistics()
    if statistics is None:
        return {}
    value = plan.trunk.graph.output
    draw = np.random.default_rng([seed, 3])
    features = {
        part.name: torch.from_numpy(of_class.moments[value].drawn(_DRAWN, draw)).float()
        for part, of_class in zip(plan.parts, statistics, strict=True)
    }
    return _interference(others, taught, features, soft=True)


def measure_interference(
    others: Sequence[Part], taught: Part, images: ImageSet
) -> tuple[dict[str, Interference], int]:
    """The same, counted on images of known classes, and how many these were; classes without images are left
    out."""
    (plan,) = trunk_plans(others)
    labels = [part.name for part in others]
    rows = rows_of(images.labels, labels, {part.name: part.aliases for part in others})
    batches: dict[str, list[Tensor]] = {}
    count = 0
    with torch.inference_mode():
        for name, row in rows.items():
            of_class = images.only([name])
            count += len(of_class)
            for pixels, _ in of_class.batches(_BATCH):
                batches.setdefault(labels[row], []).append(plan.unpruned(pixels).clone())
    features = {label: torch.cat(parts) for label, parts in batches.items()}
    return _interference(others, taught, features, soft=False), count


def _interference(
    others: Sequence[Part], taught: Part, features: Mapping[str, Tensor], *, soft: bool
) -> dict[str, Interference]:
    if not features:
        return {}
    together = _shares([*others, taught], taught, features, soft=soft)
    confused = sorted(together, key=lambda label: -together[label])[:_PAIRED]
    by_name = {part.name: part for part in others}
    alone = {
        label: _shares([by_name[label], taught], taught, {label: features[label]}, soft=soft)[label]
        for label in confused
    }
    shares = {label: Interference(share, alone.get(label)) for label, share in together.items()}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1].largest))


def _shares(
    parts: Sequence[Part], taught: Part, features: Mapping[str, Tensor], *, soft: bool
) -> dict[str, float]:
    """The share of each class's features that are classified as the taught class when `parts` are composed,
    and were right without it."""
    (plan,) = trunk_plans([replace(part, label=str(number)) for number, part in enumerate(parts)])
    places = [int(part.name) for part in plan.parts]
    labels = [parts[place].name for place in places]
    new = next(number for number, place in enumerate(places) if parts[place] is taught)
    shares = {}
    for label, values in features.items():
        scores = _scores(plan.unpruned, values)
        if soft:
            shares[label] = float((scores / _TEMPERATURE).softmax(1)[:, new].mean())
            continue
        rivals = scores.clone()
        rivals[:, new] = -torch.inf
        right = rivals.argmax(1) == labels.index(label)
        shares[label] = float((right & (scores.argmax(1) == new)).float().mean())
    return shares


def _scores(trunk_pass: TrunkPass, features: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([output.scores() for output in trunk_pass.outputs_of(features)], 1)
