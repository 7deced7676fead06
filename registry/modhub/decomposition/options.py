"""What can be chosen about a decomposition: one dataclass for the command line, Python, methods and
workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modhub.data import ImageSet
from modhub.devices import pick_device
from modhub.errors import BudgetError, DataError, ParentError
from modhub.licences import licence_expression
from modhub.parents import names_of

if TYPE_CHECKING:
    from modhub.decomposition.method import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class DecomposeOptions:
    """The keywords of `modhub.decompose` and the options of `modhub decompose`. What is None is taken from
    the parent, then from the images, or does not matter.

    Parent: `weights` is a safetensors file or a checkpoint of torch.save, `arguments` are for a
    `FILE.py:CALLABLE`. `labels` are its classes in the order of its outputs (`imagenet-1k`: ImageNet's).
    `input_size` is ([channels,] height, width) in pixels; `mean` and `std` are per channel, of values in
    `value_range` (None: [0, 1]). Images are resized so that their shorter side is `resize` pixels, or to
    that (height, width), with `interpolation`, and cut at the centre to the input size where `crop` is true
    (None: where `resize` is given). `name`, `license` (an SPDX id) and `dataset` (what it was trained on)
    go into the manifests, and so does `date` (ISO 8601). With `fit_head` the parent is a backbone, and a
    head is fitted on the images; `head` is a safetensors file of one.

    Images: `split` is the part of the data set to use (None: train). `images_per_class` and
    `calibration_images` are per class and disjoint, drawn with `seed`: channels are chosen by the former;
    on the latter the choice is validated, calibrated and measured. `measure` are images that the parent was
    not trained on: recorded metrics come from them (of a string: from its test split) instead.

    Choice: `method` is a name that `modhub.methods()` lists, `FILE.py:CLASS` or a method that was made
    already; `method_options` are arguments of its constructor, text as the command line reads it. `only` are
    the classes to make modules of. `max_loss` is the balanced accuracy, in fractions, that a module alone
    may lose against the parent's one-against-rest answer. `examine` is for how many classes at most that
    loss is validated on images; the others reuse the threshold found (None: all, but few where a large
    network has many classes).

    Work: `device` is auto, cpu, cuda or cuda:N. `batch` images are in memory at a time. `resume` is a folder
    for nothing else, in which an interrupted run keeps its results, and looks for them.
    """

    weights: Path | str | None = None
    arguments: Mapping[str, Any] | None = None
    labels: Sequence[str] | None = None
    name: str | None = None
    input_size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    resize: int | tuple[int, int] | None = None
    crop: bool | None = None
    interpolation: str | None = None
    license: str | None = None
    dataset: str | None = None
    date: str | None = None
    fit_head: bool = False
    head: Path | str | None = None

    split: str | None = None
    images_per_class: int = 300
    calibration_images: int = 100
    seed: int = 0
    measure: str | ImageSet | None = None

    method: str | Method = "relevance"
    method_options: Mapping[str, Any] | None = None
    only: Sequence[str] | None = None
    max_loss: float = 0.005
    examine: int | None = None

    device: str = "auto"
    batch: int = 100
    resume: Path | None = None

    def __post_init__(self) -> None:
        """Takes numbers, arrays and `class_to_idx` dictionaries for what they plainly mean.

        Raises `BudgetError` for a loss that is no fraction, `DataError` for too few images per class,
        `ParentError` for a licence that is no SPDX expression."""
        if self.labels is not None:
            given = [self.labels] if isinstance(self.labels, str) else self.labels
            object.__setattr__(self, "labels", names_of(given, len(given)))
        if self.only is not None:
            only: Any = self.only
            single = isinstance(only, str) or not isinstance(only, Iterable)
            object.__setattr__(self, "only", tuple(map(str, [only] if single else only)))
        if isinstance(self.input_size, int):
            object.__setattr__(self, "input_size", (self.input_size, self.input_size))
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, int | float):
                value = (value,)
            if value is not None:
                object.__setattr__(self, name, tuple(float(number) for number in value))
        if self.license is not None:
            try:
                licence_expression(self.license)
            except ValueError as error:
                raise ParentError(str(error), hint="For example: mit") from None
        if not 0 <= self.max_loss < 1:
            raise BudgetError(
                f"A module cannot lose {self.max_loss:g} of its accuracy.",
                hint="Give the loss as a fraction: 0.005 is half a point.",
            )
        if self.fit_head and (self.labels or self.head or self.method_options or self.method != "relevance"):
            given = "labels" if self.labels else "a head" if self.head else "a method"
            raise DataError(
                "A head is fitted to the classes of the images, and the trunk is kept whole: "
                f"{given} cannot be given.",
                hint="Leave it out, or leave out --fit-head.",
            )
        if self.images_per_class < 2:
            raise DataError(
                f"At least 2 images per class are required, not {self.images_per_class}.",
                hint="300 per class are usual.",
            )

    @property
    def torch_device(self) -> torch.device:
        """The device that computes. Raises `DeviceError`."""
        return pick_device(self.device)
