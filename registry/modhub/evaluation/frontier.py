"""Accuracy and latency at a series of budgets, beside restricted logits and random channels."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.composition import KINDS, Budget, ComposedClassifier, Part, compose
from modhub.composition.fitting.settings import DEFAULT_SETTINGS, FitSettings
from modhub.composition.fitting.sources import synthetic_images
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.composition.trunk_plan import trunk_plans
from modhub.data import ImageSet
from modhub.devices import CPU
from modhub.energy import EnergyUse
from modhub.errors import BudgetError, CompositionError
from modhub.evaluation.evaluate import evaluate
from modhub.evaluation.metrics import Evaluation, predictions_of
from modhub.evaluation.timing import Ratio, time_ratio
from modhub.nets import cost
from modhub.reporter import SILENT, Reporter
from modhub.results import Document
from modhub.runtimes.geometry import Geometry

BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SECONDS = 2.0
"""What measuring one latency takes; up to four times as much where it varies."""
_BATCHES = (1, 128)
_NOISY = 0.1
NOISY_NOTE = "± marks latencies that varied between rounds: the machine was busy with other work."
_NUMBERS = 128 * 3 * 64 * 64
"""A timed batch holds at most this many numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint(Document):
    """One network. `flops`, `params`, `time` (estimated) and `latency` (measured, by batch size) are
    fractions of the unpruned trunks'.

    `agreement` is the share of images predicted as by the unpruned trunks; `top1` the accuracy on labelled
    images and `random_top1` that of random channels of the same budget, refitted in the same way: None where
    not measured. `seconds` is what composing it took. `latency_spread` is the uncertainty of a latency, by
    batch size: half the range of its rounds.
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
        """Whether the latency at batch size `batch` is uncertain by more than a tenth."""
        return self.latency_spread[batch] > _NOISY * self.latency[batch]

    def shown_latency(self, batch: int) -> str:
        """0.52, or where it is noisy with its uncertainty: 0.52 ± 0.20."""
        shown = f"{self.latency[batch]:.2f}"
        return f"{shown} ± {self.latency_spread[batch]:.2f}" if self.noisy(batch) else shown

    def __str__(self) -> str:
        shares = {"agrees": self.agreement, "top-1": self.top1, "random channels": self.random_top1}
        texts = [f"{name} {100 * share:.1f} %" for name, share in shares.items() if share is not None]
        return f"{100 * self.flops:.1f} % of the multiply-adds, {', '.join(texts)}; took {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier(Document):
    """`points` by falling budget; `restricted_top1` is the accuracy of the restricted logits of the unpruned
    trunks, for a single class the balanced accuracy of its unpruned trunk.

    `smallest` says which budget could not be met, and why; None when all were met. `energy` is what measuring
    all of it took, None where that was not metered.
    """

    kind: str
    labels: tuple[str, ...]
    images: int
    restricted_top1: float | None
    points: tuple[FrontierPoint, ...]
    smallest: str | None
    energy: EnergyUse | None = None

    @property
    def noisy(self) -> bool:
        """Whether any latency is noisy."""
        return any(point.noisy(batch) for point in self.points for batch in point.latency)

    @property
    def suggested(self) -> FrontierPoint:
        """The smallest network at most one percentage point below the best, in accuracy where measured, else
        in agreement."""

        def quality(point: FrontierPoint) -> float:
            return point.agreement if point.top1 is None else point.top1

        best = max(quality(point) for point in self.points)
        good = [point for point in self.points if quality(point) >= best - 0.01]
        return min(good, key=lambda point: point.budget)


def frontier(
    parts: Sequence[Part],
    *,
    budgets: Sequence[float] = BUDGETS,
    kind: str = "flops",
    data: ImageSet | None = None,
    tune: ImageSet | None = None,
    control: bool = True,
    multiple: int | None = None,
    seed: int = 0,
    seconds: float = SECONDS,
    settings: FitSettings = DEFAULT_SETTINGS,
    device: torch.device = CPU,
    reporter: Reporter = SILENT,
) -> Frontier:
    """Compose `parts` at each of `budgets` (fractions of FLOPs, params or time, as `kind` says) and measure.

    `data` are held-out labelled images: with them accuracies are measured, and with `control` those of random
    channels. Without them only the agreement with the unpruned trunks is, on synthetic images that nothing
    was fitted on. `tune` and `settings` as for `compose`. Each latency is measured for `seconds`, and up to
    four times as long where it varies. Raises `BudgetError` when even the largest budget cannot be met, and
    for another `kind`.
    """
    if kind not in KINDS:
        raise BudgetError(f"'{kind}' is not a kind of budget.", hint=f"There are: {', '.join(KINDS)}.")
    synthesizer = ImageSynthesizer(seed, device, settings)
    unpruned = compose(parts, budget=Budget(flops=1.0))
    judge = (
        _Synthetic(parts, unpruned, ImageSynthesizer(seed + 1, device, settings), reporter)
        if data is None
        else _Labelled(unpruned, data, reporter)
    )
    points: list[FrontierPoint] = []
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
                settings=settings,
                device=device,
                reporter=reporter,
            )

        started = time.perf_counter()
        try:
            slim = build(None)
        except BudgetError as error:
            if not points:
                raise
            failed = str(error)
            reporter.note(failed)
            break
        elapsed = time.perf_counter() - started
        agreement, top1 = judge(slim)
        random_top1: float | None = None
        if control and isinstance(judge, _Labelled):
            with reporter.step("random channels"):
                random_top1 = judge(build(seed))[1]
        with reporter.step("measure latency"):
            latency = _latency(slim, unpruned, seconds)
        reports = [trunk_pass.report for trunk_pass in slim.trunk_passes]
        flops = sum(report.flops for report in reports)
        parent_flops = sum(report.parent_flops for report in reports)
        points.append(
            FrontierPoint(
                budget=limit,
                flops=_share(flops, parent_flops),
                params=_share(_total(slim, "parameters"), _total(unpruned, "parameters")),
                time=_share(_total(slim, "time"), _total(unpruned, "time")),
                agreement=agreement,
                top1=top1,
                random_top1=random_top1,
                latency={batch: ratio.value for batch, ratio in latency.items()},
                latency_spread={batch: ratio.spread for batch, ratio in latency.items()},
                seconds=elapsed,
            )
        )
        reporter.note(f"{kind}={limit:g}: {points[-1]}")
    return Frontier(
        kind=kind,
        labels=unpruned.labels,
        images=judge.count,
        restricted_top1=judge.top1,
        points=tuple(points),
        smallest=failed,
    )


class _Labelled:
    """Agreement with the unpruned trunks and accuracy (balanced for a single class) on labelled images."""

    def __init__(self, unpruned: ComposedClassifier, images: ImageSet, reporter: Reporter) -> None:
        self.images, self.reporter = images, reporter
        evaluation = self._evaluate(unpruned)
        self.predictions, self.top1, self.count = _predictions(evaluation), evaluation.top1, evaluation.count

    def __call__(self, classifier: ComposedClassifier) -> tuple[float, float | None]:
        evaluation = self._evaluate(classifier)
        return float((_predictions(evaluation) == self.predictions).mean()), evaluation.top1

    def _evaluate(self, classifier: ComposedClassifier) -> Evaluation:
        # Without `reject`: agreement and accuracy are of the best class.
        return evaluate(_Scores(classifier), self.images, reporter=self.reporter)


@dataclass(frozen=True, slots=True)
class _Scores:
    """A classifier that never rejects."""

    classifier: ComposedClassifier

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.labels

    def __call__(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(images)
        return scores


def _predictions(evaluation: Evaluation) -> NDArray[np.int64]:
    """(count,): of the images of the classifier's classes."""
    data = predictions_of(evaluation)
    return data.predictions[data.targets >= 0]


