"""Classify images with a classifier, a build, or an exported file; an .onnx file needs no torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modhub.energy import EnergyUse, Meter
from modhub.errors import DataError
from modhub.images import images_below, pixels_of, read_image
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.runtimes.exported import ExportedClassifier, is_exported, open_exported

if TYPE_CHECKING:
    from torch import Tensor

    from modhub.composition import ComposedClassifier


Pixels: TypeAlias = NDArray[np.uint8]
Picture: TypeAlias = "Path | str | Image.Image | Pixels | Tensor"
"""A file or folder, an open image, (height, width[, 1 or 3]) uint8, or ([batch,] channels, height, width)."""
_Answer: TypeAlias = tuple[str | None, dict[str, float]]
_Answering: TypeAlias = Callable[[list["Pixels | Tensor"]], list[_Answer]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ImagePrediction(Result):
    """What a classifier says of one image.

    `label` is None for "none of these". `probabilities` are by label, the highest first. `path` is the file,
    None for an image in memory; of one that could not be read `error` says why and the rest is empty.
    """

    path: str | None = None
    label: str | None = None
    probabilities: Mapping[str, float]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """`path`, and either `label` and `probabilities` or `error`."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        return {"path": self.path, "label": self.label, "probabilities": dict(self.probabilities)}

    @property
    def probability(self) -> float:
        """That of the best class, in [0, 1]; of an image that could not be read 0."""
        return max(self.probabilities.values(), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Predictions(Result, Sequence[ImagePrediction]):
    """One prediction per image, in order.

    Where the classifier may say "none of these", `false_accept` has by label which share of its parent's
    images of other classes it would accept, as measured when the module was made. `energy` is what reading
    the classifier and the images and answering took.
    """

    images: tuple[ImagePrediction, ...]
    false_accept: Mapping[str, float] | None = None
    energy: EnergyUse | None = None

    def to_dict(self) -> dict[str, Any]:
        """`images`, and `false_accept` and `energy` where they are known."""
        rates = {} if self.false_accept is None else {"false_accept": dict(self.false_accept)}
        energy = {} if self.energy is None else {"energy": self.energy.to_dict()}
        return {"images": [image.to_dict() for image in self.images], **rates, **energy}

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> ImagePrediction: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImagePrediction, ...]: ...

    def __getitem__(self, index: int | slice) -> ImagePrediction | tuple[ImagePrediction, ...]:
        return self.images[index]


def predict(
    classifier: ComposedClassifier | ExportedClassifier | Path | str,
    images: Picture | Iterable[Picture],
    *,
    top: int = 3,
    batch: int = 64,
    batch_bytes: int = 256 << 20,
    device: str = "auto",
    skip_unreadable: bool = False,
    reporter: Reporter = SILENT,
) -> Predictions:
    """Classify one or many images: the best label of each and its `top` probabilities.

    `classifier` is one in memory, a build directory, or a file that `export` wrote. An image is a
    file, a folder (all images below it), a PIL image, an array or a tensor: uint8 arrays (height, width[, 1
    or 3]), tensors ([batch,] channels, height, width) of uint8 or of floats in [0, 1]. `device` is auto, cpu
    or cuda: where a build runs; a classifier in memory runs where it is, a file on the CPU.

    At most `batch` images, or `batch_bytes` of pixels and one image, are held at a time: photographs are many
    times larger than what a network reads.

    A file that cannot be read as an image raises `DataError`; with `skip_unreadable` its prediction carries
    the `error`. Raises `ManifestError`, `IntegrityError` and `ExportError` for what is no classifier.
    """
    with Meter() as meter:
        answer, false_accept, place = _answering(classifier, device)
        predictions = _predicted(answer, images, top, batch, batch_bytes, skip_unreadable, reporter)
    return Predictions(images=predictions, false_accept=false_accept, energy=meter.use(device=place))


