"""What a slim network is fitted on, and how: refit layer by layer, then distillation.

The parent is the teacher; labels are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.calibration.calibrator import PLAIN_WEIGHT
from modhub.composition.fitting.batches import Imagined, Mixed, Pictures, TransferSet
from modhub.composition.fitting.distillation import distilled
from modhub.composition.fitting.reconstruction import refit_head, refit_network
from modhub.data import ImageSet, evenly_spaced, split_indices
from modhub.data.augment import augmented
from modhub.data.preprocessing import Preprocess
from modhub.devices import CPU
from modhub.manifest import InputSpec
from modhub.nets import ChannelSpace, Mask, Network, Runner, cost
from modhub.pruning.depth import evenly
from modhub.reporter import SILENT, Reporter

__all__ = ["Examples", "Material", "apart", "asked_about", "room", "seen_at_most", "tuned"]

_LIVE = 400 << 20
"""Bytes that one value of all images may take."""
_MOST = 600
_COPIES = 3
"""Changed copies of each image that layers are refitted on."""
_ASKED = 8
"""Times as many images as layers are refitted on are looked through for those of the classes."""
_SIDE = 20
"""Fewer images that its parent says no to do not stand for all that is not of the class, nor fewer that it
says yes to for the class."""
_KEPT = 5
"""Of this many images one is kept to recalibrate on, where there are more than layers are refitted on."""
_CHECKED = 1000
_CHECK_WORK = 4e10
"""Multiply-adds of the whole trunk that recalibrating may take."""
_SEEN_WORK = 4e11
"""Multiply-adds that one pass over these images may take."""
_JUDGES = (5, 100)
"""Of this many images that layers are refitted on one judges distillation, and so many at most."""
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Examples:
    """What a caller gives to tune on.

    `said` (images,) is what its parent says of each, where both answers are to be fitted on alike: whether a
    class that answers alone is there, or whether it is of the set of classes. None elsewhere.
    `imagined` are normalised synthetic images in place of those that it says yes, or no, to, where there are
    hardly any.
    """

    images: ImageSet
    said: NDArray[np.bool_] | None = None
    imagined: Tensor | None = None

    @property
    def outnumbered(self) -> bool:
        """Whether the images that get a yes are the fewer, but not hardly any."""
        if self.said is None:
            return False
        yes = int(self.said.sum())
        return _SIDE <= yes < len(self.said) - yes

    @property
    def lacking(self) -> bool | None:
        """The answer that hardly any image gets; None where there are enough of both, or nothing was said."""
        if self.said is None:
            return None
        yes = int(self.said.sum())
        return None if min(yes, len(self.said) - yes) >= _SIDE else yes < _SIDE

    def apart(self, every: int) -> tuple[Examples, Examples]:
        """One in `every`, to measure on, and the others."""
        held, others = apart(len(self.images), every)
        unseen = apart(0 if self.imagined is None else len(self.imagined), every)
        found = [
            Examples(
                self.images.subset(some),
                None if self.said is None else self.said[some],
                None if self.imagined is None else self.imagined[synthetic],
            )
            for some, synthetic in zip((held, others), unseen, strict=True)
        ]
        return found[0], found[1]

    def normalised(self, spec: InputSpec, most: int) -> Tensor:
        """(images, channels, height, width): at most `most`, and the synthetic ones."""
        found = normalised(self.images.subset(range(min(len(self.images), most))), Preprocess(spec))
        return found if self.imagined is None else torch.cat([found, self.imagined])


@dataclass(frozen=True, slots=True)
class Material:
    """What a slim network is fitted on.

    Layers are refitted on `images`, normalised; `transfer` is what the network is distilled on, and `judged`
    are those of the images that it does not hold. `others` were not fitted on at all, to recalibrate on; none
    when there were too few. `both_sides` says that images of what the network is for and images of other
    classes were chosen alike.
    """

    images: Tensor
    transfer: TransferSet
    judged: Tensor
    others: tuple[ImageSet | Tensor, ...] = ()
    both_sides: bool = False

    def checks(self, preprocess: Preprocess) -> Iterator[tuple[Tensor, float]]:
        """Batches of the `others`, normalised, and how much each of these counts.

        Harder copies of real ones have a quarter of the weight, as in every calibration: of plain training
        images a parent is far surer than it will be.
        """
        for others in self.others:
            if isinstance(others, Tensor):
                for batch in torch.split(others, _BATCH):
                    yield batch, 1.0
                continue
            for number, (pixels, _) in enumerate(others.batches(_BATCH)):
                yield preprocess(pixels), PLAIN_WEIGHT
                yield preprocess(augmented(pixels, number)), 1 - PLAIN_WEIGHT

    def beside(self, more: Material) -> Material:
        """All of both; a batch to distil on is half of the one and half of the other."""
        return Material(
            torch.cat([self.images, more.images]),
            Mixed(self.transfer, more.transfer),
            torch.cat([self.judged, more.judged]),
            (*self.others, *more.others),
            both_sides=True,
        )

    @classmethod
    def of_images(cls, examples: Examples, spec: InputSpec, trunk: Network, seed: int) -> Material:
        """Of images that its parent says yes and no to, both are fitted on alike."""
        most = room(trunk)
        images, said = examples.images, examples.said
        chances, one_sided = None, examples.lacking is not None
        if said is not None:
            kept, used = split_indices(said, (len(images), (_KEPT - 1) * len(images)), seed)
            fit, chances = _alike(used, said, most, seed)
            if one_sided:
                # The few that the parent errs about are not worth as much as all others together.
                chances = None
        elif len(images) <= most:
            kept, used = np.zeros(0, np.int64), np.arange(len(images))
            fit = used
        else:
            (fit,) = split_indices(images.targets, (max(most // max(len(images.labels), 1), 1),), seed)
            rest = np.setdiff1d(np.arange(len(images)), fit)
            kept = evenly_spaced(rest, len(images) // _KEPT)
            used = np.setdiff1d(np.arange(len(images)), kept)
        kept = evenly_spaced(kept, _checks(trunk))
        judges = _judges(len(fit))
        learned = ~np.isin(used, fit[judges])
        preprocess = Preprocess(spec)
        refitted = images.subset(fit)
        whole = normalised(refitted, preprocess)
        changed = [normalised(refitted, preprocess, seed=seed * 10 + copy) for copy in range(1, 1 + _COPIES)]
        weights = None if chances is None else chances[learned] / chances[learned].sum()
        found = cls(
            torch.cat([whole, *changed]),
            Pictures(images.subset(used[learned]), preprocess, seed, weights),
            whole[torch.from_numpy(judges)],
            (images.subset(kept),) if len(kept) else (),
            both_sides=said is not None and not one_sided,
        )
        if examples.imagined is None:
            return found
        return found.beside(cls.of_imagination(examples.imagined, seed, both_sides=True))

    @classmethod
    def of_imagination(
        cls, images: Tensor, seed: int, turns: int = 1, *, both_sides: bool = False
    ) -> Material:
        """From normalised synthetic images, of so many kinds in turns; with `both_sides` some are kept to
        recalibrate on."""
        others: tuple[Tensor, ...] = ()
        if both_sides:
            kept, used = apart(len(images), _KEPT, turns)
            images, others = images[used], (images[kept],)
        judges = torch.from_numpy(_judges(len(images), turns))
        learned = torch.ones(len(images), dtype=torch.bool)
        learned[judges] = False
        return cls(images, Imagined(images[learned], seed), images[judges], others, both_sides)

    def without_lessons(self, most: int) -> Material:
        """At most `most` of the images to refit on, and nothing else."""
        images = evenly(self.images, most)
        return Material(images, Imagined(images[:0], 0), self.judged)


def asked_about(tune: ImageSet, trunk: Network, seed: int) -> ImageSet:
    """Those of `tune` that the parent is asked about, of every label as many."""
    return tune.sample(max(_ASKED * room(trunk) // max(len(tune.labels), 1), 1), seed)


def room(trunk: Network) -> int:
    """How many images the layers of a slim network are refitted on at most, fewer of large ones."""
    largest = max(math.prod(shape) for shape in trunk.graph.shapes.values())
    return max(10, min(_MOST, _LIVE // (4 * (1 + _COPIES) * largest)))


def normalised(images: ImageSet, preprocess: Preprocess, *, seed: int | None = None) -> Tensor:
    """(images, channels, height, width); changed copies with a `seed`."""
    found = []
    with torch.inference_mode():
        for number, (pixels, _) in enumerate(images.batches(_BATCH)):
            if seed is not None:
                pixels = augmented(pixels, seed * 1_000_003 + number)
            found.append(preprocess(pixels))
    return torch.cat(found).clone()


def apart(count: int, every: int, turns: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of one image in `every`, to measure on, and of the others; with images of so many kinds in
    `turns`, of every kind as many."""
    place = np.arange(count)
    # Where one in so many would always be of the same kinds, a whole round is taken.
    held = (place if math.gcd(every, turns) == 1 else place // turns) % every == 0
    return place[held], place[~held]


def tuned(
    dense: Network,
    slim: Network,
    space: ChannelSpace,
    mask: Mask,
    rows: tuple[Tensor, Tensor],
    head: tuple[Tensor, Tensor],
    matched: Tensor,
    material: Material,
    sensitivity: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    seed: int,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> tuple[Network, tuple[Tensor, Tensor]]:
    """The slim network and its head, fitted to what `dense` with `rows` (rows, features) and their bias say.

    `head` is the slim network's own, on its own features; the rows `matched` are what distillation goes by;
    `sensitivity` is what the modules say of every
    value (see `distilled`). Networks have their batch-norms fused. All is computed on `device`; what comes in
    and goes out is on the CPU.
    """
    dense, slim, images = dense.to(device), slim.to(device), material.images.to(device)
    rows = rows[0].to(device), rows[1].to(device)
    own = head[0].to(device), head[1].to(device)
    network, goal = refit_network(dense, slim, space, mask, images, seed=seed, reporter=reporter)
    wanted, answering = ((each[0][matched], each[1][matched]) for each in (rows, own))
    network = distilled(
        dense,
        network,
        space,
        mask,
        wanted,
        answering,
        material.transfer,
        material.judged.to(device),
        sensitivity,
        reporter=reporter,
    )
    if goal.dim() != 2:
        return network.to(CPU), head
    with torch.inference_mode():
        runner = Runner(network)
        features = torch.cat([runner(batch) for batch in torch.split(images, _BATCH)]).clone()
    weight, bias = refit_head(own[0], own[1], goal @ rows[0].T + rows[1], features)
    return network.to(CPU), (weight.to(CPU), bias.to(CPU))


def _alike(
    used: NDArray[np.int64], said: NDArray[np.bool_], most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most `most` of `used` to refit on, as many that the parent `said` yes to as others while there are
    enough; and how often each of `used` should be drawn, (used,), so that both sides are drawn alike."""
    yes, no = used[said[used]], used[~said[used]]
    draw = np.random.default_rng(seed)
    half = min(max(most // 2, most - len(no)), len(yes))
    fit = np.concatenate([draw.permutation(yes)[:half], draw.permutation(no)[: most - half]])
    chances = np.where(said[used], 1 / max(len(yes), 1), 1 / max(len(no), 1))
    return np.sort(fit), chances


def _judges(count: int, turns: int = 1) -> NDArray[np.int64]:
    every, most = _JUDGES
    return evenly_spaced(apart(count, every, turns)[0] if count > 1 else np.zeros(0, np.int64), most)


def seen_at_most(trunk: Network) -> int:
    """How many images a trunk is asked about again to choose channels for a class that answers alone."""
    return max(10, int(min(_MOST * (1 + _COPIES), _SEEN_WORK / max(cost(trunk).flops, 1))))


def _checks(trunk: Network) -> int:
    return max(10, int(min(_CHECKED, _CHECK_WORK / max(cost(trunk).flops, 1))))
