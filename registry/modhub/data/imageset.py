"""Labelled images, read only when used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from modhub.errors import DataError
from modhub.reporter import SILENT, Reporter
from modhub.workers import ALONE, Workers

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]
Result = TypeVar("Result")
_TOLERATED = 0.01
"""Share of the images that may be unreadable; one always may."""
_TOLD = 5
"""So many unreadable images are named."""
_CHECKED_AT_ONCE = 64


def _no_stamp() -> None:
    """The stamp of images whose source cannot tell whether they changed."""


@runtime_checkable
class BatchReader(Protocol):
    """A `read` function that can also read many images at once, on several threads say."""

    def __call__(self, index: int, /) -> Pixels: ...

    def many(self, indices: Sequence[int], /) -> list[Pixels]: ...


class ImageSet:
    """Images with one label each.

    `labels` are the class names; `targets[i]`, an index into them, is the class of image i. `name` and
    `split` say where the images are from, for manifests and reports. `read(i)` gives the pixels of image i
    as uint8 (height, width, 1 or 3). It is called in the caller's thread, one image after the other in the
    order asked for, so it need not be thread-safe; a `BatchReader` decides for itself how to read many.
    `stamp` gives a JSON value that changes when the images at the source change, without reading them all. A
    set can be pickled where `read` and `stamp` can.
    """

    def __init__(
        self,
        name: str,
        split: str,
        labels: Sequence[str],
        targets: NDArray[Any],
        read: Callable[[int], Pixels],
        stamp: Callable[[], Any] = _no_stamp,
    ) -> None:
        self.name = name
        self.split = split
        self.labels = tuple(labels)
        self.targets: Indices = np.asarray(targets, dtype=np.int64)
        self._read = read
        self.stamp = stamp

    def __len__(self) -> int:
        return len(self.targets)

    def images(self, indices: Iterable[int]) -> list[Pixels]:
        """The images at `indices`, each uint8 (height, width, 1 or 3); their sizes may differ."""
        return _read_many(self._read, [int(index) for index in indices])

    def counts(self) -> Indices:
        """Images per label, in the order of `labels`."""
        return np.bincount(self.targets, minlength=len(self.labels))

    def subset(self, indices: Iterable[int] | Indices) -> ImageSet:
        """The images at `indices`, in that order; the labels stay."""
        chosen = np.asarray(list(indices), dtype=np.int64)
        read = _Subset(self._read, chosen)
        return ImageSet(self.name, self.split, self.labels, self.targets[chosen], read, self.stamp)

    def only(self, labels: Sequence[str]) -> ImageSet:
        """The images of `labels`, targets in the order given. Raises `DataError` for an unknown label."""
        places = {label: place for place, label in enumerate(self.labels)}
        if missing := [label for label in labels if label not in places]:
            raise DataError(
                f"The data set '{self.name}' has no class '{missing[0]}'.",
                hint=f"It has: {', '.join(self.labels[:20])}.",
            )
        number = np.full(len(self.labels), -1, np.int64)
        number[[places[label] for label in labels]] = np.arange(len(labels))
        targets = number[self.targets]
        chosen = np.flatnonzero(targets >= 0)
        return ImageSet(self.name, self.split, labels, targets[chosen], self.subset(chosen)._read, self.stamp)

    def renumbered(self, labels: Sequence[str], rows: Mapping[str, int]) -> ImageSet:
        """The same images with targets that index `labels`; `rows` maps each current label to its index."""
        number = np.array([rows[label] for label in self.labels], np.int64)
        return ImageSet(self.name, self.split, labels, number[self.targets], self._read, self.stamp)

    def sample(self, per_class: int, seed: int) -> ImageSet:
        """At most `per_class` images of each class, drawn with `seed`; see `split_indices`."""
        (chosen,) = split_indices(self.targets, (per_class,), seed)
        return self.subset(chosen)

    def preloaded(self, indices: Iterable[int]) -> ImageSet:
        """The same set, with the images at `indices` read now and kept, so that they are not read again.

        Those that cannot be read are not kept.
        """
        wanted = [int(index) for index in indices]
        kept = {
            index: image
            for index, image in zip(wanted, self.attempted(wanted), strict=True)
            if image is not None
        }
        read = _Preloaded(self._read, kept)
        return ImageSet(self.name, self.split, self.labels, self.targets, read, self.stamp)

    def attempted(
        self, indices: Iterable[int], unreadable: list[DataError] | None = None
    ) -> list[Pixels | None]:
        """`images`, with None for each that cannot be read, whose error is added to `unreadable`."""
        wanted = [int(index) for index in indices]
        try:
            return list(self.images(wanted))
        except DataError:
            return [self._attempted(index, unreadable) for index in wanted]

    def _attempted(self, index: int, unreadable: list[DataError] | None) -> Pixels | None:
        try:
            return self._read(index)
        except DataError as error:
            if unreadable is not None:
                unreadable.append(error)
            return None

    def readable(self, reporter: Reporter = SILENT, workers: Workers = ALONE) -> Indices:
        """Indices of the images that can be read, after reading all; `reporter` is warned of the others.
        Each of the `workers` reads its part, and all give the same.

        Raises `DataError` when several, and more than 1 %, cannot be read, or all of a class.
        """
        seen: list[tuple[list[int], list[DataError]]] = []
        with reporter.step("look for unreadable images", len(self)):
            for number, start in enumerate(range(0, len(self), _CHECKED_AT_ONCE)):
                part = range(start, min(start + _CHECKED_AT_ONCE, len(self)))
                if workers.mine(number):
                    unread: list[DataError] = []
                    images = self.attempted(part, unread)
                    seen.append(
                        ([at for at, image in zip(part, images, strict=True) if image is None], unread)
                    )
                reporter.advance(len(part))
        parts = sorted(
            (part for of_one in workers.gather(seen) for part in of_one), key=lambda part: part[0][:1]
        )
        errors = [error for _, unread in parts for error in unread]
        bad = [at for places, _ in parts for at in places]
        indices = np.setdiff1d(np.arange(len(self)), np.array(bad, np.int64))
        if not errors:
            return indices
        if len(errors) > max(1, _TOLERATED * len(self)):
            raise DataError(
                f"{len(errors):,} of {len(self):,} images of '{self.name}' cannot be read, more than "
                f"{_TOLERATED:.0%}. The first: {errors[0].message}",
                hint="Remove them, or fetch them again.",
            )
        if lost := np.setdiff1d(self.targets, self.targets[indices]).tolist():
            raise DataError(
                f"No image of '{self.labels[lost[0]]}' can be read. The first: {errors[0].message}",
                hint="Remove it, or fetch it again.",
            )
        for error in errors[:_TOLD]:
            reporter.warn(error.message)
        reporter.warn(
            f"Unreadable images of '{self.name}' are passed over: {len(errors):,} of {len(self):,}."
        )
        return indices

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, Indices]]:
        """Every image once: uint8 (batch, 1 or 3, height, width) with the indices of its images.

        At most `size` images are held at a time. Among these, images of one shape share a batch, so a set of
        mixed sizes gives smaller batches.
        """
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            for pixels, positions in alike(self.images(indices)):
                yield pixels, indices[positions]


def without_unreadable(
    use: Callable[[ImageSet], Result], images: ImageSet, reporter: Reporter = SILENT
) -> Result:
    """What `use` gives for `images`; where one of them cannot be read, for those that can.

    Raises `DataError` as `ImageSet.readable` does, and what `use` raises of images that can be read.
    """
    try:
        return use(images)
    except DataError:
        readable = images.readable(reporter)
        if len(readable) == len(images):
            raise
    return use(images.subset(readable))


def _read_many(read: Callable[[int], Pixels], indices: Sequence[int]) -> list[Pixels]:
    if isinstance(read, BatchReader):
        return read.many(indices)
    return [read(index) for index in indices]


@dataclass(frozen=True, slots=True)
class _Subset:
    """Reads the images at `chosen` indices of another set."""

    read: Callable[[int], Pixels]
    chosen: Indices

    def __call__(self, index: int) -> Pixels:
        return self.read(int(self.chosen[index]))

    def many(self, indices: Sequence[int]) -> list[Pixels]:
        return _read_many(self.read, self.chosen[indices].tolist())


@dataclass(frozen=True, slots=True)
class _Preloaded:
    """Reads the images of another set, but for those that are `kept`."""

    read: Callable[[int], Pixels]
    kept: Mapping[int, Pixels]

    def __call__(self, index: int) -> Pixels:
        return self.kept[index] if index in self.kept else self.read(index)

    def many(self, indices: Sequence[int]) -> list[Pixels]:
        missing = [index for index in indices if index not in self.kept]
        images = dict(zip(missing, _read_many(self.read, missing), strict=True))
        return [self.kept[index] if index in self.kept else images[index] for index in indices]


def alike(images: Sequence[Pixels]) -> Iterator[tuple[torch.Tensor, Indices]]:
    """Images (height, width, channel) grouped by shape: uint8 (batch, channel, height, width) with their
    positions. Raises `DataError` for an image of another shape."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        if len(image.shape) != 3 or image.shape[2] not in (1, 3):
            raise DataError(
                f"An image has the shape {tuple(image.shape)}; it should be (height, width, 1 or 3).",
                hint="Give tensors as one batch (batch, 1 or 3, height, width).",
            )
        shapes.setdefault(image.shape, []).append(position)
    for positions in shapes.values():
        yield as_batch([images[position] for position in positions]), np.array(positions, np.int64)


