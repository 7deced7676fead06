"""Read a build directory as a classifier."""

from __future__ import annotations

from pathlib import Path

from modhub.composition import ComposedClassifier


def load(directory: Path | str) -> ComposedClassifier:
    """What `modhub compose` or `ComposedClassifier.save` wrote. Raises `ManifestError`, `IntegrityError`."""
    return ComposedClassifier.load(Path(directory))
