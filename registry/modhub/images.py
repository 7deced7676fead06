"""Any image file a user has, as uint8 pixels."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from modhub.errors import DataError

__all__ = ["PIXEL_LIMIT", "looks_like_image", "read_image"]

PIXEL_LIMIT = 100_000_000
"""More pixels than this are not decoded: a small file can ask for gigabytes."""

_SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def looks_like_image(path: Path) -> bool:
    """Whether a file found in a folder is taken for an image, by its name; hidden ones are not."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Pixels (height, width, 1 or 3), 0…255, upright as its EXIF orientation says.

    Grey images stay grey; everything else becomes RGB as torchvision's loader makes it (an alpha channel is
    dropped). 16-bit values keep their upper eight bits; of an animation the first frame is read. Raises
    `DataError` naming the file: missing, not an image, truncated, or larger than `PIXEL_LIMIT`.
    """
    try:
        with warnings.catch_warnings():
            # The size is checked below, with an error instead of a warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except FileNotFoundError:
        raise DataError(f"The image '{path}' does not exist.", hint="Check the path.") from None
    except Image.DecompressionBombError:
        raise _too_large(path, f"more than {PIXEL_LIMIT:,} pixels") from None
    except UnidentifiedImageError:
        raise DataError(
            f"'{path}' is not an image that can be read.", hint="Remove it, or save it as PNG or JPEG."
        ) from None
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    with image:
        width, height = image.size
        if width * height > PIXEL_LIMIT:
            raise _too_large(path, f"{width:,} × {height:,} pixels")
        try:
            image.load()
            return _pixels(ImageOps.exif_transpose(image))
        except Image.DecompressionBombError:
            raise _too_large(path, f"more than {PIXEL_LIMIT:,} pixels") from None
        except _BROKEN as error:
            raise _unreadable(path, error) from None


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        return _from_wide(np.asarray(image), image.mode)[:, :, None]
    if image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    if image.mode == "L":
        return np.array(image, dtype=np.uint8)[:, :, None]
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _from_wide(values: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits or floats: the full scale is 65535 for integers and 1 for fractions."""
    numbers = np.nan_to_num(values.astype(np.float64))
    if mode == "F":
        scaled = numbers * 255 if numbers.max(initial=0.0) <= 1 else numbers
    else:
        scaled = np.floor(numbers / 256)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        f"The image '{path}' has {size}; at most {PIXEL_LIMIT:,} are read.", hint="Scale it down first."
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, IsADirectoryError):
        return DataError(f"'{path}' is a folder, not an image.", hint="Name an image file.")
    if isinstance(error, PermissionError):
        return DataError(f"The image '{path}' may not be read.", hint="Check its permissions.")
    return DataError(
        f"The image '{path}' is truncated or damaged ({error}).", hint="Remove it or fetch it again."
    )
