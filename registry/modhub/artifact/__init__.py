"""Class modules on disk: (manifest, tensors) ↔ files."""

from modhub.artifact.reading import Locate, read_artifact, read_manifest, read_modules, read_sets, read_trunk
from modhub.artifact.tensorfile import parse_tensors
from modhub.artifact.writing import artifact_files, write_artifact

__all__ = [
    "Locate",
    "artifact_files",
    "parse_tensors",
    "read_artifact",
    "read_manifest",
    "read_modules",
    "read_sets",
    "read_trunk",
    "write_artifact",
]
