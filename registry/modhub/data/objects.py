"""Labelled images as Python programs have them: torch data sets, and arrays with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from modhub.data.imageset import ImageSet
from modhub.errors import DataError
from modhub.images import pixels_of

__all__ = ["image_set_of"]

_HINT = (
    "Give a data set's name, a folder, a modhub.ImageSet, a torch data set of (image, label), or "
    "(images, labels) or (images, labels, names) as arrays."
)


def image_set_of(data: Any, split: str) -> ImageSet:
    """A torch data set, or a tuple of images, integer labels and, if known, the names of the classes.

    Raises `DataError` for anything else, and for images that are neither uint8 nor floats in [0, 1].
    """
    if isinstance(data, tuple) and len(data) in (2, 3) and not isinstance(data[0], str):
        images, targets = (np.asarray(array) for array in data[:2])
        if len(images) != len(targets):
            raise DataError(f"There are {len(images)} images, but {len(targets)} labels.", hint=_HINT)
        read = _Items(images)
        named = data[2] if len(data) == 3 else None
        name = "images"
    elif (
        hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | dict)
    ):
        targets = np.asarray(_targets(data))
        read = _Items(data, paired=True)
        named = getattr(data, "class_to_idx", None) or getattr(data, "classes", None)
        name = type(data).__name__.lower()
    else:
        raise DataError(f"A {type(data).__name__} is no data set.", hint=_HINT)
    if not len(targets):
        raise DataError("The data set is empty.", hint=_HINT)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0:
        raise DataError(
            "The labels of the images are not whole numbers from 0 on, one per image.", hint=_HINT
        )
    labels = _names(named, int(targets.max()) + 1)
    return ImageSet(name, split, labels, targets, read)


def _targets(data: Any) -> Sequence[int]:
    stated = getattr(data, "targets", None)
    if stated is not None and len(stated) == len(data):
        return [int(target) for target in stated]
    try:
        return [int(data[index][1]) for index in range(len(data))]
    except (TypeError, ValueError, IndexError, KeyError):
        raise DataError(
            f"The items of the {type(data).__name__} are no pairs of an image and a whole number.", hint=_HINT
        ) from None


def _names(named: Any, count: int) -> list[str]:
    if named is None:
        return [str(index) for index in range(count)]
    if isinstance(named, Mapping):
        named = sorted(named, key=lambda key: named[key])
    if len(named) < count:
        raise DataError(f"There are {len(named)} names, but label {count - 1}.", hint=_HINT)
    return [str(name) for name in named]


@dataclass(frozen=True, slots=True)
class _Items:
    """Reads images out of an array or, when `paired`, out of a data set of pairs."""

    items: Any
    paired: bool = False

    def __call__(self, index: int) -> NDArray[np.uint8]:
        item = self.items[index]
        return _pixels(item[0] if self.paired else item)


def _pixels(image: Any) -> NDArray[np.uint8]:
    """uint8 (height, width, 1 or 3) of a PIL image, an array or a tensor, channels first or last."""
    if isinstance(image, Image.Image):
        return pixels_of(image)
    values = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3 and values.shape[2] not in (1, 3) and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in (1, 3):
        raise DataError(
            f"An image has the shape {values.shape}; it should be (height, width, 1 or 3) or "
            "(1 or 3, height, width).",
            hint=_HINT,
        )
    if np.issubdtype(values.dtype, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"An image holds floats from {values.min():.4g} to {values.max():.4g}; "
                "pixels are uint8 in 0…255 or floats in [0, 1].",
                hint="Leave normalisation out of the data set's transform, and say it with mean and std.",
            )
        values = np.rint(values * 255)
    elif values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise DataError(
            f"An image holds numbers from {values.min()} to {values.max()}; pixels are uint8 in 0…255.",
            hint=_HINT,
        )
    return np.ascontiguousarray(values.astype(np.uint8))
