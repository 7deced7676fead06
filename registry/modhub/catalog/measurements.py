"""Figures of modules that were measured on this machine, beside those that their publishers claim.

    <user data>/modhub/measurements/<sha256 of module.json>.json

A module's digest covers its tensors, its trunk and its calibration: a measurement is that of these bytes,
whoever publishes them under whichever name. The newest replaces an older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import platformdirs

from modhub.errors import ManifestError, StorageError
from modhub.files import write_bytes
from modhub.manifest import Fields, Measurement
from modhub.reporter import SILENT, Reporter
from modhub.text import parse_json, pretty_json

MEASUREMENT_SCHEMA_VERSION = 1


def measurement_of(manifest: str) -> Measurement | None:
    """What was measured of the module whose module.json has the sha256 `manifest`; None: nothing was."""
    path = _path(manifest)
    with suppress(OSError, ManifestError):
        fields = Fields(parse_json(path.read_bytes(), str(path)), str(path))
        fields.check_version(MEASUREMENT_SCHEMA_VERSION)
        return Measurement.from_dict(fields)
    return None


def remember_measurements(measured: Mapping[str, Measurement], reporter: Reporter = SILENT) -> None:
    """Keep measurements by the sha256 of the module's module.json; a disk that refuses is a warning."""
    try:
        for manifest, measurement in measured.items():
            document = {"schema_version": MEASUREMENT_SCHEMA_VERSION, **measurement.to_dict()}
            write_bytes(_path(manifest), pretty_json(document))
    except StorageError as error:
        reporter.warn(f"What was measured is not kept for 'modhub search' and 'info': {error.message}")


def _path(manifest: str) -> Path:
    return Path(platformdirs.user_data_dir("modhub")) / "measurements" / f"{manifest}.json"
