"""Results of an interrupted decomposition, kept beside its output until that is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modhub.data import ImageSet
from modhub.errors import StorageError
from modhub.files import new_file, sha256_of_bytes
from modhub.text import canonical_json, parse_json, pretty_json

_LOOKED_AT = 16


def looked_at(images: ImageSet) -> range:
    """Indices of the images whose pixels `digest_of_images` looks at."""
    return range(0, len(images), max(1, len(images) // _LOOKED_AT))


def digest_of_images(images: ImageSet) -> str:
    """Names, targets, stamp and a few images of a set: another under the same name hardly has the same."""
    pixels = [
        None if image is None else sha256_of_bytes(image.tobytes())
        for image in images.attempted(looked_at(images))
    ]
    about = [
        images.name,
        images.split,
        list(images.labels),
        sha256_of_bytes(images.targets.tobytes()),
        pixels,
        images.stamp(),
    ]
    return sha256_of_bytes(canonical_json(about))


class Checkpoint:
    """Named groups of tensors in a folder, for one piece of work alone; nothing without a folder.

    `about` is whatever the work depends on: what was saved for other work is removed. Tensors come back to
    the bit. With several processes only the first should pass `owner`.
    """

    def __init__(self, folder: Path | None, about: Any, *, owner: bool = True) -> None:
        self.folder = None if folder is None else folder / sha256_of_bytes(canonical_json(about))[:16]
        if folder is not None and owner and folder.is_dir():
            for other in folder.iterdir():
                if other.name != sha256_of_bytes(canonical_json(about))[:16]:
                    shutil.rmtree(other, ignore_errors=True)

    def save(self, name: str, tensors: Mapping[str, Tensor], notes: Any = None) -> None:
        """Keep `tensors` under `name`, with `notes` for JSON, in their order. Raises `StorageError`."""
        if self.folder is not None:
            kept = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            content = save(kept, {"notes": pretty_json(notes).decode()})
            with new_file(self.folder / f"{name}.safetensors") as scratch:
                scratch.write_bytes(content)

    def has(self, name: str) -> bool:
        """Whether something was kept under `name`."""
        return self.folder is not None and (self.folder / f"{name}.safetensors").is_file()

    def load(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """What was kept under `name`. Raises `StorageError` when the file is damaged."""
        if self.folder is None or not self.has(name):
            return None
        place = self.folder / f"{name}.safetensors"
        content = place.read_bytes()
        try:
            tensors = load(content)
            head = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")], str(place))
            return tensors, parse_json(head["__metadata__"]["notes"].encode(), str(place))
        except (SafetensorError, KeyError) as error:
            raise StorageError(
                f"'{place}' is damaged ({error}).", hint="Remove its folder to begin again."
            ) from error
