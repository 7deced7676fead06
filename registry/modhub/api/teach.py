"""A module for a class its parent never knew, from a few images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modhub.api.catalogs import open_catalog
from modhub.artifact import artifact_files, read_artifact, read_modules
from modhub.artifact.modules import ModuleSet
from modhub.catalog.catalog import Catalog
from modhub.catalog.pull import pull
from modhub.composition import parts_of
from modhub.composition.interference import Interference, estimate_interference, measure_interference
from modhub.data import ImageSet, class_folders, folder_of_images, open_data, plain_folder
from modhub.decomposition.teaching import teach as taught
from modhub.devices import torch_defaults
from modhub.energy import EnergyUse, Meter
from modhub.errors import CompositionError, DataError
from modhub.files import new_directory, write_files
from modhub.manifest import MANIFEST_NAME
from modhub.refs import Ref, rows_of
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

_MUCH = 0.05
"""A known class that may lose a larger share of its images is warned of."""
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MeasuredInterference(Result):
    """By known class the share of its images that the new class takes, counted on `images` of a data set."""

    dataset: str
    split: str
    images: int
    classes: Mapping[str, Interference]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TeachReport(Result):
    """The module that was written to `path`, made from so many `images`; `energy` is what that took.

    `takes` estimates by known class which share of its images the new class would take (see
    `modhub.composition.interference`); `takes_measured` is the same, counted on labelled images.
    """

    path: Path
    label: str
    parent: str
    images: int
    kept_channels_fraction: float
    bytes: int
    energy: EnergyUse
    takes: Mapping[str, Interference]
    takes_measured: MeasuredInterference | None


@torch_defaults()
def teach(
    label: str,
    on: str,
    data: str | ImageSet,
    *,
    split: str = "train",
    seed: int = 0,
    date: str | None = None,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> ModuleSet:
    """A set of one module that answers for `label` on the trunk of `on`, a repository or a directory.

    `data` is a folder of images of that class, or a data set that has it. Raises `DataError`, also for a
    folder of other classes' folders, `CompositionError` when the parent knows the class already, and what
    pulling raises.
    """
    modules = _modules(on, hub, offline, reporter)
    images = images_of_class(data, label, split)
    _check_one_class(data, label, split, modules.manifest.parent.labels)
    return taught(modules, label, images, seed=seed, date=date, reporter=reporter)


@torch_defaults()
def teach_to(
    path: Path | str,
    label: str,
    on: str,
    data: str | ImageSet,
    *,
    split: str = "train",
    seed: int = 0,
    date: str | None = None,
    force: bool = False,
    against: str | ImageSet | None = None,
    against_split: str = "test",
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> TeachReport:
    """`teach`, written to the directory `path`, which appears whole or not at all.

    `against` are labelled images of known classes, on which is counted what the new class takes;
    `reporter.warn` names the classes that lose many. Raises `StorageError` when something is in `path` and
    there is no `force`, and what `teach` raises.
    """
    # Whether it can be written is known before the work.
    with new_directory(Path(path), force=force) as scratch:
        with Meter() as meter:
            images = images_of_class(data, label, split)
            labelled = None if against is None else open_data(against, against_split)
            modules = _modules(on, hub, offline, reporter)
            _check_one_class(data, label, split, modules.manifest.parent.labels)
            taught_set = taught(modules, label, images, seed=seed, date=date, reporter=reporter)
            others, (new,) = parts_of(modules), parts_of(taught_set)
            measured = None
            with reporter.step("compare with known classes"):
                estimated = estimate_interference(others, new, seed=seed)
                if labelled is not None:
                    classes, count = measure_interference(others, new, labelled)
                    measured = MeasuredInterference(
                        dataset=labelled.name, split=labelled.split, images=count, classes=classes
                    )
        energy = meter.use()
        write_files(scratch, artifact_files(taught_set.made_with(energy)))
    (entry,) = taught_set.manifest.modules
    _warn(label, estimated if measured is None else measured.classes, reporter)
    return TeachReport(
        path=Path(path),
        label=entry.label,
        parent=taught_set.manifest.parent.name,
        images=len(images),
        kept_channels_fraction=entry.kept_channels_fraction,
        bytes=entry.bytes,
        energy=energy,
        takes=estimated,
        takes_measured=measured,
    )


def _warn(label: str, takes: Mapping[str, Interference], reporter: Reporter) -> None:
    hit = {name: share.largest for name, share in takes.items() if share.largest > _MUCH}
    if hit:
        named = ", ".join(f"{name} {share:.0%}" for name, share in list(hit.items())[:_NAMED])
        more = f", and of {len(hit) - _NAMED} more" if len(hit) > _NAMED else ""
        reporter.warn(
            f"Composed with few other classes, '{label}' would take images of {named}{more}. The more of its "
            "parent's classes are composed, the fewer; 'modhub compose --calibrate' gives a few back."
        )


def images_of_class(data: str | ImageSet, label: str, split: str = "train") -> ImageSet:
    """Images of one class: all those below a folder, or those of `label` in a data set; an image set is."""
    if isinstance(data, ImageSet):
        return data
    if (folder := plain_folder(data)) is not None:
        return folder_of_images(folder, split, label)
    images = open_data(data, split)
    # Where there is none, `only` says what there is.
    return images.only(list(rows_of(images.labels, [label])) or [label])


def _check_one_class(data: str | ImageSet, label: str, split: str, labels: Sequence[str]) -> None:
    """Raises `DataError` for a folder with folders of `label` and of others, or of a `known` class."""
    if isinstance(data, ImageSet) or (folder := plain_folder(data)) is None:
        return
    below = class_folders(folder, split)
    rows = rows_of(below, [label]) if len(below) > 1 else {}
    if others := rows or rows_of(below, labels):
        raise DataError(
            f"Not all images in '{folder}' are of '{label}': it has a folder for each class, such as "
            f"'{min(others)}'.",
            hint=f"Take its own: --data {shlex.quote(f'imagefolder:{folder}')}"
            if rows
            else f"Name the folder that holds the images of '{label}' only.",
        )


def _modules(on: str, hub: str | Catalog | None, offline: bool, reporter: Reporter) -> ModuleSet:
    if (Path(on) / MANIFEST_NAME).is_file():
        return read_artifact(on)
    pulled = pull(open_catalog(hub, offline=offline), Ref.parse(on), reporter=reporter)
    sets = read_modules(
        pulled.manifest, pulled.locate, [m.entry.slug for m in pulled.modules], place=f"'{on}'"
    )
    if len(sets) != 1:
        raise CompositionError(
            f"The modules of '{on}' stand on {len(sets)} trunks of their own.",
            hint="Teach on a repository whose modules share their parent's trunk.",
        )
    return sets[0]
