"""What `--data` understands: `digits`, a folder of images, and torchvision's own sets by name and root."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.data.folders import check_classes, set_name, split_folder, split_name, subfolders
from modhub.data.imageset import ImageSet, split_indices
from modhub.data.objects import image_set_of
from modhub.errors import DataError, MissingDependencyError
from modhub.images import has_images, images_below, read_image, read_images

SPLITS = ("train", "calibration", "test")
DATA_GRAMMAR = (
    "digits, a folder of class folders, or one of cifar10, cifar100, mnist, fashion-mnist, kmnist and svhn "
    "with :ROOT"
)

_DIGITS = "digits"
_DIGITS_SEED = 0


def open_data(data: Any, split: str | None = None) -> ImageSet:
    """The images `data` names. `split` is train (also when None) or test, for digits also calibration.

    An image set stays what it is, whatever the split, and so do torch data sets and arrays (`image_set_of`).

    A folder, `imagefolder:DIR` or just DIR, is taken as it is unless it holds split folders such as `train`
    and `test`; of `classes:DIR` all folders are classes, whatever they are called. Images are read when
    looked at, except torchvision's own sets, which it keeps in memory. Raises `DataError` for text outside
    `DATA_GRAMMAR`, a missing root, an empty folder, and folders that may be splits as well as classes.
    """
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, Path):
        data = str(data)
    if not isinstance(data, str):
        return image_set_of(data, split or "train")
    wanted = split or "train"
    if wanted not in SPLITS:
        raise DataError(f"There is no split '{wanted}'.", hint="Use train or test.")
    if data == _DIGITS:
        return _digits(wanted)
    kind, colon, place = data.partition(":")
    opener = _OPENERS.get(kind) if colon else None
    if opener is None:
        kind, place, opener = "imagefolder", data, _folder
        if not Path(data).expanduser().is_dir():
            reason = "is a file, not a folder" if Path(data).expanduser().is_file() else "is not a data set"
            raise DataError(f"'{data}' {reason}.", hint=f"Write {DATA_GRAMMAR}.")
    if not place:
        raise DataError(f"'{data}' is not a data set.", hint=f"Write {DATA_GRAMMAR}.")
    if wanted == "calibration":
        raise DataError(f"'{data}' has no calibration split.", hint="Use train or test.")
    root = Path(place).expanduser()
    if not root.is_dir():
        reason = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"The data folder '{root}' {reason}.", hint="Check the path after the colon.")
    return opener(root, wanted)


@cache
def _digits(split: str) -> ImageSet:
    """scikit-learn's 1,797 scanned digits, 8 × 8, grey; a fifth each for calibration and test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError("scikit-learn", purpose="The digits data set", extra="demo") from None
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, :, :, None]
    targets = bunch.target.astype(np.int64)
    fewest = int(np.bincount(targets).min())
    size = fewest // 5
    calibration, test = split_indices(targets, (size, size), _DIGITS_SEED)
    rest = np.setdiff1d(np.arange(len(targets)), np.concatenate([calibration, test]))
    chosen = {"train": rest, "calibration": calibration, "test": test}[split]
    part = pixels[chosen]
    return ImageSet(_DIGITS, split, [str(digit) for digit in range(10)], targets[chosen], part.__getitem__)


def open_unlabelled(data: str | ImageSet, split: str | None = None) -> ImageSet:
    """Images whose classes are of no matter: what `open_data` takes, or a folder of images (see
    `plain_folder`), which then have one label, the folder's name. Raises `DataError`."""
    folder = None if isinstance(data, ImageSet) else plain_folder(data)
    if folder is None:
        return open_data(data, split)
    return folder_of_images(folder, split or "train", set_name(folder))


def plain_folder(data: str) -> Path | None:
    """The folder that `data` names, with `imagefolder:` only where it holds images and no class folders; None
    where `data` is for `open_data`."""
    kind, colon, place = data.partition(":")
    named = bool(colon) and kind == "imagefolder"
    folder = Path(place if named else data).expanduser()
    if data == _DIGITS or not folder.is_dir() or (named and not place):
        return None
    if named and any(map(has_images, subfolders(folder))):
        return None
    return folder


def class_folders(root: Path, split: str) -> list[str]:
    """The names of the folders in a data folder, or in its split folder, that hold images."""
    return [folder.name for folder in subfolders(split_folder(root, split)) if has_images(folder)]


def folder_of_images(root: Path, split: str, label: str) -> ImageSet:
    """All images below a folder, or below its split folder, as images of `label`."""
    part = split_folder(root, split)
    paths = list(images_below(part))
    if not paths:
        raise DataError(f"The folder '{part}' holds no image.", hint="Name a folder of images.")
    targets = np.zeros(len(paths), np.int64)
    files = _Files(part, paths)
    return ImageSet(set_name(part), split, [label], targets, files, files.stamp)


