"""How a picture of any size becomes the input of an exported file, whose height and width are fixed.

What is done to a picture before the file is what the preprocessing of its trunks would do to it, so that the
preprocessing in the file finds nothing to resize. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modhub.errors import DataError, ExportError
from modhub.manifest import InputSpec

Pixels = NDArray[np.uint8]
MODES = ("stretch", "shorter_side", "crop", "exact", "cover")
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """`size` is the (height, width) of the file's input.

    `mode` is what makes it of a picture: `stretch` resizes height and width, `shorter_side` resizes the
    shorter side and cuts the longer one at the centre, `crop` cuts or pads both, `exact` takes pictures of
    these proportions only, for trunks that prepare others in different ways; `cover` is that of files that do
    not say. `inner` (height, width) is what the file's own preprocessing cuts out, halves of pixels rounded
    down when `floor` is true.
    """

    size: tuple[int, int]
    mode: str = "cover"
    interpolation: str = "bilinear"
    inner: tuple[int, int] | None = None
    floor: bool = False

    @classmethod
    def of(cls, specs: Sequence[InputSpec], size: tuple[int, int] | None = None) -> Geometry:
        """Of the trunks with these inputs, for a file that takes `size` (None: the smallest that no trunk
        enlarges)."""
        heights, widths = zip(*(spec.resized for spec in specs), strict=True)
        size = size or (max(heights), max(widths))
        first, *others = (cls._of_one(spec, size) for spec in specs)
        if all(other == first for other in others):
            return first
        if all((other.mode, other.interpolation) == (first.mode, first.interpolation) for other in others):
            return cls(size, first.mode, first.interpolation)
        return cls(size, "exact", first.interpolation)

    @classmethod
    def _of_one(cls, spec: InputSpec, size: tuple[int, int]) -> Geometry:
        if not spec.crop or isinstance(spec.resize, tuple):
            return cls(size, "stretch", spec.interpolation)
        if spec.resize is not None and max(spec.height, spec.width) > spec.resize:
            # What is black in one picture is seen in another.
            return cls(size, "exact", spec.interpolation)
        mode = "crop" if spec.resize is None else "shorter_side"
        inner = (spec.height, spec.width) if size == spec.resized else None
        return cls(size, mode, spec.interpolation, inner, spec.crop_floor)

    @classmethod
    def from_dict(cls, size: tuple[int, int], fields: Mapping[str, Any]) -> Geometry:
        """Raises `ExportError` for a mode that this version does not know."""
        mode, interpolation = str(fields.get("mode", "cover")), str(fields.get("interpolation", "bilinear"))
        if mode not in MODES or interpolation not in _FILTERS:
            raise ExportError(
                f"The file's pictures are prepared by '{mode}' and '{interpolation}', which this version of "
                "modhub does not know.",
                hint="Upgrade it with: pip install --upgrade modhub",
            )
        inner = fields.get("inner")
        height_width = None if inner is None else (int(inner[0]), int(inner[1]))
        return cls(size, mode, interpolation, height_width, bool(fields.get("floor", False)))

    def to_dict(self) -> dict[str, Any]:
        inner = None if self.inner is None else list(self.inner)
        return {"mode": self.mode, "interpolation": self.interpolation, "inner": inner, "floor": self.floor}

    def fit(self, image: Pixels, channels: int) -> Pixels:
        """An image (height, width, 1 or 3) as (channels, *size). Raises `DataError` for one that the file
        does not take."""
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        picture = self._fitted(picture.convert("L" if channels == 1 else "RGB"))
        pixels = np.asarray(picture, dtype=np.uint8)
        return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _fitted(self, picture: Image.Image) -> Image.Image:
        (height, width), (found_width, found_height) = self.size, picture.size
        resample = _FILTERS[self.interpolation]
        if self.mode == "exact" and found_width * height != found_height * width:
            raise DataError(
                f"The image has {found_width} × {found_height} pixels, and the parents of this classifier "
                f"prepare images of other proportions than {width} : {height} in different ways, which one "
                "file cannot.",
                hint="Cut the image to these proportions, or predict with the build that was exported.",
            )
        if picture.size == (width, height):
            return picture
        if self.mode == "cover":
            return ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        if self.mode in ("stretch", "exact"):
            return picture.resize((width, height), resample)
        if self.mode == "shorter_side":
            shorter = min(height, width)
            spec_size = InputSpec.shorter_side(shorter, found_height, found_width)
            picture = picture.resize(spec_size[::-1], resample)
        top, left = (
            self._offset(extent, target, inner)
            for extent, target, inner in zip(
                picture.size[::-1], self.size, self.inner or self.size, strict=True
            )
        )
        return picture.crop((left, top, left + width, top + height))

    def _offset(self, extent: int, target: int, inner: int) -> int:
        """Where to cut, so that what the file then cuts out is what would be cut out of the whole."""
        if extent < target:
            return -((target - extent) // 2)
        return InputSpec.centred(extent, inner, floor=self.floor) - InputSpec.centred(
            target, inner, floor=self.floor
        )
