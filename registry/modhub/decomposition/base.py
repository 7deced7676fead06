"""What a decomposition method is given, and what it must do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from modhub.artifact.modules import Decomposition
from modhub.data import ImageSet
from modhub.devices import CPU
from modhub.errors import BudgetError, DataError, ParentError, RefError
from modhub.labels import LabelIndex, nearest_labels, one_match, spelling_of
from modhub.manifest import InputSpec, Sizes
from modhub.nets import Cost, Head, Mask, Network, split_head
from modhub.refs import check_label, is_text, repeated, rows_of
from modhub.reporter import Reporter

__all__ = ["DecomposeOptions", "Method", "Parent", "aligned", "classes_seen", "sizes_of", "wanted_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A trained classifier, taken apart into trunk and head.

    `labels[k]` is the class of row k of the head. `sha256` is the content id of the whole network.
    """

    name: str
    architecture: str
    trunk: Network
    head: Head
    labels: tuple[str, ...]
    input: InputSpec
    license: str | None
    dataset: str | None
    sha256: str

    @classmethod
    def of(
        cls,
        network: Network,
        *,
        name: str,
        architecture: str,
        labels: Sequence[str],
        input: InputSpec,  # noqa: A002 - the manifest's own word
        license: str | None = None,  # noqa: A002
        dataset: str | None = None,
    ) -> Parent:
        """Check a network and split it at its head.

        Raises `ParentError` for weights that are not finite, labels that do not match the head (in number, or
        because one stands twice), an input that is not the network's, and labels or a name, licence or data
        set that are no line of text.
        """
        for key, tensor in network.tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ParentError(
                    f"The weights of '{name}' hold values that are not finite, first in '{key}'.",
                    hint="Train or save the network again; such weights answer nothing.",
                )
        trunk, head = split_head(network)
        rows = head.weight.shape[0]
        if len(labels) != rows:
            raise ParentError(
                f"'{name}' answers with {rows} classes, but {len(labels)} labels were given.",
                hint="Give one label per row of its last layer, in that order, with --labels.",
            )
        if twice := repeated(map(spelling_of, labels)):
            raise ParentError(f"The label '{min(twice)}' stands twice.", hint="Give every class its own.")
        for label in labels:
            try:
                check_label(label)
            except RefError as error:
                hint = "Rename the class's folder, or name the classes with --labels."
                raise ParentError(error.message, hint=hint) from None
        said = {"name": name, "licence": license, "data set": dataset}
        if odd := [what for what, text in said.items() if text is not None and not is_text(text)]:
            raise ParentError(
                f"The {odd[0]} {said[odd[0]]!a} holds a control character or a lone surrogate.",
                hint="Say it otherwise with --name, --license or --dataset.",
            )
        expected = (input.channels, input.height, input.width)
        if tuple(trunk.graph.input_shape) != expected:
            raise ParentError(
                f"'{name}' takes images of {trunk.graph.input_shape} (channels, height, width), but the "
                f"input was described as {expected}.",
                hint="Check --input-size, --mean and --std.",
            )
        return cls(
            name=name,
            architecture=architecture,
            trunk=trunk,
            head=head,
            labels=tuple(labels),
            input=input,
            license=license,
            dataset=dataset,
            sha256=network.sha256,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecomposeOptions:
    """How to decompose.

    `max_loss` is the balanced accuracy, in fractions, that a module alone may lose against the parent's own
    one-against-rest answer on the calibration images. `fit_images` and `calibration_images` are per class
    and disjoint, drawn with `seed`. `labels` are the classes wanted; None: all.

    `examined` is for how many classes at most a choice is checked on images; the others go as far as the
    checked ones could (None: all, but few where trunk and classes are many). `device` computes. `resume` is a
    folder in which an interrupted run keeps what it has found, and looks for it.
    """

    max_loss: float = 0.005
    fit_images: int = 300
    calibration_images: int = 100
    seed: int = 0
    batch: int = 100
    labels: tuple[str, ...] | None = None
    examined: int | None = None
    device: torch.device = CPU
    resume: Path | None = None

    def __post_init__(self) -> None:
        """Raises `BudgetError` for a loss that is no fraction, `DataError` for too few images of a class."""
        if not 0 <= self.max_loss < 1:
            raise BudgetError(
                f"A module cannot lose {self.max_loss:g} of its accuracy.",
                hint="Give the loss as a fraction: 0.005 is half a point.",
            )
        if self.fit_images < 2:
            raise DataError(
                f"A class cannot be found by {self.fit_images} of its images.",
                hint="Look at 2 or more of each class; 300 are usual.",
            )


class Method(Protocol):
    """One way to find the part of a parent that a class needs. `paper` is where it comes from, if any."""

    name: str
    paper: str | None

    def decompose(
        self, parent: Parent, images: ImageSet, options: DecomposeOptions, reporter: Reporter
    ) -> Decomposition:
        """One draft per wanted class, in the order of the parent's labels.

        `images` are training images with labels of their own; `aligned` makes them the parent's. Raises
        `DataError` when a wanted class has too few of them.
        """
        ...


def wanted_rows(parent: Parent, options: DecomposeOptions) -> list[int]:
    """The head's rows of the classes to make modules of, rising. Raises `DataError` for an unknown class."""
    if unknown := set(options.labels or ()) - set(parent.labels):
        raise _no_class(parent, min(unknown))
    wanted = set(options.labels or parent.labels)
    return [row for row, label in enumerate(parent.labels) if label in wanted]


def sizes_of(mask: Mask, kept: Cost, whole: Cost) -> Sizes:
    """What a module keeps: the slots of `mask`, and the costs of its network and of the whole trunk."""
    return Sizes(
        kept_channels=int(mask.sum()),
        channels=len(mask),
        kept_parameters=kept.parameters,
        parameters=whole.parameters,
        flops=kept.flops,
        parent_flops=whole.flops,
    )


def classes_seen(parent: Parent, images: ImageSet) -> dict[str, int]:
    """For a method's parameters: of how many classes there were `images`, when not of all."""
    seen = int(np.unique(images.targets).size)
    return {"classes_seen": seen} if seen < len(parent.labels) else {}


def classes_named(parent: Parent, texts: Sequence[str]) -> tuple[str, ...]:
    """The labels of the parent that `texts` name: each one label, or several with commas between them.

    A label may hold commas itself. Raises `DataError` with the nearest labels for a class that there is not,
    and `AmbiguousClassError`.
    """
    index = LabelIndex(parent.labels)
    named: dict[str, None] = {}
    for text in texts:
        parts = text.split(",")
        while parts:
            for count in range(len(parts), 0, -1):
                name = ",".join(parts[:count]).strip()
                places = index.find(name)
                if count > 1:
                    places = tuple(place for place in places if "," in parent.labels[place])
                match = one_match(name, parent.labels, places, f"'{parent.name}'")
                if match is not None or (count == 1 and not name):
                    break
            else:
                raise _no_class(parent, name, text)
            if match is not None:
                named[parent.labels[match]] = None
            parts = parts[count:]
    if not named:
        raise DataError("No class is named to make a module of.", hint="Name at least one with --only.")
    return tuple(named)


def _no_class(parent: Parent, name: str, text: str = "") -> DataError:
    near = nearest_labels(name, parent.labels) or nearest_labels(text, parent.labels)
    listed = ", ".join(f"'{label}'" for label in near or parent.labels[:20])
    return DataError(
        f"'{parent.name}' has no class '{name}'.",
        hint=f"{'Nearest' if near else 'Its classes are'}: {listed}.",
    )


def aligned(
    parent: Parent, images: ImageSet, needed: Sequence[str] | None = None, minimum: int = 2
) -> ImageSet:
    """`images` of the parent's classes, targets counted as the parent's labels.

    Case and separators of labels do not count, unless they tell classes apart (`rows_of`). Only the classes
    `needed` (None: all) must be there; others are what a module tells its class from. Raises `DataError`
    when a needed class has fewer than `minimum` images, or when there is no other.
    """
    needed = parent.labels if needed is None else needed
    rows = rows_of(images.labels, parent.labels)
    given = set(rows.values())
    there = [label for row, label in enumerate(parent.labels) if row in given]
    if missing := sorted(set(needed) - set(there)):
        hint = f"Its classes are: {', '.join(images.labels[:10])}; name the parent's with --labels."
        if len(there) > 1:
            only = " ".join(f"--only {shlex.quote(label)}" for label in there[:10])
            hint = f"Make modules of what is there with: {only}"
        raise DataError(
            f"The data set '{images.name}' has no images of '{missing[0]}', which '{parent.name}' knows"
            + (f" (and lacks {len(missing) - 1} more of its classes)." if len(missing) > 1 else "."),
            hint=hint,
        )
    own = images.only([label for label in images.labels if label in rows]).renumbered(parent.labels, rows)
    counts = own.counts()
    images_of = dict(zip(parent.labels, counts.tolist(), strict=True))
    for label in needed:
        if images_of[label] < minimum:
            raise DataError(
                f"The data set '{images.name}' has {images_of[label]} images of '{label}'; "
                f"at least {minimum} are needed.",
                hint="Add images of that class.",
            )
    if np.count_nonzero(counts) < 2:
        raise DataError(
            f"Of the classes that '{parent.name}' knows, the data set '{images.name}' has images of "
            f"'{parent.labels[int(counts.argmax())]}' only.",
            hint="Add images of another of its classes, for the module to be told from.",
        )
    return own
