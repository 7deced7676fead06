"""What every file of an artifact says, as frozen values."""

from modhub.manifest.fields import AGAIN, Fields
from modhub.manifest.input_spec import INTERPOLATIONS, InputSpec
from modhub.manifest.module import FORMS, MODULE_SCHEMA_VERSION, ModuleManifest
from modhub.manifest.parts import (
    Calibration,
    FileInfo,
    Measurement,
    MethodInfo,
    ParentInfo,
    Provenance,
    Sample,
    Sizes,
    TrunkInfo,
)
from modhub.manifest.ranking import at_least, ranking_key, shown_bound
from modhub.manifest.repository import (
    MANIFEST_NAME,
    REPOSITORY_SCHEMA_VERSION,
    ModuleEntry,
    RepositoryManifest,
)

__all__ = [
    "AGAIN",
    "FORMS",
    "INTERPOLATIONS",
    "MANIFEST_NAME",
    "MODULE_SCHEMA_VERSION",
    "REPOSITORY_SCHEMA_VERSION",
    "Calibration",
    "Fields",
    "FileInfo",
    "InputSpec",
    "Measurement",
    "MethodInfo",
    "ModuleEntry",
    "ModuleManifest",
    "ParentInfo",
    "Provenance",
    "RepositoryManifest",
    "Sample",
    "Sizes",
    "TrunkInfo",
    "at_least",
    "ranking_key",
    "shown_bound",
]
