"""What a classifier costs and keeps at a row of budgets, beside restricted logits and random channels."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modhub.composition import KINDS, Budget, ComposedClassifier, Part, compose
from modhub.composition.fitting.sources import synthetic_images
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.devices import CPU
from modhub.errors import BudgetError, CompositionError
from modhub.evaluation.metrics import evaluate
from modhub.evaluation.timing import Ratio, time_ratio
from modhub.nets import cost
from modhub.reporter import SILENT, Reporter
from modhub.runtimes.export import natural_size

__all__ = ["BUDGETS", "NOISY_NOTE", "Frontier", "FrontierPoint", "frontier"]

BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_BATCHES = (1, 128)
_SECONDS = 2.0
_NOISY = 0.1
NOISY_NOTE = "± marks times that differed from round to round: other work kept the machine busy."
_NUMBERS = 128 * 3 * 64 * 64
"""A timed batch holds at most this many numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One network. `flops`, `params`, `time` (estimated) and `latency` (measured, by batch size) are
    fractions of the whole trunks'.

    `agreement` is the share of images on which it decides as the whole trunks do; `top1` its accuracy on
    labelled images and `random_top1` that of random channels of the same budget, refitted in the same way:
    None where not measured. `seconds` is what composing it took. `latency_spread` is how far a latency may be
    off, by batch size: half of what its rounds differed by.
    """

    budget: float
    flops: float
    params: float
    time: float
    agreement: float
    top1: float | None
    random_top1: float | None
    latency: dict[int, float]
    latency_spread: dict[int, float]
    seconds: float

    def noisy(self, batch: int) -> bool:
        """Whether other work on the machine hides what the latency is, to a tenth of it."""
        return self.latency_spread[batch] > _NOISY * self.latency[batch]

    def shown_latency(self, batch: int) -> str:
        """0.52, or with what it may be off where that is much: 0.52 ± 0.20."""
        shown = f"{self.latency[batch]:.2f}"
        return f"{shown} ± {self.latency_spread[batch]:.2f}" if self.noisy(batch) else shown

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        shares = {"agrees": self.agreement, "top-1": self.top1, "random channels": self.random_top1}
        told = [f"{name} {100 * share:.1f} %" for name, share in shares.items() if share is not None]
        return f"{100 * self.flops:.1f} % of the multiply-adds, {', '.join(told)}; took {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """`points` by falling budget; `restricted_top1` is the accuracy of the whole trunks' restricted logits,
    of a single class the balanced accuracy of its whole trunk's yes or no.

    `smallest` says which budget could not be met, and why; None when all could.
    """

    kind: str
    labels: tuple[str, ...]
    images: int
    restricted_top1: float | None
    points: tuple[FrontierPoint, ...]
    smallest: str | None

    @property
    def noisy(self) -> bool:
        """Whether any latency is."""
        return any(point.noisy(batch) for point in self.points for batch in point.latency)

    @property
    def suggested(self) -> FrontierPoint:
        """The smallest network that is at most a point below the best one seen, in accuracy where that was
        measured, else in agreement."""

        def worth(point: FrontierPoint) -> float:
            return point.agreement if point.top1 is None else point.top1

        best = max(worth(point) for point in self.points)
        good = [point for point in self.points if worth(point) >= best - 0.01]
        return min(good, key=lambda point: point.budget)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "images": self.images,
            "restricted_top1": self.restricted_top1,
            "points": [point.to_dict() for point in self.points],
            "smallest": self.smallest,
        }


def frontier(
    parts: Sequence[Part],
    *,
    budgets: Sequence[float] = BUDGETS,
    kind: str = "flops",
    data: ImageSet | None = None,
    tune: ImageSet | None = None,
    control: bool = True,
    multiple: int = 1,
    seed: int = 0,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> Frontier:
    """Compose `parts` at each of `budgets` (fractions of FLOPs, params or time, as `kind` says) and measure.

    `data` are labelled images that had no say in anything: with them accuracies are measured, and with
    `control` those of random channels. Without them only the agreement with the whole trunks is, on synthetic
    images that nothing was fitted on. `tune` as for `compose`. Raises `BudgetError` when even the largest
    budget cannot be met, and for another `kind`.
    """
    if kind not in KINDS:
        raise BudgetError(
            f"'{kind}' is nothing that a budget limits.", hint=f"There are: {', '.join(KINDS)}."
        )
    synthesizer = ImageSynthesizer(seed, device)
    whole = compose(parts, budget=Budget(flops=1.0))
    judge = (
        _Unseen(parts, whole, ImageSynthesizer(seed + 1, device), reporter)
        if data is None
        else _Labelled(whole, data, reporter)
    )
    found: list[FrontierPoint] = []
    failed: str | None = None
    ordered = sorted(set(budgets), reverse=True)
    for limit in reporter.track(ordered, "measure budgets", len(ordered)):
        budget = Budget(**{kind: limit}, multiple=multiple)

        def build(random: int | None, budget: Budget = budget) -> ComposedClassifier:
            return compose(
                parts,
                budget=budget,
                tune=tune,
                seed=seed,
                control=random,
                synthesizer=synthesizer,
                device=device,
                reporter=reporter,
            )

        start = time.perf_counter()
        try:
            slim = build(None)
        except BudgetError as error:
            if not found:
                raise
            failed = str(error)
            reporter.note(failed)
            break
        seconds = time.perf_counter() - start
        agreement, top1 = judge(slim)
        random_top1: float | None = None
        if control and isinstance(judge, _Labelled):
            with reporter.step("random channels"):
                random_top1 = judge(build(seed))[1]
        with reporter.step("take times"):
            latency = _latency(slim, whole)
        reports = [each.report for each in slim.trunk_passes]
        found.append(
            FrontierPoint(
                budget=limit,
                flops=_share(sum(each.flops for each in reports), sum(each.parent_flops for each in reports)),
                params=_share(_total(slim, "parameters"), _total(whole, "parameters")),
                time=_share(_total(slim, "time"), _total(whole, "time")),
                agreement=agreement,
                top1=top1,
                random_top1=random_top1,
                latency={batch: ratio.value for batch, ratio in latency.items()},
                latency_spread={batch: ratio.spread for batch, ratio in latency.items()},
                seconds=seconds,
            )
        )
        reporter.note(f"{kind}={limit:g}: {found[-1]}")
    return Frontier(
        kind=kind,
        labels=whole.labels,
        images=judge.count,
        restricted_top1=judge.top1,
        points=tuple(found),
        smallest=failed,
    )


class _Labelled:
    """Judges by labelled images: agreement with the whole trunks, and accuracy; a single class's is balanced,
    and beside that of the whole trunk's own yes or no."""

    def __init__(self, whole: ComposedClassifier, images: ImageSet, reporter: Reporter) -> None:
        self.images, self.reporter = images, reporter
        self.answers, self.top1, self.count = self._asked(whole)

    def __call__(self, classifier: ComposedClassifier) -> tuple[float, float | None]:
        answers, top1, _ = self._asked(classifier)
        return float((answers == self.answers).float().mean()), top1

    def _asked(self, classifier: ComposedClassifier) -> tuple[Tensor, float | None, int]:
        noted = _Noting(classifier)
        found = evaluate(noted, self.images, reporter=self.reporter)
        return torch.cat(noted.answers), found.top1, found.count


