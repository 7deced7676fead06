"""From a trained classifier to modules on disk."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from modhub.api.catalogs import open_catalog
from modhub.api.locked_modules import is_artifact
from modhub.artifact import read_artifact, read_sets, write_artifact
from modhub.artifact.modules import Decomposition, ModuleSet
from modhub.catalog.measurements import remember_measurements
from modhub.data import ImageSet, open_data
from modhub.decomposition import DecomposeOptions, Parent, drafted, method_of
from modhub.decomposition.assembly import assemble
from modhub.decomposition.data_free import without_images
from modhub.decomposition.fitted_head import backbone_of, fit_head, head_of_file
from modhub.decomposition.network_input import input_spec, voting
from modhub.decomposition.parent import aligned, classes_named
from modhub.decomposition.standalone import standalone
from modhub.devices import peak_memory, torch_defaults
from modhub.energy import EnergyUse, Meter
from modhub.errors import DataError, ParentError
from modhub.evaluation.module_metrics import measure_modules
from modhub.files import check_vacant, claimed
from modhub.labels import slugs_of
from modhub.manifest import FORMS, InputSpec, Sample
from modhub.nets import Network
from modhub.parents import (
    ParentSource,
    imagenet_labels,
    imagenet_synonyms,
    is_pickle,
    load_parent,
    stated_input,
)
from modhub.refs import RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.workers import Workers

IMAGENET = "imagenet-1k"
"""As `labels`: the names of ImageNet's 1,000 classes."""


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
    `energy` is what everything took, in all processes. `peak_bytes` is the most memory a process had, None
    where the system does not tell. `misread` says why the parent is likely described wrongly, so that its
    modules know nothing; None where it is not.
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
    energy: EnergyUse
    misread: str | None = None


def decompose(
    parent: str | nn.Module,
    data: str | ImageSet | None,
    options: DecomposeOptions | None = None,
    *,
    reporter: Reporter = SILENT,
    **changes: Any,
) -> ModuleSet:
    """Decompose a parent string or a module into class modules, by images of its classes.

    Without `data` the modules keep every channel, and nothing is measured: recall and precision are None,
    and so are thresholds. A directory that holds modules, as `pull` writes it, is a parent, too: this is how
    modules that were made without images are measured later.

    `changes` are fields of `modhub.decomposition.DecomposeOptions` that differ from `options` (None: its
    defaults): `modhub.decompose("torchvision:resnet18", "imagefolder:pets", only=["cat"])`. Where gradients
    are switched off they are on again for as long as this takes.

    Raises `ParentError`, `NetworkImportError`, `DataError`, `BudgetError` for a loss that is no fraction,
    `DeviceError`, `ManifestError` for an invalid input, `AmbiguousClassError` for a name in
    `only` that several classes answer to, and `MissingDependencyError`.
    """
    options = dataclasses.replace(options or DecomposeOptions(), **changes)
    return _decomposed(parent, data, options, reporter)[0]


def decompose_to(
    directory: Path,
    parent: str | nn.Module,
    data: str | ImageSet | None,
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
            with Meter() as meter:
                modules, done = _decomposed(
                    parent, data, dataclasses.replace(options, resume=resume), reporter
                )
                sets = apart(modules) if form == "standalone" else [modules]
            busy = sum(workers.gather(meter.cpu_seconds))
            energy = meter.use(device=options.torch_device.type, cpu_seconds=busy)
            if workers.first:
                sets[0] = sets[0].made_with(energy)
                write_artifact(directory, *sets, force=force)
                remember_measurements(
                    {
                        entry.manifest.sha256: measurement
                        for module_set in sets
                        for entry, module in zip(module_set.manifest.modules, module_set.modules, strict=True)
                        if (measurement := module.manifest.measurement) is not None
                    },
                    reporter,
                )
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
            for module_set in sets
            for entry in module_set.manifest.modules
        ),
        energy=energy,
        misread=done.misread,
    )


def apart(modules: ModuleSet) -> list[ModuleSet]:
    """Every module of a set standing alone, on a trunk of its own."""
    return [standalone(modules, module.manifest.slug) for module in modules.modules]


def write_standalone(source: Path, target: Path) -> None:
    """The artifact in `source` with every module standing alone, as a new directory `target`."""
    alone = [
        standalone
        for module_set in read_sets(source)
        for standalone in (
            [module_set] if module_set.modules[0].manifest.form == "standalone" else apart(module_set)
        )
    ]
    write_artifact(target, *alone)


@torch_defaults()
def _decomposed(
    parent: str | nn.Module, data: str | ImageSet | None, options: DecomposeOptions, reporter: Reporter
) -> tuple[ModuleSet, Decomposition]:
    if data is None:
        return _without_images(parent, options, reporter)
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
    seed = options.seed
    if options.fit_head:
        whole, done = _with_fitted_head(parent, images, options, reporter)
    else:
        # A method that there is not is missed before the parent is fetched.
        method = method_of(options.method, options.method_options)
        whole, options = _opened(parent, images, options, reporter)
        if unseen is not None:
            # What the last step needs is missed before the first.
            aligned(whole, unseen, options.only or whole.labels, minimum=1)
        called = options.method if isinstance(options.method, str) else method.name
        done = drafted(method, called, whole, images, options, reporter)
    modules = assemble(whole, done, seed=seed, date=options.date)
    if unseen is not None and Workers.here().first:
        done = measure_modules(whole, modules, done, unseen, seed=seed, reporter=reporter)
        modules = assemble(whole, done, seed=seed, date=options.date)
    return modules, done


