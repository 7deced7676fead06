"""The steps of the demo, told as they are done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.api.add import add
from modhub.api.compose import compose_to
from modhub.api.decompose import decompose_to
from modhub.api.init import init
from modhub.api.load import load
from modhub.api.lock import lock_to
from modhub.api.locked_modules import parts_of_lock
from modhub.api.pull import pull
from modhub.api.push import push
from modhub.api.replace import replace_to
from modhub.api.search import search
from modhub.artifact import read_artifact
from modhub.catalog.catalog import Catalog
from modhub.composition import Budget, Part, compose, parts_of
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.data import ImageSet, open_data
from modhub.decomposition import DecomposeOptions
from modhub.demo.baselines import random_twin, restricted
from modhub.demo.parents import train_parent
from modhub.errors import BudgetError
from modhub.evaluation.evaluate import Classifier, evaluate
from modhub.evaluation.metrics import Evaluation
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.nets import channel_space
from modhub.parents import load_parent
from modhub.project.lock import LOCK_NAME, Lock
from modhub.reporter import SILENT, Reporter

PARENTS = {"plain": [str(digit) for digit in range(6)], "residual": [str(digit) for digit in range(4, 10)]}
BUDGETS = (0.25, 0.12, 0.06)
SLIM = 0.25
"""The budget of the classifier of three classes, a fraction of its parent's multiply-adds."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, in one line; `commands` are what a user would type for it."""

    title: str
    sentence: str
    commands: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A classifier on the test split, beside its baselines; fractions in [0, 1].

    `restricted` are the whole parents' own logits, `random` that of random masks of the same size.
    `flops_fraction` is of one full pass through each parent.
    """

    name: str
    evaluation: Evaluation
    restricted: float
    random: float | None
    passes: int
    flops_fraction: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Point:
    """One size of a classifier of six classes: top-1 with the composer's channels and with random ones."""

    flops_fraction: float
    top1: float
    random: float


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """Which channels the modules of one parent keep: bool (module, slot), and where its groups end."""

    labels: tuple[str, ...]
    kept: NDArray[np.bool_]
    groups: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Story:
    """Everything the report shows; filled while the steps are told."""

    steps: list[Step] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    parents: dict[str, Evaluation] = field(default_factory=dict)
    masks: dict[str, MaskPicture] = field(default_factory=dict)
    frontier: list[Point] = field(default_factory=list)
    samples: list[tuple[NDArray[np.uint8], str, str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the figures, without the pictures."""
        return {
            "seconds": self.seconds,
            "steps": [
                {"title": step.title, "commands": list(step.commands), "seconds": step.seconds}
                for step in self.steps
            ],
            "parents": {name: parent.top1 for name, parent in self.parents.items()},
            "classifiers": [
                {
                    "name": entry.name,
                    "top1": entry.evaluation.top1,
                    "restricted_logits": entry.restricted,
                    "random_mask": entry.random,
                    "passes": entry.passes,
                    "flops_fraction": entry.flops_fraction,
                    "bytes": entry.bytes,
                }
                for entry in self.measured
            ],
            "frontier": [
                {"flops_fraction": point.flops_fraction, "top1": point.top1, "random": point.random}
                for point in self.frontier
            ],
        }


class _Teller:
    def __init__(self, root: Path, story: Story, reporter: Reporter) -> None:
        self.root, self.story, self.reporter = root, story, reporter
        self.hub = DirectoryHub(root / "hub")
        self.catalog = Catalog(self.hub, Cache(root / "cache"))
        self.test: ImageSet = open_data("digits", "test")
        self.begun = time.perf_counter()

    def step(self, title: str, sentence: str, *commands: str) -> Step:
        now = time.perf_counter()
        step = Step(title, sentence, commands, now - self.begun)
        self.begun = now
        self.story.steps.append(step)
        return step

    def weights(self, name: str) -> Path:
        return self.root / "parents" / f"{name}.safetensors"

    def train(self) -> Step:
        for name, labels in PARENTS.items():
            train_parent(f"digits-{name}", labels, self.weights(name), reporter=self.reporter)
            self.story.parents[name] = evaluate(self.whole({name: labels}), self.test)
        told = " and ".join(
            f"'{name}' knows {labels[0]} to {labels[-1]} ({100 * self.story.parents[name].top1:.1f} % right)"
            for name, labels in PARENTS.items()
        )
        return self.step("Two parents are trained here", f"{told}.")

    def whole(self, wanted: Mapping[str, Sequence[str]]) -> Classifier:
        """The untouched parents, restricted to the wanted labels."""
        return restricted(
            [
                (load_parent(f"modhub:digits-{name}", weights=self.weights(name)), PARENTS[name], labels)
                for name, labels in wanted.items()
            ]
        )

    def decompose(self) -> Step:
        sizes, commands = [], []
        for name, labels in PARENTS.items():
            made = decompose_to(
                self.root / "modules" / name,
                f"modhub:digits-{name}",
                "digits",
                DecomposeOptions(
                    weights=self.weights(name), labels=labels, name=name, license="bsd-3-clause"
                ),
                reporter=self.reporter,
            )
            sizes += [module.bytes for module in made.modules]
            commands.append(
                f"modhub decompose modhub:digits-{name} --weights parents/{name}.safetensors --data digits "
                f"--labels {','.join(labels)} --name {name} --license bsd-3-clause -o modules/{name}"
            )
            self.story.masks[name] = _picture(self.root / "modules" / name)
        mean = sum(sizes) / len(sizes) / 1000
        return self.step(
            "Each becomes one module per class",
            f"{len(sizes)} modules of {mean:.0f} kB: the channels a class needs, its head, its calibration.",
            *commands,
        )

    def publish(self) -> Step:
        for name in PARENTS:
            push(self.root / "modules" / name, f"demo/{name}", version="1.0.0", hub=self.catalog)
        return self.step(
            "Both are published on a hub that is just a folder",
            "A release is one commit and one tag, and never changes.",
            *(f"modhub push modules/{name} demo/{name} --version 1.0.0" for name in PARENTS),
        )

    def find(self) -> Step:
        hits = search(["4"], hub=self.catalog).modules
        pulled = pull(["demo/plain/0", "demo/plain/1", "demo/plain/2"], hub=self.catalog)
        more = pull(["demo/plain/3"], hub=self.catalog)
        return self.step(
            "Modules are found by class and pulled by name",
            f"{len(hits)} modules answer to '4'. Three modules with their trunk: "
            f"{pulled.downloaded_bytes / 1000:.0f} kB; a fourth {more.downloaded_bytes / 1000:.0f}.",
            "modhub search 4",
            "modhub pull demo/plain/0 demo/plain/1 demo/plain/2",
        )

    def project(self, name: str, items: Sequence[str]) -> Path:
        folder = self.root / name
        folder.mkdir()
        init(folder, name)
        add(folder, items, hub=self.catalog)
        lock_to(folder, hub=self.catalog, reporter=self.reporter)
        return folder

    def few(self) -> Step:
        items = [f"{digit}=demo/plain/{digit}" for digit in "012"]
        folder = self.project("few", items)
        compose_to(
            folder / "build", folder, budget=Budget(flops=SLIM), hub=self.catalog, reporter=self.reporter
        )
        measured = self.measure("0, 1 and 2, a quarter of the work", folder / "build", {"plain": "012"})
        return self.step(
            "Three classes of one parent become one small network",
            f"{_compared(measured)}, with {100 * measured.flops_fraction:.0f} % of the multiply-adds.",
            f"modhub init few && cd few && modhub add {' '.join(items)} && modhub lock",
            f"modhub compose -o build --budget flops={SLIM}",
            "modhub evaluate build --data digits",
        )

    def all(self) -> Step:
        items = [f"{digit}=demo/{'plain' if digit < 6 else 'residual'}/{digit}" for digit in range(10)]
        folder = self.project("all", items)
        compose_to(folder / "build", folder, hub=self.catalog, reporter=self.reporter)
        measured = self.measure(
            "all ten of both parents", folder / "build", {"plain": "012345", "residual": "6789"}
        )
        return self.step(
            "All ten digits of both: a classifier that neither parent could be",
            f"{_compared(measured)}; one pass per parent.",
            f"cd .. && modhub init all && cd all && modhub add {' '.join(items)}",
            "modhub lock && modhub compose -o build && modhub evaluate build --data digits",
        )

    def mend(self) -> Step:
        build, mended = self.root / "all" / "build", self.root / "all" / "mended"
        items = ["4=demo/residual/4", "5=demo/residual/5"]
        replace_to(mended, build, items, hub=self.catalog, reporter=self.reporter)
        measured = self.measure(
            "the same with 4 and 5 of the other parent", mended, {"plain": "0123", "residual": "456789"}
        )
        before = self.story.measured[-2].evaluation.per_class
        changes = ", ".join(
            f"{label} {100 * (after - earlier):+.1f}"
            for label, score in measured.evaluation.per_class.items()
            if (after := score.recall) is not None
            and (earlier := before[label].recall) is not None
            and after != earlier
        )
        return self.step(
            "Its 4 and 5 are replaced by the other parent's",
            f"{_compared(measured)}. Recall in pp: {changes or 'unchanged'}.",
            f"modhub replace build {' '.join(items)} -o mended",
            "modhub evaluate mended --data digits --before build",
        )

    def sizes(self) -> Step:
        parts = parts_of(read_artifact(self.root / "modules" / "plain"))
        synthesizer = ImageSynthesizer()
        for fraction in BUDGETS:
            budget = Budget(flops=fraction)
            try:
                slim = compose(parts, budget=budget, synthesizer=synthesizer)
            except BudgetError:
                continue
            twins = [random_twin(parts, budget, seed, synthesizer) for seed in SEEDS[:2]]
            random = float(np.mean([evaluate(twin, self.test).top1 for twin in twins]))
            report = slim.report()["trunks"]
            top1 = evaluate(slim, self.test).top1
            self.story.frontier.append(Point(_flops_fraction(report), top1, random))
        least = self.story.frontier[-1]
        return self.step(
            "Accuracy against size",
            f"0 to 5 at {100 * least.flops_fraction:.0f} % of the multiply-adds: "
            f"{100 * least.top1:.1f} %, with random channels {100 * least.random:.1f} %.",
            "cd .. && modhub init plain && cd plain && modhub add demo/plain",
            f"modhub compose -o build --budget flops={BUDGETS[-1]}",
        )

    def measure(self, name: str, build: Path, wanted: Mapping[str, Sequence[str]]) -> Measured:
        classifier = load(build)
        report = classifier.report()["trunks"]
        parts = self.parts(build)
        slim, seeds = (None, SEEDS) if len(wanted) > 1 else (Budget(flops=SLIM), SEEDS[:1])
        measured = Measured(
            name=name,
            evaluation=evaluate(classifier, self.test, reporter=self.reporter),
            restricted=evaluate(self.whole(wanted), self.test).top1,
            random=float(
                np.mean([evaluate(random_twin(parts, slim, seed), self.test).top1 for seed in seeds])
            ),
            passes=len(classifier.trunk_passes),
            flops_fraction=_flops_fraction(report),
            bytes=sum(path.stat().st_size for path in build.rglob("*.safetensors")),
        )
        self.story.measured.append(measured)
        return measured

    def parts(self, build: Path) -> list[Part]:
        return parts_of_lock(Lock.from_bytes((build / LOCK_NAME).read_bytes()), self.catalog)

    def ask(self) -> None:
        classifier = load(self.root / "all" / "mended")
        chosen = np.linspace(0, len(self.test) - 1, 20).astype(int)
        images = self.test.images(int(index) for index in chosen)
        for image, index, answer in zip(images, chosen, classifier.predict(images), strict=True):
            truth = self.test.labels[int(self.test.targets[index])]
            self.story.samples.append((image, truth, answer.label or "none", answer.probability))


def tell(root: Path, story: Story, reporter: Reporter = SILENT) -> Iterator[Step]:
    """Do the steps inside `root`, an empty folder, and yield each when it is done; fills `story`."""
    begun = time.perf_counter()
    teller = _Teller(root, story, reporter)
    threads = torch.get_num_threads()
    # Networks this small take longer on several threads than on one.
    torch.set_num_threads(1)
    try:
        for step in (
            teller.train,
            teller.decompose,
            teller.publish,
            teller.find,
            teller.few,
            teller.all,
            teller.mend,
            teller.sizes,
        ):
            yield step()
        teller.ask()
        story.seconds = time.perf_counter() - begun
    finally:
        torch.set_num_threads(threads)
        teller.hub.store.close()


def _picture(directory: Path) -> MaskPicture:
    modules = read_artifact(directory)
    space = channel_space(modules.trunk)
    kept = np.stack([module.parsed.mask.bool().numpy() for module in modules.modules])
    groups = tuple((group.name, group.start + group.size) for group in space.groups)
    return MaskPicture(tuple(module.label for module in modules.modules), kept, groups)


def _flops_fraction(trunks: Any) -> float:
    return float(sum(trunk["flops"] for trunk in trunks) / sum(trunk["parent_flops"] for trunk in trunks))


def _compared(measured: Measured) -> str:
    random = (
        "" if measured.random is None else f", random mask of the same size {100 * measured.random:.1f} %"
    )
    return (
        f"{100 * measured.evaluation.top1:.1f} % right (whole parents' restricted logits "
        f"{100 * measured.restricted:.1f} %{random})"
    )
