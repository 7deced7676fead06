"""Class modules on disk: (manifest, tensors) ↔ files."""

from modhub.artifact.read import Locate, read_artifact, read_manifest, read_modules, read_sets, read_trunk
from modhub.artifact.tensor_file import parse_tensors
from modhub.artifact.write import artifact_files, write_artifact

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
