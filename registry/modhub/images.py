"""Any image file a user has, as uint8 pixels."""

from __future__ import annotations

import errno
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from modhub.errors import DataError

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

_LEFT_BY_SYSTEMS = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)

_LFS = b"version https://git-lfs.github.com/spec/"
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

    Linked folders are followed, but no folder twice. Hidden files and folders are passed over, as are those
    that systems leave (`__MACOSX`), pipes and the like; a link that leads to no file is not, so that whoever
    reads it can tell. Raises `DataError` for a folder that may not be read, and for a link to a folder that
    it is in itself.
    """
    yield from sorted(_images_below(folder))


def has_images(folder: Path) -> bool:
    """Whether `images_below` gives any."""
    return next(_images_below(folder), None) is not None


def _images_below(folder: Path) -> Iterator[Path]:
    """In no order, but folders before those that links lead to."""
    if folder.is_symlink():
        _check_no_cycle(folder, Path(os.path.realpath(folder)), (Path(os.path.realpath(folder.parent)),))
    home = Path(os.path.realpath(folder))
    # Each with its real place, and those of the folders that were come through.
    waiting: list[tuple[Path, Path, tuple[Path, ...]]] = [(folder, home, (home,))]
    linked: list[tuple[Path, tuple[Path, ...]]] = []
    seen: set[Path] = set()
    while waiting or linked:
        if waiting:
            place, real, above = waiting.pop()
        else:
            place, through = linked.pop(0)
            real = Path(os.path.realpath(place))
            _check_no_cycle(place, real, through)
            above = (*through, real)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(place):
            path = place / entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, real / entry.name, (*above[:-1], real / entry.name)))
            elif entry.is_symlink() and path.is_dir():
                linked.append((path, above))
            elif path.suffix.lower() in _SUFFIXES and (
                path.is_file() or (entry.is_symlink() and not path.exists())
            ):
                yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=_name_of)
    except OSError as error:
        raise DataError(
            f"The folder '{folder}' cannot be read: {error.strerror or error}.",
            hint="Check its permissions, or leave it out.",
        ) from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave beside people's files."""
    return name.startswith(".") or name in _LEFT_BY_SYSTEMS


def _name_of(entry: os.DirEntry[str]) -> str:
    return entry.name


def _check_no_cycle(link: Path, target: Path, above: Sequence[Path]) -> None:
    if any(place == target or target in place.parents for place in above):
        raise DataError(
            f"The link '{link}' leads back to '{target}', which it is in itself.",
            hint="Remove the link, or name a folder without it.",
        )


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
        raise _no_image(path) from None
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


def _no_image(path: Path) -> DataError:
    with suppress(OSError), (path if path.is_file() else Path(os.devnull)).open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            return DataError(
                f"'{path}' is a pointer of Git LFS, not the image itself.",
                hint="Fetch the images with: git lfs pull",
            )
    return DataError(f"'{path}' is not a readable image.", hint="Remove it, or save it as PNG or JPEG.")


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
