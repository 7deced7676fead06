"""Write a classifier as one file for another runtime."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from modhub.api.load import load
from modhub.composition import ComposedClassifier
from modhub.data import ImageSet, open_data
from modhub.devices import torch_defaults
from modhub.energy import Meter
from modhub.errors import ExportError
from modhub.files import check_new_file
from modhub.project.lock import LOCK_NAME
from modhub.reporter import SILENT, Reporter
from modhub.runtimes.export import ExportReport, as_raw_batch, export_classifier
from modhub.runtimes.exported import SUFFIXES
from modhub.runtimes.geometry import Geometry


@torch_defaults()
def export(
    classifier: ComposedClassifier | Path | str,
    target: Path | str | None = None,
    *,
    format: str = "onnx",  # noqa: A002 - the command line's word
    data: ImageSet | str | None = None,
    image_size: int | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> ExportReport:
    """Write a classifier, or a build by its directory, as one file, checked against PyTorch on images.

    `target` is by default the build's name with the format's suffix, beside it; a classifier in memory needs
    one, and is left as it is, on its device. Only a build's file carries its lock. `data` are the images
    (None: noise), `image_size` is the side in pixels of what the file takes (None: what the trunks can use).

    Raises `ExportError`, also for a classifier in memory without a `target`, `StorageError`, also where there
    is a file already and no `force`, `ManifestError`, `IntegrityError`, `DataError` and
    `MissingDependencyError`.
    """
    with Meter() as meter:
        report = _exported(classifier, target, format, data, image_size, force=force, reporter=reporter)
    return replace(report, energy=meter.use())


def _exported(
    classifier: ComposedClassifier | Path | str,
    target: Path | str | None,
    kind: str,
    data: ImageSet | str | None,
    image_size: int | None,
    *,
    force: bool,
    reporter: Reporter,
) -> ExportReport:
    lock: Path | None = None
    if isinstance(classifier, Path | str):
        build = Path(classifier)
        lock, target = build / LOCK_NAME, target or build.with_name(build.name + SUFFIXES.get(kind, ""))
        classifier = load(build)
    elif not target:
        raise ExportError(
            "A classifier in memory needs the name of the file to write.",
            hint='For example: modhub.export(classifier, "pets.onnx").',
        )
    else:
        # What is exported is switched to answering, on the CPU: the caller's own stays as it is.
        classifier = copy.deepcopy(classifier).cpu()
    check_new_file(Path(target), force=force)
    specs = [trunk_pass.spec for trunk_pass in classifier.trunk_passes]
    geometry = Geometry.of(specs, None if image_size is None else (image_size, image_size))
    if data is None:
        dice = np.random.default_rng(0)
        pictures = [dice.integers(0, 256, (*geometry.size, 3), dtype=np.uint8) for _ in range(4)]
    else:
        images = open_data(data, "test")
        chosen = np.linspace(0, len(images) - 1, min(16, len(images))).astype(int)
        pictures = images.images(int(index) for index in chosen)
    return export_classifier(
        classifier,
        classifier.labels,
        Path(target),
        format=kind,
        images=as_raw_batch(pictures, geometry),
        geometry=geometry,
        metadata={"lock": lock.read_text(encoding="utf-8")} if lock is not None and lock.is_file() else None,
        reporter=reporter,
    )
