"""The parents, images and modules that benchmarks measure on; everything slow is kept between runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modhub.api.decompose import decompose_to, open_parent
from modhub.artifact import read_artifact
from modhub.artifact.modules import ModuleSet
from modhub.composition import ComposedClassifier, Part, parts_of
from modhub.composition.fitting.synthesizer import ImageSynthesizer
from modhub.data import ImageSet, open_data
from modhub.data.preprocessing import Preprocess
from modhub.decomposition import DecomposeOptions, Parent
from modhub.devices import CPU
from modhub.nets import Runner
from modhub.nets.architectures import ARCHITECTURES
from modhub.text import pretty_json

__all__ = ["PARENTS", "Given", "World"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


@dataclass(frozen=True, slots=True)
class Given:
    """A trained parent: its architecture, weights file, data set and normalisation."""

    architecture: str
    weights: str
    dataset: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PARENTS = {
    "C10-R20": Given("modhub:resnet20", "cifar10_resnet20", "cifar10", *IMAGENET),
    "C10-R32": Given("modhub:resnet32", "cifar10_resnet32", "cifar10", *IMAGENET),
    "C10-R44": Given("modhub:resnet44", "cifar10_resnet44", "cifar10", *IMAGENET),
    "C10-R56": Given("modhub:resnet56", "cifar10_resnet56", "cifar10", *IMAGENET),
    "C100-R20": Given("modhub:resnet20", "cifar100_resnet20", "cifar100", *CIFAR100),
    "C100-R32": Given("modhub:resnet32", "cifar100_resnet32", "cifar100", *CIFAR100),
    "C100-R56": Given("modhub:resnet56", "cifar100_resnet56", "cifar100", *CIFAR100),
    "TINY-R20": Given("modhub:resnet20", "tiny_imagenet_resnet20", "tiny-imagenet", *IMAGENET),
    "TINY-R32": Given("modhub:resnet32", "tiny_imagenet_resnet32", "tiny-imagenet", *IMAGENET),
    "TINY-R56": Given("modhub:resnet56", "tiny_imagenet_resnet56", "tiny-imagenet", *IMAGENET),
    **{
        f"C10-P{depth}": Given(
            f"{Path(__file__).parent / 'train_parents.py'}:plain{depth}",
            f"cifar10_plain{depth}",
            "cifar10",
            *IMAGENET,
        )
        for depth in (20, 32, 56)
    },
    "C10-T": Given(
        f"{Path(__file__).parent / 'train_parents.py'}:compact", "cifar10_compact", "cifar10", *IMAGENET
    ),
}
FOLDERS = {("tiny-imagenet", "train"): "train40", ("tiny-imagenet", "test"): "val"}
"""Splits that are not called train and test."""


class World:
    """`data` holds image folders NAME/{train,test}, `weights` the parents' files; `out` is kept.

    Networks are composed on `device`, and those that are trained here are trained and decomposed there; given
    parents are decomposed on the CPU, and everything is measured there.

    Parents of more classes than `examine` are decomposed with the loss validated for so many of them; None:
    of all.

    `read_only` sets are in memory: the test images of CIFAR are 30 MB.
    """

    def __init__(
        self,
        data: Path,
        weights: Path,
        out: Path,
        device: torch.device = CPU,
        *,
        examine: int | None = None,
    ) -> None:
        self.data, self.weights, self.out, self.device, self.examine = data, weights, out, device, examine
        self.synthesizer = ImageSynthesizer()
        self.images = cache(self._images)
        self.parent = cache(self._parent)
        self.modules = cache(self._modules)
        self.test_logits = cache(self._test_logits)
        self.network = cache(self._network)
        self.module = cache(self._module)

    def _images(self, dataset: str, split: str) -> ImageSet:
        """A split with its pixels in memory, decoded once and kept."""
        folder = self.data / dataset / FOLDERS.get((dataset, split), split)
        source = open_data(f"classes:{folder}")
        path = self.out / "images" / f"{dataset}-{split}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".part.npy")
            np.save(scratch, np.stack(source.images(range(len(source)))))
            scratch.replace(path)
        pixels = np.load(path, mmap_mode="r")
        return ImageSet(
            dataset, split, source.labels, source.targets, lambda index: np.asarray(pixels[index])
        )

    def has(self, name: str) -> bool:
        """Whether the parent's weights are there."""
        return (self.weights / f"{PARENTS[name].weights}.safetensors").is_file()

    def settings(self, name: str) -> DecomposeOptions:
        given = PARENTS[name]
        return DecomposeOptions(
            weights=self.weights / f"{given.weights}.safetensors",
            mean=given.mean,
            std=given.std,
            examine=self.examine,
            name=given.weights.replace("_", "-"),
        )

    def _parent(self, name: str) -> Parent:
        given = PARENTS[name]
        return open_parent(given.architecture, self.images(given.dataset, "train"), self.settings(name))

    def _modules(self, name: str) -> ModuleSet:
        """Decomposed with default settings; how long that took stands in `seconds.json` beside it."""
        directory = self.out / "modules" / name
        if not directory.exists():
            given = PARENTS[name]
            images = self.images(given.dataset, "train")
            start = time.perf_counter()
            # What an interrupted run has done would not be counted.
            shutil.rmtree(directory.parent / f".{name}.resume", ignore_errors=True)
            done = decompose_to(directory, given.architecture, images, self.settings(name))
            report = {**done.to_dict(), "wall": time.perf_counter() - start}
            if self.examine is not None and self.examine < len(done.modules):
                report["examined"] = self.examine
            (self.out / "modules" / f"{name}.json").write_bytes(pretty_json(report))
        return read_artifact(directory)

    def parts(self, name: str, labels: Sequence[str] | None = None) -> list[Part]:
        return parts_of(self.modules(name), labels)

    def _network(self, name: str) -> nn.Module:
        """The whole parent, raw images in, logits out."""
        parent = self.parent(name)
        return nn.Sequential(Preprocess(parent.input), Runner(parent.head.join(parent.trunk))).eval()

    def _module(self, name: str) -> nn.Module:
        """The same as its authors wrote it: a PyTorch module, batch-norms and all."""
        given = PARENTS[name]
        module = ARCHITECTURES[given.architecture.removeprefix("modhub:")].build(
            len(self.parent(name).labels)
        )
        return nn.Sequential(Preprocess(self.parent(name).input), module).eval()

    def _test_logits(self, name: str) -> tuple[Tensor, Tensor]:
        """The parent's logits (images, labels) on its whole test split, and the targets."""
        images = self.images(PARENTS[name].dataset, "test")
        path = self.out / "logits" / f"{name}.npy"
        if not path.exists():
            with torch.inference_mode():
                found = [self.network(name)(pixels).numpy() for pixels, _ in images.batches(250)]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.concatenate(found))
        return torch.from_numpy(np.load(path)), torch.from_numpy(images.targets)

    def restricted(self, name: str, labels: Sequence[str]) -> float:
        """Top-1 of the parent's own logits restricted to `labels`, on their test images."""
        logits, targets = self.test_logits(name)
        rows = torch.tensor([self.parent(name).labels.index(label) for label in labels])
        chosen = torch.isin(targets, rows)
        answers = rows[logits[chosen][:, rows].argmax(1)]
        return float((answers == targets[chosen]).double().mean())

    def scores(
        self, classifier: ComposedClassifier, dataset: str, labels: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Scores on the test images of `labels`, and targets as positions in `labels`."""
        images = self.images(dataset, "test").only(list(labels))
        with torch.inference_mode():
            found = [classifier(pixels) for pixels, _ in images.batches(250)]
        return torch.cat(found), torch.from_numpy(images.targets)

    def accuracy(self, classifier: ComposedClassifier, dataset: str) -> float:
        """Top-1 on the test images of the classifier's own labels."""
        scores, targets = self.scores(classifier, dataset, classifier.labels)
        return float((scores.argmax(1) == targets).double().mean())