def _without_images(
    parent: str | nn.Module, options: DecomposeOptions, reporter: Reporter
) -> tuple[ModuleSet, Decomposition]:
    if options.measure is not None:
        raise DataError(
            "Modules that are made without images cannot be measured in the same step.",
            hint="Give the images as DATA, or decompose the modules later, with images.",
        )
    if options.method != "relevance" or options.method_options:
        raise DataError(
            "A method chooses channels by images, and there are none: modules keep all channels.",
            hint="Give the images as DATA, or leave out the method and its options.",
        )
    whole, options = _opened(parent, None, options, reporter)
    done = without_images(whole, options)
    return assemble(whole, done, seed=options.seed, date=options.date), done


def _opened(
    parent: str | nn.Module, images: ImageSet | None, options: DecomposeOptions, reporter: Reporter
) -> tuple[Parent, DecomposeOptions]:
    """The parent, and the options with the classes of `only` as it calls them."""
    with reporter.step("import the parent"):
        whole = open_parent(parent, images, options, reporter)
    if options.only is not None:
        options = dataclasses.replace(options, only=classes_named(whole, options.only))
    # A label that cannot be a folder is named before the work.
    slugs_of(options.only or whole.labels)
    return whole, options


def open_parent(
    parent: str | nn.Module, images: ImageSet | None, options: DecomposeOptions, reporter: Reporter = SILENT
) -> Parent:
    """The parent as trunk, head, labels and input; what nothing says is taken from the images, where there
    are some."""
    if options.head is not None:
        trunk, source, spec = _backbone(parent, images, options, reporter)
        names, head = head_of_file(Path(options.head), options.labels)
        return _named(head.join(trunk), source, spec, names, images, options)
    if isinstance(parent, str | Path) and is_artifact(Path(parent)):
        return _parent_of_modules(Path(parent), options)
    source = _source(parent, options, reporter)
    spec = input_spec(source, images, options, reporter)
    stated = imagenet_labels() if options.labels == (IMAGENET,) else options.labels
    labels = stated or source.labels or (() if images is None else images.labels)
    if not labels:
        raise ParentError(f"The classes of '{source.name}' are unknown.", hint="Name them with --labels.")
    return _named(source.network(spec), source, spec, labels, images, options)


def _with_fitted_head(
    parent: str | nn.Module, images: ImageSet, options: DecomposeOptions, reporter: Reporter
) -> tuple[Parent, Decomposition]:
    with reporter.step("import the parent"):
        trunk, source, spec = _backbone(parent, images, options, reporter)
    # A label that cannot be a folder is named before the work.
    slugs_of(options.only or images.labels)

    def named(network: Network) -> Parent:
        return _named(network, source, spec, images.labels, images, options)

    return fit_head(trunk, spec, images, options, named, reporter)


def _backbone(
    parent: str | nn.Module, images: ImageSet | None, options: DecomposeOptions, reporter: Reporter
) -> tuple[Network, ParentSource, InputSpec]:
    """A trunk for a head of other classes than its own; of modules it is their trunk, byte for byte."""
    if isinstance(parent, str | Path) and is_artifact(Path(parent)):
        whole = _parent_of_modules(Path(parent), dataclasses.replace(options, name=None, labels=None))
        source = ParentSource(
            name=whole.name, architecture=whole.architecture, model=whole.trunk, license=whole.license
        )
        return whole.trunk, source, whole.input
    source = _source(parent, options, reporter)
    spec = input_spec(source, images, options, reporter)
    network = source.network(spec)
    return backbone_of(network, source.name, classifier=source.labels is not None), source, spec


def _named(
    network: Network,
    source: ParentSource,
    spec: InputSpec,
    labels: Sequence[str],
    images: ImageSet | None,
    options: DecomposeOptions,
) -> Parent:
    """The parent that is `network`, with what its source and the options say of it."""
    # What a backbone was trained on is not what its new head was.
    trained_on = None if options.fit_head or options.head else source.dataset
    aliases, ontology = imagenet_synonyms(labels)
    whole = Parent.of(
        network,
        name=options.name or source.name,
        architecture=source.architecture,
        labels=labels,
        input=spec,
        license=options.license or source.license,
        dataset=options.dataset or trained_on or (None if images is None else images.name),
    )
    return dataclasses.replace(whole, aliases=aliases, ontology=ontology)


def _source(parent: str | nn.Module, options: DecomposeOptions, reporter: Reporter) -> ParentSource:
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
        return ParentSource(name=kind.lower(), architecture=kind, model=parent, input=stated)
    weights = options.weights
    if weights is not None and is_pickle(Path(weights)):
        reporter.note(f"Of '{weights}' only tensors are read (torch.load with weights_only=True).")
    return load_parent(
        parent,
        weights=None if weights is None else Path(weights),
        arguments=options.arguments,
        fetch=_fetch,
    )


def _parent_of_modules(directory: Path, options: DecomposeOptions) -> Parent:
    """The parent of an artifact, of which all is known. Its name stays, since modules go by it."""
    stated = {
        name: getattr(options, name)
        for name in ("weights", "arguments", "labels", "name", "input_size", "mean", "std")
    }
    if option := next((name for name, value in stated.items() if value), None):
        raise ParentError(
            f"'{directory}' holds modules, which say all of their parent: '{option}' cannot be given.",
            hint="Leave it out.",
        )
    parent = Parent.of_modules(read_artifact(directory))
    return dataclasses.replace(
        parent, license=options.license or parent.license, dataset=options.dataset or parent.dataset
    )


def _fetch(repository: str, revision: str | None, filename: str) -> Path:
    files = open_catalog(os.environ.get("HF_ENDPOINT") or "hf").files
    place = RepositoryId.parse(repository)
    return files.fetch(place, files.commit_of(place, revision or "main"), filename)
