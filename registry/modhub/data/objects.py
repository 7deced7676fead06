"""Labelled images as Python programs have them: torch data sets, and arrays with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from modhub.data.imageset import ImageSet, evenly_spaced
from modhub.errors import DataError
from modhub.images import pixels_of, read_image
from modhub.refs import repeated

_HINT = (
    "Give a data set's name, a folder, a modhub.ImageSet, a torch data set of (image, label), or "
    "(images, labels) or (images, labels, names) as arrays."
)
_IMAGE_KEYS, _LABEL_KEYS = ("image", "img"), ("label",)
"""Of items that are dictionaries, as the library datasets gives them."""
_CHECKED = 8
"""So many labels that a data set states are compared with those of its items."""


def image_set_of(data: Any, split: str) -> ImageSet:
    """A torch data set, or a tuple of images, integer labels and, if known, the names of the classes.

    Parts and unions of data sets (`Subset`, `ConcatDataset`) have the classes of what they are made of.
    Raises `DataError` for anything else, and for images that are neither uint8 nor floats in [0, 1].
    """
    if isinstance(data, tuple) and len(data) in (2, 3) and not isinstance(data[0], str):
        images, targets = data[0], np.asarray(_array(data[1]))
        if not hasattr(images, "__len__"):
            raise DataError(f"A {type(images).__name__} holds no images.", hint=_HINT)
        if len(images) != len(targets):
            raise DataError(f"There are {len(images)} images, but {len(targets)} labels.", hint=_HINT)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        read = _Items(images)
        named = data[2] if len(data) == 3 else None
        name = "images"
    elif (
        hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | dict)
    ):
        targets = np.array(_targets(data), np.int64)
        read = _Items(data, paired=True)
        named = _classes(data)
        name = type(data).__name__.lower()
    else:
        raise DataError(f"A {type(data).__name__} is no data set.", hint=_HINT)
    if not len(targets):
        raise DataError("The data set is empty.", hint=_HINT)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0:
        raise DataError(
            "The labels of the images are not whole numbers from 0 on, one per image.", hint=_HINT
        )
    return ImageSet(name, split, _names(named, targets), targets, read)


def _targets(data: Any) -> list[int]:
    parts = getattr(data, "datasets", None)
    if isinstance(data, torch.utils.data.ConcatDataset) and parts is not None:
        return [target for part in parts for target in _targets(part)]
    if type(data) is torch.utils.data.Subset:
        whole = _targets(data.dataset)
        return [whole[int(index)] for index in data.indices]
    try:
        if (stated := _stated_targets(data)) is not None:
            return stated
        return [_whole(_pair(data[index])[1]) for index in range(len(data))]
    except (TypeError, ValueError, IndexError, KeyError):
        raise DataError(
            f"The items of the {type(data).__name__} are no pairs of an image and a whole number.", hint=_HINT
        ) from None


def _stated_targets(data: Any) -> list[int] | None:
    """The attribute `targets`, which spares reading all images; None where items say otherwise, as they do
    after a transform of the targets."""
    stated = getattr(data, "targets", None)
    if stated is None or len(stated) != len(data) or not len(data):
        return None
    try:
        targets = [_whole(target) for target in stated]
    except (TypeError, ValueError):
        return None
    places = evenly_spaced(np.arange(len(targets)), _CHECKED).tolist()
    agree = all(_whole(_pair(data[index])[1]) == targets[index] for index in places)
    return targets if agree else None


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        (image,) = (item[key] for key in _IMAGE_KEYS if key in item)
        (label,) = (item[key] for key in _LABEL_KEYS if key in item)
        return image, label
    return item[0], item[1]


def _whole(target: Any) -> int:
    """An integer, or an array of one. Raises `TypeError` for anything else."""
    value = np.asarray(_array(target))
    if value.size != 1 or value.dtype.kind not in "iub":
        raise TypeError(target)
    return int(value.reshape(()))


def _classes(data: Any) -> Any:
    """The names of the classes: a list, or numbers by name; None where none are known.

    Raises `DataError` for parts that do not mean the same classes by their numbers.
    """
    numbers, names = getattr(data, "class_to_idx", None), getattr(data, "classes", None)
    if names is not None or numbers is not None:
        plain = isinstance(numbers, Mapping) and set(numbers.values()) == set(range(len(numbers)))
        return numbers if names is None or plain else names
    if isinstance(data, torch.utils.data.Subset):
        return _classes(data.dataset)
    if isinstance(data, torch.utils.data.ConcatDataset):
        named = [_classes(part) for part in data.datasets]
        listed = [None if each is None else _in_order(each) for each in named]
        if any(each != listed[0] for each in listed):
            raise DataError(
                "The parts of the ConcatDataset do not have the same classes in the same order.",
                hint="Number the labels of all parts alike, and give all of them the same `classes`.",
            )
        return named[0]
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        return next(
            (getattr(features[key], "names", None) for key in _LABEL_KEYS if key in features),
            None,
        )
    return None


def _in_order(named: Any) -> list[str]:
    """Names in the order of their numbers; the words for one class, as torchvision's ImageNet has them, with
    commas between them."""
    if isinstance(named, Mapping):
        if set(named) == set(range(len(named))):
            named = {name: number for number, name in named.items()}
        if set(named.values()) != set(range(len(named))):
            raise DataError(
                "The numbers of the classes are not those from 0 on, each once: "
                f"{', '.join(f'{name!r}: {number}' for name, number in list(named.items())[:5])}.",
                hint=_HINT,
            )
        named = sorted(named, key=lambda key: named[key])
    return [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in named]


def _names(named: Any, targets: NDArray[Any]) -> list[str]:
    count = int(targets.max()) + 1
    if named is None:
        return [str(index) for index in range(count)]
    names = _in_order(named)
    if len(names) < count:
        raise DataError(f"There are {len(names)} names, but label {count - 1}.", hint=_HINT)
    if twice := repeated(names):
        raise DataError(f"Two classes have the name '{min(twice)}'.", hint="Give every class its own.")
    return names


@dataclass(frozen=True, slots=True)
class _Items:
    """Reads images out of a sequence of them or, when `paired`, out of a data set of pairs."""

    items: Any
    paired: bool = False

    def __call__(self, index: int) -> NDArray[np.uint8]:
        item = self.items[index]
        return _pixels(_pair(item)[0] if self.paired else item)


def _array(value: Any) -> Any:
    """A tensor as an array, which has no type of 16 bits but one; all else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _pixels(image: Any) -> NDArray[np.uint8]:
    """uint8 (height, width, 1 or 3) of a file, a PIL image, an array or a tensor, channels first or last:
    where both may be, first in a tensor and last in an array."""
    if isinstance(image, Image.Image):
        return pixels_of(image)
    if isinstance(image, str | Path):
        return read_image(Path(image))
    values = np.asarray(_array(image))
    if values.ndim == 2:
        values = values[:, :, None]
    first = values.ndim == 3 and values.shape[0] in (1, 3)
    if first and (values.shape[2] not in (1, 3) or isinstance(image, torch.Tensor)):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in (1, 3):
        raise DataError(
            f"An image has the shape {values.shape}; it should be (height, width, 1 or 3) or "
            "(1 or 3, height, width).",
            hint=_HINT,
        )
    if values.dtype.kind not in "fiub":
        raise DataError(
            f"An image is of type {values.dtype}; pixels are uint8 in 0…255 or floats in [0, 1].", hint=_HINT
        )
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"An image holds floats from {values.min():.4g} to {values.max():.4g}; "
                "pixels are uint8 in 0…255 or floats in [0, 1].",
                hint="Leave normalisation out of the data set's transform, and say it with mean and std.",
            )
        values = np.rint(values * 255)
    elif values.dtype.kind == "b":
        values = values * np.uint8(255)
    elif values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise DataError(
            f"An image holds numbers from {values.min()} to {values.max()}; pixels are uint8 in 0…255.",
            hint=_HINT,
        )
    return np.ascontiguousarray(values.astype(np.uint8))
