"""From a trained classifier to modules on disk."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from modhub.api.catalogs import open_catalog
from modhub.artifact import read_sets, write_artifact
from modhub.artifact.modules import Decomposition, ModuleSet
from modhub.data import ImageSet, open_data
from modhub.decomposition import DecomposeOptions, Method, Parent, drafted, method_of
from modhub.decomposition.assembly import assemble
from modhub.decomposition.base import aligned, classes_named
from modhub.decomposition.standalone import standalone
from modhub.devices import peak_memory, pick_device, torch_defaults
from modhub.errors import DataError
from modhub.evaluation.module_metrics import measure_modules, parent_accuracy
from modhub.files import check_vacant, claimed
from modhub.labels import slugs_of
from modhub.manifest import FORMS, InputSpec, Sample
from modhub.parents import ParentSource, load_parent
from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.workers import Workers

__all__ = [
    "DecomposeReport",
    "DecomposeSettings",
    "DecomposedModule",
    "apart",
    "decompose",
    "decompose_to",
    "open_parent",
    "write_standalone",
]


_DOUBTFUL = 0.5
"""A parent that knows less of the images is more likely described wrongly than that bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecomposeSettings:
    """What can be said about a parent and how it is to be decomposed: the keywords of `decompose`."""

    split: str | None = None
    weights: Path | str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    method: str | Method = "relevance"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    only: Sequence[str] | None = None
    name: str | None = None
    input_size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    license: str | None = None
    dataset: str | None = None
    max_loss: float = 0.005
    images_per_class: int = 300
    seed: int = 0
    date: str | None = None
    measure: str | ImageSet | None = None
    examine: int | None = None
    device: str = "auto"
    resume: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DecomposedModule(Result):
    """A module that was written: `bytes` of its files; `recall` and `precision` as measured on `sample`."""

    label: str
    kept_channels_fraction: float
    bytes: int
    recall: float | None
    precision: float | None
    sample: Sample | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DecomposeReport(Result):
    """The modules that were written to `path`.

    `seconds` were spent on decomposing alone, `elapsed_seconds` on everything; `images` were looked at.
    `peak_bytes` is the most memory a process had, None where the system does not tell.
    """

    path: Path
    parent: str
    method: str
    seconds: float
    elapsed_seconds: float
    images: int
    peak_bytes: int | None
    device: str
    processes: int
    modules: tuple[DecomposedModule, ...]


