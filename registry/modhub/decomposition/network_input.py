"""What a network takes, where neither its source nor the caller says: asked of the network, then of the
images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from modhub.data import ImageSet, evenly_spaced
from modhub.decomposition.options import DecomposeOptions
from modhub.errors import DataError, ParentError
from modhub.manifest import InputSpec
from modhub.nets import Network
from modhub.parents import ParentSource
from modhub.reporter import Reporter

_VOTERS = 9
_SIZES = (8, 16, 24, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 227, 240, 256, 288, 299, 320, 384, 448, 512)
"""Sides that are tried on a network that does not take the images' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """Channels and size in pixels, and in words where each is from."""

    channels: int
    height: int
    width: int
    channels_from: str
    size_from: str

    def __str__(self) -> str:
        return (
            f"{self.channels} {'channel' if self.channels == 1 else 'channels'} ({self.channels_from}), "
            f"{self.height} × {self.width} pixels ({self.size_from})"
        )


def voting(images: ImageSet) -> list[int]:
    """Indices of the images that are asked."""
    return [int(index) for index in evenly_spaced(np.arange(len(images), dtype=np.int64), _VOTERS)]


def input_shape(
    model: nn.Module | Network,
    images: ImageSet,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
) -> InputShape:
    """Channels and size of what `model` takes; those that are given are known.

    The network's first convolution tells the channels if it takes them, else most of the images do. The size
    is that of most of the images, or the only usual one that the network takes. Raises `DataError` where
    neither tells the size, or when no image can be read.
    """
    if isinstance(model, Network):
        wanted, height, width = model.graph.input_shape
        return InputShape(
            channels=wanted,
            height=height,
            width=width,
            channels_from="the network's",
            size_from="the network's",
        )
    asked = voting(images)
    pictures = [picture for picture in images.attempted(asked) if picture is not None]
    if not pictures:
        images.images(asked)
    grey = sum(picture.shape[2] == 1 for picture in pictures)
    voted = 1 if 2 * grey > len(pictures) else 3
    (common, votes), *others = Counter(picture.shape[:2] for picture in pictures).most_common()
    usual = (int(common[0]), int(common[1])) if 2 * votes > len(pictures) else None
    first = next((layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)), voted)
    with _evaluating(model):
        for count in dict.fromkeys((channels,) if channels else (first, voted)):
            of_channels = "given" if channels else "the network's" if count == first else "of most images"
            for place, origin in ((size, "given"), (usual, "the size of most images")):
                if place is not None and count in (1, 3) and _takes(model, count, *place):
                    return InputShape(
                        channels=count,
                        height=place[0],
                        width=place[1],
                        channels_from=of_channels,
                        size_from=origin,
                    )
            if (
                size is None
                and len(taken := [side for side in _SIZES if _takes(model, count, side, side)]) == 1
            ):
                return InputShape(
                    channels=count,
                    height=taken[0],
                    width=taken[0],
                    channels_from=of_channels,
                    size_from="the only usual one that the network takes",
                )
    if (place := size or usual) is None:
        raise DataError(
            f"The images of '{images.name}' have {1 + len(others)} sizes or more, so they do not tell the "
            "network's.",
            hint="Say it with --input-size.",
        )
    # Whoever imports the network says what is wrong.
    return InputShape(
        channels=channels or voted,
        height=place[0],
        width=place[1],
        channels_from="given" if channels else "of most images",
        size_from="given" if size else "the size of most images",
    )


def input_spec(
    source: ParentSource, images: ImageSet | None, options: DecomposeOptions, reporter: Reporter
) -> InputSpec:
    """The input of a parent: as the options say it, else as its source does, else as the images have it.

    Raises `ParentError` where nothing says the size, and for a mean or deviation that images cannot have.
    """
    size, mean, std = options.input_size, options.mean, options.std
    spec = source.input if size is None else source.input_at(*size[-2:])
    if spec is None:
        if images is None:
            spec = _given_input(source, options, reporter)
        else:
            given = (
                size[0] if size is not None and len(size) == 3 else 3 if len(mean or std or ()) == 3 else None
            )
            shape = input_shape(
                source.model, images, channels=given, size=None if size is None else (size[-2], size[-1])
            )
            reporter.note(f"Input: {shape}.")
            spec = _unnormalised(shape.channels, shape.height, shape.width)
    elif source.assumed and (mean is None or std is None):
        reporter.warn(_unsaid(source))
    channels, height, width = spec.channels, spec.height, spec.width
    if size is not None:
        height, width = size[-2:]
        channels = size[0] if len(size) == 3 else max(channels, len(mean or ()))
    same = channels == spec.channels
    crop = options.crop
    if crop is None:
        crop = spec.crop or options.resize is not None
    low, high = options.value_range or spec.value_range
    _check_numbers(mean, std, low, high)
    return dataclasses.replace(
        spec,
        channels=channels,
        height=height,
        width=width,
        mean=mean or (spec.mean if same else (0.0,) * channels),
        std=std or (spec.std if same else (1.0,) * channels),
        value_range=(low, high),
        resize=options.resize or spec.resize,
        crop=crop,
        interpolation=options.interpolation or spec.interpolation,
    )


def _given_input(source: ParentSource, options: DecomposeOptions, reporter: Reporter) -> InputSpec:
    """The input as the options say it: without images nothing else does."""
    size = options.input_size
    if isinstance(source.model, Network):
        size = size or source.model.graph.input_shape
    if size is None:
        raise ParentError(
            f"The input size of '{source.name}' is unknown.",
            hint="Give it with --input-size, and --mean and --std as it was trained with.",
        )
    if options.mean is None or options.std is None:
        reporter.warn(_unsaid(source))
    channels = size[0] if len(size) == 3 else len(options.mean or options.std or (0, 0, 0))
    return _unnormalised(channels, size[-2], size[-1])


def _unsaid(source: ParentSource) -> str:
    return (
        f"Nothing says how '{source.name}' normalises its input: without --mean and --std its values are "
        "taken as they are, from 0 to 1."
    )


def _check_numbers(
    mean: Sequence[float] | None, std: Sequence[float] | None, low: float, high: float
) -> None:
    """Raise `ParentError` for a given mean or deviation that images of values from `low` to `high` cannot
    have."""
    for name, values, least, most in (
        ("mean", mean, low, high),
        ("standard deviation", std, 0.0, high - low),
    ):
        if odd := [value for value in values or () if not least <= value <= most]:
            raise ParentError(
                f"Images of values from {low:g} to {high:g} have no {name} of {odd[0]:g}.",
                hint="Say what black and white are before they are normalised: --value-range 0,255, say.",
            )


def _unnormalised(channels: int, height: int, width: int) -> InputSpec:
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return InputSpec(channels=channels, height=height, width=width, mean=zeros, std=ones)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """`model` as it answers, without gradients; after the block it is as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _takes(model: nn.Module, channels: int, height: int, width: int) -> bool:
    like = next(model.parameters(), torch.zeros(()))
    try:
        model(torch.zeros(1, channels, height, width, dtype=like.dtype, device=like.device))
    except Exception:  # it may be anyone's
        return False
    return True