class _Synthetic:
    """Agreement with the unpruned trunks on synthetic images that nothing is fitted on; no accuracy."""

    top1: float | None = None

    def __init__(
        self,
        parts: Sequence[Part],
        unpruned: ComposedClassifier,
        synthesizer: ImageSynthesizer,
        reporter: Reporter,
    ) -> None:
        self.images = []
        for plan in trunk_plans(parts):
            images = synthetic_images(plan, synthesizer, synthesizer.settings, reporter)
            if images is None:
                raise CompositionError(
                    "Modules without statistics cannot be measured without images.",
                    hint="Give labelled images with --data.",
                )
            self.images.append(images)
        self.decisions = self._decisions(unpruned)
        self.count = sum(len(images) for images in self.images)

    def __call__(self, classifier: ComposedClassifier) -> tuple[float, float | None]:
        pairs = zip(self._decisions(classifier), self.decisions, strict=True)
        return float(
            torch.cat([(pruned == unpruned).all(1).float() for pruned, unpruned in pairs]).mean()
        ), None

    def _decisions(self, classifier: ComposedClassifier) -> list[Tensor]:
        passes = zip(classifier.trunk_passes, self.images, strict=True)
        return [trunk_pass.decisions(images) for trunk_pass, images in passes]


def _share(part: int, total: int) -> float:
    """`part` of `total`; 0 of nothing, as a trunk may have no weights."""
    return part / max(total, 1)


def _total(classifier: ComposedClassifier, kind: str) -> int:
    return sum(getattr(cost(trunk_pass.trunk.network), kind) for trunk_pass in classifier.trunk_passes)


def _latency(slim: ComposedClassifier, unpruned: ComposedClassifier, seconds: float) -> dict[int, Ratio]:
    """Wall-clock time as a fraction of the unpruned trunks', by batch size, on noise of the natural size."""
    height, width = Geometry.of([trunk_pass.spec for trunk_pass in unpruned.trunk_passes]).size
    ratios = {}
    for batch in _BATCHES:
        batch = max(1, min(batch, _NUMBERS // (3 * height * width)))
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            ours, theirs = (functools.partial(classifier, images) for classifier in (slim, unpruned))
            ratios[batch] = time_ratio(ours, theirs, seconds, most=4 * seconds)
    return ratios
