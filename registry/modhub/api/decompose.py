"""From a trained classifier to modules on disk."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from modhub.api.catalogs import open_catalog
from modhub.artifact import read_sets, write_artifact
from modhub.artifact.modules import Decomposition, ModuleSet
from modhub.data import ImageSet, open_data
from modhub.decomposition import DecomposeOptions, Parent, drafted, method_of
from modhub.decomposition.assembly import assemble
from modhub.decomposition.network_input import input_shape, voting
from modhub.decomposition.parent import aligned, classes_named
from modhub.decomposition.standalone import standalone
from modhub.devices import peak_memory, torch_defaults
from modhub.errors import DataError, ParentError
from modhub.evaluation.module_metrics import measure_modules
from modhub.files import check_vacant, claimed
from modhub.labels import slugs_of
from modhub.manifest import FORMS, InputSpec, Sample
from modhub.parents import ParentSource, is_pickle, load_parent, stated_input
from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.workers import Workers

__all__ = [
    "DecomposeReport",
    "DecomposedModule",
    "apart",
    "decompose",
    "decompose_to",
    "open_parent",
    "write_standalone",
]


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
    `peak_bytes` is the most memory a process had, None where the system does not tell. `misread` says why the
    parent is likely described wrongly, so that its modules know nothing; None where it is not.
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
    misread: str | None = None


def decompose(
    parent: str | nn.Module,
    data: str | ImageSet,
    options: DecomposeOptions | None = None,
    *,
    reporter: Reporter = SILENT,
    **changes: Any,
) -> ModuleSet:
    """Decompose a parent string or a module into class modules, by images of its classes.

    `changes` are fields of `modhub.decomposition.DecomposeOptions` that differ from `options` (None: its
    defaults): `modhub.decompose("torchvision:resnet18", "imagefolder:pets", only=["cat"])`. Where gradients
    are switched off they are on again for as long as this takes.

    Raises `ParentError`, `NetworkImportError`, `DataError`, `BudgetError` for a loss that is no fraction,
    `DeviceError`, `ManifestError` for an input that makes no sense, `AmbiguousClassError` for a name in
    `only` that several classes answer to, and `MissingDependencyError`.
    """
    options = dataclasses.replace(options or DecomposeOptions(), **changes)
    return _decomposed(parent, data, options, reporter)[0]


def decompose_to(
    directory: Path,
    parent: str | nn.Module,
    data: str | ImageSet,
    options: DecomposeOptions,
    *,
    form: str = "delta",
    force: bool = False,
    reporter: Reporter = SILENT,
) -> DecomposeReport:
    """`decompose`, written to `directory`, which appears whole or not at all.

    `form` is `delta`, modules on the trunk they share, or `standalone`, each on a trunk of its own.

    When it is interrupted, what was found so far stays in `options.resume`, and the same call goes on from
    there. By default that is a hidden folder beside `directory`, which goes when all is done. Only one may be
    at work on it. Several processes started by torchrun share the work; the first one writes.

    Raises `DataError` for a form that there is not, `StorageError`, and what `decompose` raises.
    """
    started = time.perf_counter()
    if form not in FORMS:
        raise DataError(f"There is no form '{form}'.", hint=f"There are: {', '.join(FORMS)}.")
    check_vacant(directory, force=force)
    place = directory.resolve()
    resume = options.resume or place.parent / f".{place.name}.resume"
    workers = Workers.here()
    with claimed(resume, options.resume or directory) if workers.first else nullcontext():
        try:
            modules, done = _decomposed(parent, data, dataclasses.replace(options, resume=resume), reporter)
            sets = apart(modules) if form == "standalone" else [modules]
            if workers.first:
                write_artifact(directory, *sets, force=force)
        except KeyboardInterrupt:
            if resume.is_dir() and any(resume.iterdir()):
                reporter.note(
                    f"What was found so far is kept in '{resume}': the same command goes on from there."
                )
            raise
        if workers.first and options.resume is None:
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
        device=str(options.torch_device),
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
        misread=done.misread,
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
    parent: str | nn.Module, data: str | ImageSet, options: DecomposeOptions, reporter: Reporter
) -> tuple[ModuleSet, Decomposition]:
    images = open_data(data, options.split)
    unseen = None if options.measure is None else open_data(options.measure, "test")
    if np.count_nonzero(counts := images.counts()) < 2:
        only_class = images.labels[int(counts.argmax())]
        raise DataError(
            f"The data set '{images.name}' has images of one class only, '{only_class}'.",
            hint=f"Add those of other classes, or name the folder '{only_class}' if it holds class folders.",
        )
    # What nothing says of the input is read off a few images, which are then not read again.
    images = images.preloaded(voting(images))
    with reporter.step("import the parent"):
        whole = open_parent(parent, images, options, reporter)
    if options.only is not None:
        options = dataclasses.replace(options, only=classes_named(whole, options.only))
    seed, only = options.seed, options.only
    # A label that cannot be a folder is named before the work.
    slugs_of(only or whole.labels)
    method = method_of(options.method, options.method_options)
    if unseen is not None:
        # What the last step needs is missed before the first.
        aligned(whole, unseen, only or whole.labels, minimum=1)
    called = options.method if isinstance(options.method, str) else method.name
    done = drafted(method, called, whole, images, options, reporter)
    modules = assemble(whole, done, seed=seed, date=options.date)
    if unseen is not None and Workers.here().first:
        done = measure_modules(whole, modules, done, unseen, seed=seed, reporter=reporter)
        modules = assemble(whole, done, seed=seed, date=options.date)
    return modules, done


def open_parent(
    parent: str | nn.Module, images: ImageSet, options: DecomposeOptions, reporter: Reporter = SILENT
) -> Parent:
    """The parent as trunk, head, labels and input; what nothing says is taken from the images."""
    if isinstance(parent, Path):
        parent = str(parent)
    if not isinstance(parent, str | nn.Module):
        raise ParentError(
            f"A {type(parent).__name__} is no parent.",
            hint="Give a torch.nn.Module, or a string such as torchvision:resnet18 or FILE.py:CALLABLE.",
        )
    if isinstance(parent, nn.Module):
        kind = type(parent).__name__
        stated = stated_input(parent, kind)
        source = ParentSource(name=kind.lower(), architecture=kind, model=parent, input=stated)
    else:
        weights = options.weights
        if weights is not None and is_pickle(Path(weights)):
            reporter.note(f"Of '{weights}' only tensors are read (torch.load with weights_only=True).")
        source = load_parent(
            parent,
            weights=None if weights is None else Path(weights),
            arguments=options.arguments,
            fetch=_fetch,
        )
    spec = _input_spec(source, images, options, reporter)
    return Parent.of(
        source.network(spec),
        name=options.name or source.name,
        architecture=source.architecture,
        labels=options.labels or source.labels or images.labels,
        input=spec,
        license=options.license or source.license,
        dataset=options.dataset or source.dataset or images.name,
    )


def _input_spec(
    source: ParentSource, images: ImageSet, options: DecomposeOptions, reporter: Reporter
) -> InputSpec:
    size, mean, std = options.input_size, options.mean, options.std
    known = source.input if size is None else source.input_at(*size[-2:])
    if known is None:
        given = size[0] if size is not None and len(size) == 3 else 3 if len(mean or std or ()) == 3 else None
        shape = input_shape(
            source.model, images, channels=given, size=None if size is None else (size[-2], size[-1])
        )
        reporter.note(f"Input: {shape}.")
        channels = shape.channels
        known = InputSpec(
            channels=channels,
            height=shape.height,
            width=shape.width,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )
    channels, height, width = known.channels, known.height, known.width
    if size is not None:
        height, width = size[-2:]
        channels = size[0] if len(size) == 3 else max(channels, len(mean or ()))
    same = channels == known.channels
    crop = options.crop
    if crop is None:
        crop = known.crop or options.resize is not None
    return dataclasses.replace(
        known,
        channels=channels,
        height=height,
        width=width,
        mean=mean or (known.mean if same else (0.0,) * channels),
        std=std or (known.std if same else (1.0,) * channels),
        value_range=options.value_range or known.value_range,
        resize=options.resize or known.resize,
        crop=crop,
        interpolation=options.interpolation or known.interpolation,
    )


def _fetch(repository: str, revision: str | None, filename: str) -> Path:
    files = open_catalog(os.environ.get("HF_ENDPOINT") or "hf").files
    place = RepositoryId.parse(repository)
    return files.fetch(place, files.commit_of(place, revision or "main"), filename)