def _predicted(
    answer: _Answering,
    images: Picture | Iterable[Picture],
    top: int,
    batch: int,
    batch_bytes: int,
    skip_unreadable: bool,
    reporter: Reporter,
) -> tuple[ImagePrediction, ...]:
    pictures = list(_pictures(images))
    predictions: dict[int, ImagePrediction] = {}
    waiting: dict[int, Pixels | Tensor] = {}

    def flush() -> None:
        for number, (label, probabilities) in zip(waiting, answer(list(waiting.values())), strict=True):
            ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])[:top]
            predictions[number] = ImagePrediction(
                path=_path(pictures[number]), label=label, probabilities=dict(ranked)
            )
        waiting.clear()

    with reporter.step("predict", len(pictures)):
        for number, picture in enumerate(pictures):
            try:
                waiting[number] = _pixels(picture)
            except DataError as error:
                if not skip_unreadable:
                    raise
                predictions[number] = ImagePrediction(path=_path(picture), probabilities={}, error=str(error))
            if len(waiting) == batch or sum(pixels.nbytes for pixels in waiting.values()) > batch_bytes:
                flush()
            reporter.advance()
        if waiting:
            flush()
    return tuple(predictions[number] for number in range(len(pictures)))


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are; folders as the images below them, by name."""
    for path in paths:
        if path.is_dir():
            below = list(images_below(path))
            if not below:
                raise DataError(f"The folder '{path}' holds no image.", hint="Name image files or a folder.")
            yield from below
        else:
            yield path


def _pictures(images: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """Every image by itself, folders as their files."""
    if isinstance(images, Path | str):
        yield from image_files([Path(images)])
    elif (
        isinstance(images, Image.Image)
        or (isinstance(images, np.ndarray) and images.ndim < 4)
        or (_is_tensor(images) and images.ndim < 4)
    ):
        yield images
    else:
        for image in images:
            if isinstance(image, Path | str):
                yield from image_files([Path(image)])
            else:
                yield image


def _pixels(picture: Picture) -> Pixels | Tensor:
    """(height, width, 1 or 3) uint8, or a tensor (channels, height, width). Raises `DataError`."""
    if isinstance(picture, Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return pixels_of(picture)
    if _is_tensor(picture):
        if picture.ndim == 3 and picture.shape[0] in (1, 3):
            return picture
        raise _shapeless("A tensor", picture, "([batch,] channels, height, width) with 1 or 3 channels")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise _shapeless("An array", pixels, "uint8 (height, width[, 1 or 3])")
    return pixels


def _shapeless(kind: str, value: Any, expected: str) -> DataError:
    return DataError(
        f"{kind} of {value.dtype} with the shape {tuple(value.shape)} is not an image.",
        hint=f"Give it as {expected}.",
    )


def _is_tensor(value: Any) -> TypeGuard[Tensor]:
    # Whoever has a tensor has imported torch.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _path(picture: Picture) -> str | None:
    return str(picture) if isinstance(picture, Path) else None


def _answering(
    classifier: ComposedClassifier | ExportedClassifier | Path | str, device: str
) -> tuple[_Answering, Mapping[str, float] | None, str]:
    """What gives the answers to a list of images, the classifier's `false_accept` where it may refuse, and
    the kind of device it is on."""
    if isinstance(classifier, Path | str):
        if is_exported(Path(classifier)):
            classifier = open_exported(Path(classifier))
        else:
            # Only a build needs torch.
            from modhub.api.load import load
            from modhub.devices import pick_device

            classifier = load(classifier).to(pick_device(device))
    if isinstance(classifier, ExportedClassifier):
        exported = classifier
        rates = exported.metadata.get("false_accept")
        return lambda images: _exported_answers(exported, images), rates, "cpu"
    composed = classifier
    rates = composed.false_accept if composed.reject else None
    return lambda images: list(_composed_answers(composed, images)), rates, composed.order.device.type


def _composed_answers(classifier: ComposedClassifier, images: list[Pixels | Tensor]) -> Iterator[_Answer]:
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    answers = iter(classifier.predict(arrays))
    for image in images:
        if isinstance(image, np.ndarray):
            prediction = next(answers)
        else:
            (prediction,) = classifier.predict(image[None])
        yield prediction.label, _probabilities(prediction.scores)


def _exported_answers(classifier: ExportedClassifier, images: list[Pixels | Tensor]) -> list[_Answer]:
    scores, acceptance = classifier.assess([_array(image) for image in images])
    rows = [_probabilities(dict(zip(classifier.labels, row, strict=True))) for row in scores.tolist()]
    best: list[str | None] = [max(row, key=lambda label: row[label]) for row in rows]
    if acceptance is not None:
        best = [label if accepted else None for label, accepted in zip(best, acceptance >= 0, strict=True)]
    return list(zip(best, rows, strict=True))


def _array(image: Pixels | Tensor) -> Pixels:
    """An image as an exported file takes it: a tensor of floats rounded to 256 levels. Raises `DataError`."""
    if isinstance(image, np.ndarray):
        return image
    # Only whoever has a tensor has torch, which a build would check it with, too.
    from modhub.data.preprocessing import check_pixels

    check_pixels(image[None])
    values: NDArray[Any] = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def _probabilities(scores: dict[str, float]) -> dict[str, float]:
    """The softmax over several labels, the sigmoid of a single one's log-odds."""
    if len(scores) == 1:
        return {label: 1 / (1 + math.exp(-max(score, -500.0))) for label, score in scores.items()}
    most = max(scores.values())
    weights = {label: math.exp(score - most) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
