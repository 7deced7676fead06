"""Any image file a user has, as uint8 pixels."""

from __future__ import annotations

import errno
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from modhub.errors import DataError

__all__ = ["PIXEL_LIMIT", "images_below", "pixels_of", "read_image", "read_images"]

PIXEL_LIMIT = 100_000_000
"""More pixels than this are not decoded: a small file can ask for gigabytes."""

_PER_THREAD = 4
"""A thread for fewer images costs more than it saves."""

# Files of the last line are not read, but telling their names is better than passing over a phone's photos.
_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
        *(".ppm", ".tif", ".tiff", ".webp"),
        *(".heic", ".heif", ".jxl"),
    )
)

_BROKEN = (
    OSError,
    RuntimeError,
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


def images_below(folder: Path) -> Iterator[Path]:
    """What is taken for an image by its name, at any depth below a folder, in the order of paths.

    Hidden files and folders are passed over, as are pipes and the like; a link that leads nowhere is not, so
    that whoever reads it can tell.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_file() or (path.is_symlink() and not path.is_dir() and not path.exists()):
            yield path


def read_image(path: Path) -> NDArray[np.uint8]:
    """Pixels (height, width, 1 or 3), 0…255, upright as its EXIF orientation says.

    Grey images stay grey; everything else becomes RGB as torchvision's loader makes it (an alpha channel is
    dropped). 16-bit values keep their upper eight bits; of an animation the first frame is read. A pipe is
    read to its end. Raises `DataError` naming the file: missing, not an image, truncated, or larger than
    `PIXEL_LIMIT`.
    """
    with warnings.catch_warnings():
        # Pillow's warnings either become an error below or do not concern the pixels.
        warnings.simplefilter("ignore")
        return _decode(path)


def read_images(paths: Sequence[Path], threads: int = 1) -> list[NDArray[np.uint8]]:
    """`read_image` of each path, in order, on at most `threads` threads; Pillow decodes without the GIL.

    The threads end before this returns or raises. Raises the `DataError` of the first unreadable path.
    """
    threads = min(threads, len(paths) // _PER_THREAD)
    # Warning filters belong to the whole process, so they are set here and never inside the threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if threads < 2:
            return [_decode(path) for path in paths]
        with ThreadPoolExecutor(threads, "modhub-read") as pool:
            return list(pool.map(_decode, paths))


def _decode(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(BytesIO(path.read_bytes()) if path.is_fifo() else path) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise _too_large(path, f"{width:,} × {height:,} pixels")
            image.load()
            form = image.format
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image, form)
    except FileNotFoundError:
        raise _missing(path) from None
    except Image.DecompressionBombError:
        raise _too_large(path, f"more than {PIXEL_LIMIT:,} pixels") from None
    except UnidentifiedImageError:
        raise DataError(
            f"'{path}' is not a readable image.", hint="Remove it, or save it as PNG or JPEG."
        ) from None
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels (height, width, 1 or 3), 0…255, of an open image, as `read_image` gives those of a file."""
    return _pixels(ImageOps.exif_transpose(image), image.format)


def _pixels(image: Image.Image, form: str | None) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        return _from_wide(np.asarray(image), image.mode, form)[:, :, None]
    if image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    if image.mode == "L":
        return np.array(image, dtype=np.uint8)[:, :, None]
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image, dtype=np.uint8)


def _from_wide(values: NDArray[np.generic], mode: str, form: str | None) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits or floats: the full scale is 65535 for integers and 1 for fractions.

    Integers of 32 bits have no scale of their own. Those up to 255 are taken as they are, except where Pillow
    makes them of 16 bits (PGM).
    """
    numbers = np.nan_to_num(values.astype(np.float64))
    if mode == "F":
        scaled = numbers * 255 if numbers.max(initial=0.0) <= 1 else numbers
    elif mode == "I" and form != "PPM" and numbers.max(initial=0.0) <= 255:
        scaled = numbers
    else:
        scaled = np.floor(numbers / 256)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _missing(path: Path) -> DataError:
    if path.is_symlink():
        return DataError(
            f"The image '{path}' is a link to '{path.readlink()}', which does not exist.",
            hint="Remove the link, or bring back what it leads to.",
        )
    return DataError(f"The image '{path}' does not exist.", hint="Check the path.")


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        f"The image '{path}' has {size}; at most {PIXEL_LIMIT:,} are read.", hint="Scale it down first."
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, IsADirectoryError):
        return DataError(f"'{path}' is a folder, not an image.", hint="Name an image file.")
    if isinstance(error, PermissionError):
        return DataError(f"The image '{path}' may not be read.", hint="Check its permissions.")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return DataError(f"The image '{path}' is a link that leads in a circle.", hint="Remove the link.")
    return DataError(
        f"The image '{path}' is truncated or damaged ({error}).", hint="Remove it or fetch it again."
    )