class _Noting:
    """A classifier that keeps its answers."""

    def __init__(self, classifier: ComposedClassifier) -> None:
        self.classifier, self.labels = classifier, classifier.labels
        self.answers: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(images)
        self.answers.append(scores.argmax(1) if len(self.labels) > 1 else (scores[:, 0] > 0).long())
        return scores


class _Unseen:
    """Judges by synthetic images of each trunk that nothing is fitted on; no label, so no accuracy."""

    top1: float | None = None

    def __init__(
        self,
        parts: Sequence[Part],
        whole: ComposedClassifier,
        synthesizer: ImageSynthesizer,
        reporter: Reporter,
    ) -> None:
        self.images = []
        for plan in trunk_plans(parts):
            images = synthetic_images(plan, synthesizer, reporter=reporter)
            if images is None:
                raise CompositionError(
                    "Modules without statistics cannot be judged without images.",
                    hint="Give labelled images with --data.",
                )
            self.images.append(images)
        self.answers = self._asked(whole)
        self.count = sum(len(images) for images in self.images)

    def __call__(self, classifier: ComposedClassifier) -> tuple[float, float | None]:
        answers = self._asked(classifier)
        same = [(one == other).all(1).float() for one, other in zip(answers, self.answers, strict=True)]
        return float(torch.cat(same).mean()), None

    def _asked(self, classifier: ComposedClassifier) -> list[Tensor]:
        passes = zip(classifier.trunk_passes, self.images, strict=True)
        return [trunk_pass.decisions(images) for trunk_pass, images in passes]


def _share(part: int, whole: int) -> float:
    """0 of nothing: a trunk may have no weights."""
    return part / max(whole, 1)


def _total(classifier: ComposedClassifier, what: str) -> int:
    return sum(getattr(cost(each.trunk.network), what) for each in classifier.trunk_passes)


def _latency(slim: ComposedClassifier, whole: ComposedClassifier) -> dict[int, Ratio]:
    """Wall-clock time as a fraction of the whole trunks', by batch size, on noise of the natural size."""
    height, width = natural_size([each.spec for each in whole.trunk_passes])
    found = {}
    for batch in _BATCHES:
        batch = max(1, min(batch, _NUMBERS // (3 * height * width)))
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            ours, theirs = (functools.partial(classifier, images) for classifier in (slim, whole))
            found[batch] = time_ratio(ours, theirs, _SECONDS)
    return found
