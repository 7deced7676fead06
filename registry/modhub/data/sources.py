"""What `--data` understands: `digits`, `imagefolder:DIR`, and torchvision's own sets by name and root."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhub.data.imageset import ImageSet, split_indices
from modhub.errors import DataError, MissingDependencyError
from modhub.images import looks_like_image, read_image

__all__ = ["DATA_GRAMMAR", "SPLITS", "open_data"]

SPLITS = ("train", "calibration", "test")
DATA_GRAMMAR = (
    "digits, imagefolder:DIR, or one of cifar10, cifar100, mnist, fashion-mnist, kmnist and svhn with :ROOT"
)

_SPLIT_FOLDERS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
_DIGITS_SEED = 0


def open_data(data: str | ImageSet, split: str | None = None) -> ImageSet:
    """The images `data` names. `split` is train (also when None) or test, for digits also calibration.

    An image set stays what it is, whatever the split.

    A folder is taken as it is unless it holds split folders such as `train` and `test`. Images are read when
    looked at, except torchvision's own sets, which it keeps in memory. Raises `DataError` for text outside
    `DATA_GRAMMAR`, a missing root or an empty folder.
    """
    if isinstance(data, ImageSet):
        return data
    kind, colon, place = data.partition(":")
    wanted = split or "train"
    if wanted not in SPLITS:
        raise DataError(f"There is no split '{wanted}'.", hint="Use train or test.")
    if kind == "digits" and not colon:
        return _digits(wanted)
    if wanted == "calibration":
        raise DataError(f"'{data}' has no calibration split.", hint="Use train or test.")
    opener = _folder if kind == "imagefolder" else _TORCHVISION.get(kind)
    if opener is None or not place:
        raise DataError(f"'{data}' is not a data set.", hint=f"Write {DATA_GRAMMAR}.")
    root = Path(place).expanduser()
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"The data folder '{root}' {found}.", hint="Check the path after the colon.")
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
    held = fewest // 5
    calibration, test = split_indices(targets, (held, held), _DIGITS_SEED)
    rest = np.setdiff1d(np.arange(len(targets)), np.concatenate([calibration, test]))
    chosen = {"train": rest, "calibration": calibration, "test": test}[split]
    part = pixels[chosen]
    return ImageSet("digits", split, [str(digit) for digit in range(10)], targets[chosen], lambda i: part[i])


def _folder(root: Path, split: str) -> ImageSet:
    """One folder per class, images at any depth below it; other files are passed over."""
    folders = _subfolders(root)
    known = {name for names in _SPLIT_FOLDERS.values() for name in names}
    used = root.name if root.name in known else "all"
    if folders and all(folder.name in known for folder in folders):
        chosen = [folder for name in _SPLIT_FOLDERS[split] for folder in folders if folder.name == name]
        if not chosen:
            raise DataError(
                f"The data folder '{root}' has no '{split}' split.",
                hint=f"It has: {', '.join(folder.name for folder in folders)}.",
            )
        return _folder(chosen[0], split)
    paths: list[Path] = []
    targets: list[int] = []
    for number, folder in enumerate(folders):
        own = sorted(path for path in folder.rglob("*") if _is_image(path))
        paths += own
        targets += [number] * len(own)
    if not paths:
        loose = any(_is_image(path) for path in root.iterdir())
        raise DataError(
            f"The data folder '{root}' has {'no class folders' if loose else 'no images'}.",
            hint="Put the images of each class into a folder named as the class.",
        )
    labels = [folder.name for folder in folders]

    def stamp() -> list[list[Any]]:
        # No times: of copies on several machines they differ.
        return [[path.relative_to(root).as_posix(), path.stat().st_size] for path in paths]

    return ImageSet(_set_name(root), used, labels, np.array(targets), lambda i: read_image(paths[i]), stamp)


def _set_name(root: Path) -> str:
    """A folder's name without its place on this machine; a split folder is named by its parent."""
    root = root.resolve()
    known = {name for names in _SPLIT_FOLDERS.values() for name in names}
    return root.parent.name if root.name in known and root.parent.name else root.name


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return looks_like_image(path) and path.is_file()


def _torchvision(kind: str, dataset: str, layout: str) -> Callable[[Path, str], ImageSet]:
    def opener(root: Path, split: str) -> ImageSet:
        import torchvision.datasets

        options = {"split": split} if kind == "svhn" else {"train": split == "train"}
        try:
            images: Any = getattr(torchvision.datasets, dataset)(root, download=False, **options)
        except ImportError:
            raise MissingDependencyError("scipy", purpose="Reading SVHN", extra="demo") from None
        except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(
                f"The folder '{root}' does not hold {kind} as torchvision lays it out ({_first_line(error)})",
                hint=f"Expected is {layout}.",
            ) from None
        if kind == "svhn":
            pixels, targets = images.data.transpose(0, 2, 3, 1), images.labels
            labels = [str(digit) for digit in range(10)]
        else:
            pixels, targets, labels = np.asarray(images.data), images.targets, list(images.classes)
        if kind == "mnist":
            labels = [str(digit) for digit in range(10)]
        return _in_memory(kind, split, labels, np.asarray(targets), pixels)

    return opener


def _in_memory(
    kind: str, split: str, labels: list[str], targets: NDArray[Any], pixels: NDArray[np.uint8]
) -> ImageSet:
    if pixels.ndim == 3:
        pixels = pixels[:, :, :, None]
    return ImageSet(kind, split, labels, targets, lambda i: pixels[i])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


_TORCHVISION: dict[str, Callable[[Path, str], ImageSet]] = {
    "cifar10": _torchvision("cifar10", "CIFAR10", "ROOT/cifar-10-batches-py"),
    "cifar100": _torchvision("cifar100", "CIFAR100", "ROOT/cifar-100-python"),
    "mnist": _torchvision("mnist", "MNIST", "ROOT/MNIST/raw"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST", "ROOT/FashionMNIST/raw"),
    "kmnist": _torchvision("kmnist", "KMNIST", "ROOT/KMNIST/raw"),
    "svhn": _torchvision("svhn", "SVHN", "ROOT/train_32x32.mat and ROOT/test_32x32.mat"),
}