def _folder(root: Path, split: str) -> ImageSet:
    """The folders of classes in a folder or in its split folder."""
    part = split_folder(root, split)
    check_classes(part, [folder for folder in subfolders(part) if has_images(folder)])
    return _classes(part, split)


def _classes(part: Path, _: str) -> ImageSet:
    """One folder per class, images at any depth below it; other files are passed over."""
    folders = subfolders(part)
    paths: list[Path] = []
    targets: list[int] = []
    for number, folder in enumerate(folders):
        images = list(images_below(folder))
        paths += images
        targets += [number] * len(images)
    if not paths:
        loose = has_images(part)
        raise DataError(
            f"The data folder '{part}' has {'no class folders' if loose else 'no images'}.",
            hint="Put the images of each class into a folder named as the class."
            + (f" If '{part.name}' is a class: classes:{part.parent}" if loose and split_name(part) else ""),
        )
    labels = [folder.name for folder in folders]
    files = _Files(part, paths)
    return ImageSet(set_name(part), split_name(part) or "all", labels, np.array(targets), files, files.stamp)


@dataclass(frozen=True, slots=True)
class _Files:
    """Reads the image files `paths` below `root`, many of them on as many threads as torch computes on. It
    can be pickled, unlike a local function."""

    root: Path
    paths: Sequence[Path]

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return read_image(self.paths[index])

    def many(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        return read_images([self.paths[index] for index in indices], torch.get_num_threads())

    def stamp(self) -> list[list[Any]]:
        # No times: of copies on several machines they differ.
        return [[path.relative_to(self.root).as_posix(), path.stat().st_size] for path in self.paths]


def _torchvision(kind: str, dataset: str, layout: str) -> Callable[[Path, str], ImageSet]:
    def opener(root: Path, split: str) -> ImageSet:
        import torchvision.datasets

        options = {"split": split} if kind == "svhn" else {"train": split == "train"}
        try:
            images: Any = getattr(torchvision.datasets, dataset)(root, download=False, **options)
        except ImportError:
            raise MissingDependencyError("scipy", purpose="Reading SVHN", extra="demo") from None
        except (RuntimeError, OSError, ValueError, KeyError, EOFError, TypeError, AssertionError) as error:
            raise _unlike(kind, layout, root, _reason(error)) from None
        if kind == "svhn":
            pixels, targets = images.data.transpose(0, 2, 3, 1), images.labels
            labels = [str(digit) for digit in range(10)]
        else:
            pixels, targets, labels = np.asarray(images.data), images.targets, list(images.classes)
        if kind == "mnist":
            labels = [str(digit) for digit in range(10)]
        targets = np.asarray(targets)
        if len(pixels) != len(targets):
            raise _unlike(kind, layout, root, f"{len(pixels)} images, but {len(targets)} labels")
        if len(targets) and not 0 <= targets.min() <= targets.max() < len(labels):
            raise _unlike(kind, layout, root, f"label {targets.max()}, but {len(labels)} classes")
        return _in_memory(kind, split, labels, targets, pixels)

    return opener


def _in_memory(
    kind: str, split: str, labels: list[str], targets: NDArray[Any], pixels: NDArray[np.uint8]
) -> ImageSet:
    if pixels.ndim == 3:
        pixels = pixels[:, :, :, None]
    return ImageSet(kind, split, labels, targets, pixels.__getitem__)


def _unlike(kind: str, layout: str, root: Path, reason: str) -> DataError:
    return DataError(
        f"The folder '{root}' does not hold {kind} as torchvision lays it out ({reason}).",
        hint=f"Expected is {layout}.",
    )


def _reason(error: Exception) -> str:
    """The first line of what torchvision says, without what to pass to a constructor."""
    message = (str(error).splitlines() or [""])[0].partition(" You can use download=True")[0].rstrip(".")
    return message or "damaged files"


_OPENERS: dict[str, Callable[[Path, str], ImageSet]] = {
    "imagefolder": _folder,
    "classes": _classes,
    "cifar10": _torchvision("cifar10", "CIFAR10", "ROOT/cifar-10-batches-py"),
    "cifar100": _torchvision("cifar100", "CIFAR100", "ROOT/cifar-100-python"),
    "mnist": _torchvision("mnist", "MNIST", "ROOT/MNIST/raw"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST", "ROOT/FashionMNIST/raw"),
    "kmnist": _torchvision("kmnist", "KMNIST", "ROOT/KMNIST/raw"),
    "svhn": _torchvision("svhn", "SVHN", "ROOT/train_32x32.mat and ROOT/test_32x32.mat"),
}
