"""Files as equal inputs make them: without what making them took, which differs from run to run."""

from __future__ import annotations

import json
from pathlib import Path

from modhub.text import pretty_json

__all__ = ["determined_bytes", "determined_files"]


def determined_bytes(path: Path) -> bytes:
    """The content of a file; of `modhub.json` and `build.json` without `energy`."""
    content = path.read_bytes()
    if path.name not in ("modhub.json", "build.json"):
        return content
    document = json.loads(content)
    document.pop("energy", None)
    return pretty_json(document)


def determined_files(directory: Path) -> dict[str, bytes]:
    """Every file of a directory by its path there."""
    return {
        path.relative_to(directory).as_posix(): determined_bytes(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