def decompose(
    parent: str | nn.Module,
    data: str | ImageSet,
    *,
    split: str | None = None,
    weights: Path | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    method: str | Method = "relevance",
    method_options: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    name: str | None = None,
    input_size: tuple[int, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    license: str | None = None,  # noqa: A002 - the manifest's own word
    dataset: str | None = None,
    max_loss: float = 0.005,
    images_per_class: int = 300,
    seed: int = 0,
    date: str | None = None,
    measure: str | ImageSet | None = None,
    examine: int | None = None,
    device: str = "auto",
    resume: Path | None = None,
    reporter: Reporter = SILENT,
) -> ModuleSet:
    """Decompose a parent string or a module into class modules, by images of its classes.

    The keywords are the options of `modhub decompose`. What is None is taken from the parent, then from the
    images, or has no say.

    Images: `split` is which part of `data` is looked at (None: train). `images_per_class` of each class at
    most have a say in what is kept; others are kept aside to check it. `measure` are images that had no say
    in the parent's training: the recorded figures come from them (of a string: from their test split) instead
    of from those kept aside.

    Parent: `weights` is a safetensors file, `arguments` are for a `FILE.py:CALLABLE`. `labels` are its
    classes in the order of its outputs, `only` those to make modules of. `input_size` is ([channels,] height,
    width) in pixels; `mean` and `std` are per channel, of values in [0, 1]. `name`, `license` (an SPDX id)
    and `dataset` (what it was trained on) go into the manifests, and so does `date` (ISO 8601).
    Labels in `only` are matched as everywhere (`modhub.labels`); one text may be several with commas between.

    Choice: `method` is relevance, concern, `FILE.py:CLASS` or a method that was made already;
    `method_options` are arguments of its constructor, text as the command line reads it. `max_loss` is
    the balanced accuracy, in fractions, that a module alone may lose. `examine` is for how many classes at
    most that loss is checked on images; the others follow them (None: all, but few where a large network has
    many classes). `seed` draws the images.

    Work: `device` is auto, cpu or cuda. `resume` is a folder for nothing else, in which an interrupted call
    keeps what it has found, and looks for it. Where gradients are switched off they are on again for as long
    as this takes.

    Raises `ParentError`, `NetworkImportError`, `DataError`, `BudgetError` for a loss that is no fraction,
    `DeviceError`, `ManifestError` for an input that makes no sense, `AmbiguousClassError` for a name in
    `only` that several classes answer to, and `MissingDependencyError`.
    """
    settings = DecomposeSettings(
        split=split,
        weights=weights,
        arguments=arguments or {},
        method=method,
        method_options=method_options or {},
        labels=labels,
        only=only,
        name=name,
        input_size=input_size,
        mean=mean,
        std=std,
        license=license,
        dataset=dataset,
        max_loss=max_loss,
        images_per_class=images_per_class,
        seed=seed,
        date=date,
        measure=measure,
        examine=examine,
        device=device,
        resume=resume,
    )
    return _decomposed(parent, data, settings, reporter)[0]


def decompose_to(
    directory: Path,
    parent: str | nn.Module,
    data: str | ImageSet,
    settings: DecomposeSettings,
    *,
    form: str = "delta",
    force: bool = False,
    reporter: Reporter = SILENT,
) -> DecomposeReport:
    """`decompose`, written to `directory`, which appears whole or not at all.

    `form` is `delta`, modules on the trunk they share, or `standalone`, each on a trunk of its own.

    When it is interrupted, what was found so far stays in `settings.resume`, and the same call goes on from
    there. By default that is a hidden folder beside `directory`, which goes when all is done. Only one may be
    at work on it. Several processes started by torchrun share the work; the first one writes.

    Raises `DataError` for a form that there is not, `StorageError`, and what `decompose` raises.
    """
    started = time.perf_counter()
    if form not in FORMS:
        raise DataError(f"There is no form '{form}'.", hint=f"There are: {', '.join(FORMS)}.")
    check_vacant(directory, force=force)
    place = directory.resolve()
    resume = settings.resume or place.parent / f".{place.name}.resume"
    workers = Workers.here()
    with claimed(resume, settings.resume or directory) if workers.first else nullcontext():
        try:
            modules, done = _decomposed(parent, data, dataclasses.replace(settings, resume=resume), reporter)
            sets = apart(modules) if form == "standalone" else [modules]
            if workers.first:
                write_artifact(directory, *sets, force=force)
        except KeyboardInterrupt:
            if resume.is_dir() and any(resume.iterdir()):
                reporter.note(
                    f"What was found so far is kept in '{resume}': the same command goes on from there."
                )
            raise
        if workers.first and settings.resume is None:
            shutil.rmtree(resume, ignore_errors=True)
    peak = max(workers.gather(peak_memory() or 0))
    return DecomposeReport(
        path=directory,
        parent=modules.manifest.parent.name,
        method=modules.manifest.method.name,
        seconds=done.seconds,
        elapsed_seconds=time.perf_counter() - started,
        images=done.images,
        peak_bytes=peak or None,
        device=str(pick_device(settings.device)),
        processes=workers.size,
        modules=tuple(
            DecomposedModule(
                label=entry.label,
                kept_channels_fraction=entry.kept_channels_fraction,
                bytes=entry.bytes,
                recall=entry.metrics.get("recall"),
                precision=entry.metrics.get("precision"),
                sample=entry.sample,
            )
            for each in sets
            for entry in each.manifest.modules
        ),
    )


def apart(modules: ModuleSet) -> list[ModuleSet]:
    """Every module of a set standing alone, on a trunk of its own."""
    return [standalone(modules, module.manifest.slug) for module in modules.modules]


def write_standalone(source: Path, target: Path) -> None:
    """The artifact in `source` with every module standing alone, as a new directory `target`."""
    alone = [
        one
        for each in read_sets(source)
        for one in ([each] if each.modules[0].manifest.form == "standalone" else apart(each))
    ]
    write_artifact(target, *alone)


@torch_defaults()
def _decomposed(
    parent: str | nn.Module, data: str | ImageSet, settings: DecomposeSettings, reporter: Reporter
) -> tuple[ModuleSet, Decomposition]:
    images = open_data(data, settings.split)
    unseen = None if settings.measure is None else open_data(settings.measure, "test")
    if np.count_nonzero(counts := images.counts()) < 2:
        only_class = images.labels[int(counts.argmax())]
        raise DataError(
            f"The data set '{images.name}' has images of one class only, '{only_class}'.",
            hint=f"Add those of other classes, or name the folder '{only_class}' if it holds class folders.",
        )
    with reporter.step("import the parent"):
        whole = open_parent(parent, images, settings)
    seed = settings.seed
    only = None if settings.only is None else classes_named(whole, settings.only)
    # A label that cannot be a folder is named before the work.
    slugs_of(only or whole.labels)
    options = DecomposeOptions(
        max_loss=settings.max_loss,
        fit_images=settings.images_per_class,
        seed=seed,
        labels=only,
        examined=settings.examine,
        device=pick_device(settings.device),
        resume=settings.resume,
    )
    method = method_of(settings.method, settings.method_options)
    if Workers.here().first and (known := parent_accuracy(whole, images, options)) < _DOUBTFUL:
        reporter.warn(
            f"'{whole.name}' knows {known:.0%} of the images. If it should know more, check --mean, --std, "
            "--input-size and the order of --labels."
        )
    if unseen is not None:
        # What the last step needs is missed before the first.
        aligned(whole, unseen, only or whole.labels, minimum=1)
    called = settings.method if isinstance(settings.method, str) else method.name
    done = drafted(method, called, whole, images, options, reporter)
    modules = assemble(whole, done, seed=seed, date=settings.date)
    if unseen is not None and Workers.here().first:
        done = measure_modules(whole, modules, done, unseen, seed=seed, reporter=reporter)
        modules = assemble(whole, done, seed=seed, date=settings.date)
    return modules, done


def open_parent(parent: str | nn.Module, images: ImageSet, settings: DecomposeSettings) -> Parent:
    """The parent as trunk, head, labels and input; what nothing says is taken from the images."""
    if isinstance(parent, nn.Module):
        kind = type(parent).__name__
        source = ParentSource(name=kind.lower(), architecture=kind, model=parent)
    else:
        weights = settings.weights
        source = load_parent(
            parent,
            weights=None if weights is None else Path(weights),
            arguments=settings.arguments,
            fetch=_fetch,
        )
    spec = _input_spec(source.input, images, settings)
    return Parent.of(
        source.network(spec),
        name=settings.name or source.name,
        architecture=source.architecture,
        labels=settings.labels or source.labels or images.labels,
        input=spec,
        license=settings.license or source.license,
        dataset=settings.dataset or source.dataset or images.name,
    )


def _input_spec(known: InputSpec | None, images: ImageSet, settings: DecomposeSettings) -> InputSpec:
    size, mean, std = settings.input_size, settings.mean, settings.std
    if known is None:
        height, width, channels = np.asarray(images.images([0])[0]).shape
        known = InputSpec(
            channels=channels, height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels
        )
    channels, height, width = known.channels, known.height, known.width
    if size is not None:
        height, width = size[-2:]
        channels = size[0] if len(size) == 3 else max(channels, len(mean or ()))
    same = channels == known.channels
    return InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=mean or (known.mean if same else (0.0,) * channels),
        std=std or (known.std if same else (1.0,) * channels),
        value_range=known.value_range,
        resize=known.resize if size is None else None,
        crop=known.crop and size is None,
        interpolation=known.interpolation,
    )


def _fetch(repository: str, revision: str | None, filename: str) -> Path:
    files = open_catalog("hf").files
    place = RepositoryId.parse(repository)
    return files.fetch(place, files.commit_of(place, revision or "main"), filename)
