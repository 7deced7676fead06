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
from modhub.composition.trunk_plan import plans
from modhub.data import ImageSet
from modhub.refs import rows_of

__all__ = ["Taken", "taken", "taken_of_images"]

_TEMPERATURE = 4.0
_DRAWN = 300
_BATCH = 250
_PAIRED = 20
"""So many of the known classes, the hardest hit, are also composed with the taught one only."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Which share of a known class's images the taught class takes: where all known classes are composed,
    and where this is the only one, when most often more go; None where it was not asked."""

    share: float
    alone: float | None

    @property
    def most(self) -> float:
        return max(self.share, self.alone or 0.0)

    def to_dict(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in self.__slots__}


def taken(known: Sequence[Part], taught: Part, *, seed: int = 0) -> dict[str, Taken]:
    """By known label, the hardest hit first, guessed from the statistics of the modules alone; empty when one
    of them carries none."""
    (plan,) = plans(known)
    statistics = plan.class_statistics()
    if statistics is None:
        return {}
    value = plan.trunk.graph.output
    draw = np.random.default_rng([seed, 3])
    features = {
        part.name: torch.from_numpy(each.moments[value].drawn(_DRAWN, draw)).float()
        for part, each in zip(plan.parts, statistics, strict=True)
    }
    return _taken(known, taught, features, soft=True)


def taken_of_images(known: Sequence[Part], taught: Part, images: ImageSet) -> tuple[dict[str, Taken], int]:
    """The same, counted on images of known classes, and how many these were; classes without are left out."""
    (plan,) = plans(known)
    labels = [part.name for part in known]
    rows = rows_of(images.labels, labels, {part.name: part.aliases for part in known})
    seen: dict[str, list[Tensor]] = {}
    count = 0
    with torch.inference_mode():
        for name, row in rows.items():
            own = images.only([name])
            count += len(own)
            for pixels, _ in own.batches(_BATCH):
                seen.setdefault(labels[row], []).append(plan.whole(pixels).clone())
    features = {label: torch.cat(found) for label, found in seen.items()}
    return _taken(known, taught, features, soft=False), count


def _taken(
    known: Sequence[Part], taught: Part, features: Mapping[str, Tensor], *, soft: bool
) -> dict[str, Taken]:
    if not features:
        return {}
    together = _shares([*known, taught], taught, features, soft=soft)
    hit = sorted(together, key=lambda label: -together[label])[:_PAIRED]
    by_name = {part.name: part for part in known}
    alone = {
        label: _shares([by_name[label], taught], taught, {label: features[label]}, soft=soft)[label]
        for label in hit
    }
    found = {label: Taken(share, alone.get(label)) for label, share in together.items()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].most))


def _shares(
    parts: Sequence[Part], taught: Part, features: Mapping[str, Tensor], *, soft: bool
) -> dict[str, float]:
    """Which share of each class's features the taught class takes when `parts` are composed, of those that
    were right without it."""
    (plan,) = plans([replace(part, label=str(number)) for number, part in enumerate(parts)])
    places = [int(part.name) for part in plan.parts]
    labels = [parts[place].name for place in places]
    new = next(number for number, place in enumerate(places) if parts[place] is taught)
    found = {}
    for label, values in features.items():
        scores = _scores(plan.whole, values)
        if soft:
            found[label] = float((scores / _TEMPERATURE).softmax(1)[:, new].mean())
            continue
        rivals = scores.clone()
        rivals[:, new] = -torch.inf
        right = rivals.argmax(1) == labels.index(label)
        found[label] = float((right & (scores.argmax(1) == new)).float().mean())
    return found


def _scores(each: TrunkPass, features: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([answer.scores() for answer in each.answers_to(features)], 1)