def as_batch(images: Sequence[Pixels]) -> torch.Tensor:
    """Images of one shape (height, width, channel) as uint8 (batch, channel, height, width)."""
    height, width, channels = images[0].shape
    if channels == 1:
        # Which layout a convolution gives out hangs on these strides, and the last bits of sums over it.
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    batch = np.empty((len(images), channels, height, width), images[0].dtype)
    for planes, image in zip(batch, images, strict=True):
        # Plane by plane: three times as fast as permuting the whole batch.
        for channel in range(channels):
            planes[channel] = image[:, :, channel]
    return torch.from_numpy(batch)


def evenly_spaced(indices: Indices, most: int) -> Indices:
    """At most `most` of `indices`, from the first to the last."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


def split_indices(targets: NDArray[Any], per_class: Sequence[int], seed: int) -> tuple[Indices, ...]:
    """Disjoint samples, `per_class[k]` images of every class for the k-th; indices in rising order.

    The draw for a class depends only on `seed`, the class's number and how many images it has. When a class
    has too few for all samples, each gets its share, and at least one while there are enough.
    """
    parts: list[list[Indices]] = [[] for _ in per_class]
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label).astype(np.int64)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(members)
        start = 0
        for part, count in zip(parts, _shares(len(members), per_class), strict=True):
            part.append(shuffled[start : start + count])
            start += count
    empty = np.zeros(0, dtype=np.int64)
    return tuple(np.sort(np.concatenate([empty, *part])) for part in parts)


def _shares(available: int, wanted: Sequence[int]) -> list[int]:
    total = sum(wanted)
    if total <= available:
        return list(wanted)
    shares = [min(count, max(1 if count else 0, available * count // total)) for count in wanted]
    while sum(shares) > available:
        shares[shares.index(max(shares))] -= 1
    return shares
