"""What a trunk takes, and how an image becomes that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from modhub.errors import ManifestError
from modhub.manifest.fields import Fields
from modhub.results import Document

PIXELS_LIMIT = 1 << 22
"""Of an image as a network takes it: 2048 × 2048."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec(Document):
    """What the trunk takes, and how a raw image becomes that.

    `channels` is 1 or 3; `height` and `width` are the trunk's own, in pixels. A raw image is scaled to
    `value_range` (low, high), resized so that its shorter side is `resize` pixels (two numbers: to that
    height and width; None: straight to height × width), cut at the centre to height × width when `crop` is
    true, then `(value − mean) / std` per channel. Half a pixel at the crop's edge is rounded to even, as
    torchvision does, or down, as transformers does, when `crop_floor` is true.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: int | tuple[int, int] | None = None
    crop: bool = False
    interpolation: str = "bilinear"
    crop_floor: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ManifestError(
                f"The input has {self.channels} channels; an image is grey (1) or RGB (3).",
                hint="Check --input-size, --mean and --std.",
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ManifestError(
                f"The input has {self.channels} channels, but {len(self.mean)} means and {len(self.std)} "
                "standard deviations.",
                hint="Give one value per channel.",
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ManifestError(
                "A mean or standard deviation of the input is not a finite number.",
                hint="Check --mean and --std.",
            )
        if min(self.std) <= 0:
            raise ManifestError("A standard deviation of the input is not positive.", hint="Check --std.")

    @classmethod
    def from_dict(cls, fields: Fields) -> InputSpec:
        low_high = fields.numbers("value_range")
        if len(low_high) != 2 or low_high[0] >= low_high[1]:
            raise ManifestError(f"'value_range' in {fields.place} should be two rising numbers.")
        channels = fields.integer("channels")
        resize: int | tuple[int, int] | None = None
        if isinstance(fields.value.get("resize"), list):
            resize = fields.extent("resize", maximum=8192)
        elif fields.value.get("resize") is not None:
            resize = fields.integer("resize", minimum=1, maximum=8192)
        crop_floor = "crop_floor" in fields.value and fields.boolean("crop_floor")
        height = fields.integer("height", minimum=1, maximum=8192)
        width = fields.integer("width", minimum=1, maximum=8192)
        mean, std = fields.numbers("mean"), fields.numbers("std")
        crop, interpolation = fields.boolean("crop"), fields.choice("interpolation", INTERPOLATIONS)
        for name, (rows, columns) in {
            "input": (height, width),
            "resize": resize if isinstance(resize, tuple) else (resize or 1, resize or 1),
        }.items():
            if rows * columns > PIXELS_LIMIT:
                raise ManifestError(
                    f"{fields.place} asks for images of {rows:,} × {columns:,} pixels ('{name}'); "
                    f"{PIXELS_LIMIT:,} pixels are allowed."
                )
        try:
            return cls(
                channels=channels,
                height=height,
                width=width,
                mean=mean,
                std=std,
                value_range=(low_high[0], low_high[1]),
                resize=resize,
                crop=crop,
                interpolation=interpolation,
                crop_floor=crop_floor,
            )
        except ManifestError as error:
            # Its hint is for who describes a parent, not for who reads of one.
            raise ManifestError(f"{fields.place} makes no sense: {error.message}") from None

    def to_dict(self) -> dict[str, Any]:
        document = Document.to_dict(self)
        if not self.crop_floor:
            del document["crop_floor"]
        return document

    @property
    def schema_version(self) -> int:
        """The first version of manifests and builds whose readers do all of it: two sides to resize to, and
        halves of pixels rounded down, came with the second."""
        return 2 if self.crop_floor or isinstance(self.resize, tuple) else 1

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) of the smallest image that resizing does not enlarge."""
        if self.resize is None or not self.crop:
            return self.height, self.width
        return self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of `height` × `width` is resized to before it is cut."""
        if self.resize is None:
            return (height, width) if self.crop else (self.height, self.width)
        if not self.crop:
            return self.height, self.width
        if isinstance(self.resize, tuple):
            return self.resize
        return self.shorter_side(self.resize, height, width)

    @staticmethod
    def shorter_side(side: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) with `side` as the shorter one: torchvision's rule, which drops fractions."""
        longer = max(1, int(side * max(height, width) / min(height, width)))
        return (side, longer) if height <= width else (longer, side)

    @staticmethod
    def centred(length: int, part: int, *, floor: bool) -> int:
        """Where `part` of `length` pixels begins at the centre, as `crop_floor` says."""
        return (int if floor else round)((length - part) / 2.0)

    def at(self, height: int, width: int) -> InputSpec:
        """The same for images of another size: what is cut off stays the same part of the image."""
        if (height, width) == (self.height, self.width) or self.resize is None:
            return replace(self, height=height, width=width)
        if isinstance(self.resize, tuple):
            resize: int | tuple[int, int] = (
                self.resize[0] * height // self.height,
                self.resize[1] * width // self.width,
            )
        else:
            resize = self.resize * min(height, width) // min(self.height, self.width)
        return replace(self, height=height, width=width, resize=resize)
