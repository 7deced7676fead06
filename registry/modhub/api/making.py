"""From a trained classifier to modules on disk."""

from __future__ import annotations

import inspect
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from modhub.api.projects import open_catalog
from modhub.artifact import read_sets, write_artifact
from modhub.data import ImageSet, open_data
from modhub.decompose import METHODS, DecomposeOptions, Method, Parent
from modhub.decompose.assembling import assemble
from modhub.decompose.standalone import standalone
from modhub.decompose.workers import Workers
from modhub.devices import peak_memory, pick_device
from modhub.errors import DataError
from modhub.files import check_vacant
from modhub.manifest import FORMS, InputSpec
from modhub.measuring import measured, share_known
from modhub.modules import Decomposition, ModuleSet
from modhub.nets.sources import ParentSource, callable_of, load_parent, parsed_arguments
from modhub.refs import RepositoryId, slugs_of
from modhub.reporter import SILENT, Reporter

__all__ = ["DecomposeSettings", "apart", "decompose", "decompose_to", "open_parent", "write_standalone"]


_DOUBTFUL = 0.5
"""A parent that knows less of the images is more likely described wrongly than that bad."""


class DecomposeSettings(TypedDict, total=False):
    """What can be said about a parent and how it is to be decomposed; everything has a default.

    `weights` is a safetensors file, `arguments` are for a `FILE.py:CALLABLE`, `labels` the classes in
    the order of its outputs, `only` those wanted. `input_size` is ([channels,] height, width); `mean` and
    `std` are per channel, of values in [0, 1]. `max_loss` is a fraction of balanced accuracy,
    `images_per_class` how many are looked at. `date` is ISO 8601 and goes into the manifests. `measure` are
    images that had no say in the parent's training: the recorded figures come from them instead of training
    images kept aside. `form` is `delta` or, when written to a directory, `standalone`. `device` is `auto`,
    `cpu` or `cuda`. `examined` and `resume` are those of `DecomposeOptions`.
    """

    split: str | None
    weights: Path | str | None
    arguments: Mapping[str, str]
    method: str | Method
    method_options: Mapping[str, str]
    labels: Sequence[str] | None
    only: Sequence[str] | None
    name: str | None
    input_size: tuple[int, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    license: str | None
    dataset: str | None
    max_loss: float
    images_per_class: int
    seed: int
    date: str | None
    form: str
    measure: str | ImageSet | None
    device: str
    examined: int | None
    resume: Path | None
    reporter: Reporter


def decompose(
    parent: str | nn.Module, data: str | ImageSet, **settings: Unpack[DecomposeSettings]
) -> ModuleSet:
    """Decompose a parent string or a module into class modules, by images of its classes.

    The `settings`, `DecomposeSettings` says more of them: `license`, `labels`, `only`, `name`, `dataset`,
    `input_size`, `mean`, `std`, `weights`, `arguments`, `split`, `measure`, `method`, `method_options`,
    `max_loss`, `images_per_class`, `examined`, `seed`, `date`, `device`, `form`, `resume`, `reporter`.
    Where gradients are switched off they are on again for as long as this takes.

    Raises `ParentError`, `NetworkImportError`, `DataError` (also for the form `standalone`, which a set on
    one trunk cannot have), `BudgetError` for a loss that is no fraction, `DeviceError`, `ManifestError` for
    an input that makes no sense, `RefError` for a label without a letter or digit, and
    `MissingDependencyError`.
    """
    if _form(settings) != "delta":
        raise DataError(
            "A set of modules in memory stands on one trunk, so that none of them is standalone.",
            hint="Write them apart with: modhub decompose --form standalone",
        )
    return _decomposed(parent, data, settings)[0]


def decompose_to(
    directory: Path,
    parent: str | nn.Module,
    data: str | ImageSet,
    *,
    replace: bool = False,
    **settings: Unpack[DecomposeSettings],
) -> dict[str, Any]:
    """`decompose`, written to `directory`, which appears whole or not at all; what was made, for JSON.

    When it is interrupted, what was found so far stays in a hidden folder beside `directory`, and the same
    call goes on from there. Several processes started by torchrun share the work; the first one writes.
    """
    started, form = time.perf_counter(), _form(settings)
    check_vacant(directory, replace=replace)
    place = directory.resolve()
    resume = settings.setdefault("resume", place.parent / f".{place.name}.resume")
    workers = Workers.here()
    try:
        modules, done = _decomposed(parent, data, settings)
        sets = apart(modules) if form == "standalone" else [modules]
        if workers.first:
            write_artifact(directory, *sets, replace=replace)
    except KeyboardInterrupt:
        if resume is not None and resume.is_dir():
            settings.get("reporter", SILENT).note(
                f"What was found so far is kept in '{resume}': the same command goes on from there."
            )
        raise
    if resume is not None and workers.first:
        shutil.rmtree(resume, ignore_errors=True)
    peak = max(workers.gather(peak_memory() or 0))
    entries = [entry for each in sets for entry in each.manifest.modules]
    return {
        "path": str(directory),
        "parent": modules.manifest.parent.name,
        "method": modules.manifest.method.name,
        "seconds": done.seconds,
        "elapsed_seconds": time.perf_counter() - started,
        "images": done.images,
        "peak_bytes": peak or None,
        "device": str(pick_device(settings.get("device", "auto"))),
        "processes": workers.size,
        "modules": [
            {
                "label": entry.label,
                "kept_channels_fraction": entry.kept_channels_fraction,
                "bytes": entry.manifest.size + entry.tensors.size,
                "recall": entry.metrics.get("recall"),
                "precision": entry.metrics.get("precision"),
                "sample": None if entry.sample is None else entry.sample.to_dict(),
            }
            for entry in entries
        ],
    }


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


def _form(settings: DecomposeSettings) -> str:
    form = settings.get("form", "delta")
    if form not in FORMS:
        raise DataError(f"There is no form '{form}'.", hint=f"There are: {', '.join(FORMS)}.")
    return form


@torch.inference_mode(False)
@torch.enable_grad()
def _decomposed(
    parent: str | nn.Module, data: str | ImageSet, settings: DecomposeSettings
) -> tuple[ModuleSet, Decomposition]:
    reporter = settings.get("reporter", SILENT)
    images = open_data(data, settings.get("split"))
    if np.count_nonzero(counts := images.counts()) < 2:
        raise DataError(
            f"The data set '{images.name}' has images of one class only, "
            f"'{images.labels[int(counts.argmax())]}'.",
            hint="Add the images of other classes, one folder each.",
        )
    with reporter.step("import the parent"):
        whole = open_parent(parent, images, settings)
    seed = settings.get("seed", 0)
    only = settings.get("only")
    # A label that cannot be a folder is named before the work.
    slugs_of(only or whole.labels)
    options = DecomposeOptions(
        max_loss=settings.get("max_loss", 0.005),
        fit_images=settings.get("images_per_class", 300),
        seed=seed,
        labels=None if only is None else tuple(only),
        examined=settings.get("examined"),
        device=pick_device(settings.get("device", "auto")),
        resume=settings.get("resume"),
    )
    method = _method(settings.get("method", "relevance"), settings.get("method_options", {}))
    if Workers.here().first and (known := share_known(whole, images, options)) < _DOUBTFUL:
        reporter.warn(
            f"'{whole.name}' knows {known:.0%} of the images. If it should know more, check --mean, --std, "
            "--input-size and the order of --labels."
        )
    done = method.decompose(whole, images, options, reporter)
    modules = assemble(whole, done, seed=seed, date=settings.get("date"))
    if (unseen := settings.get("measure")) is not None and Workers.here().first:
        done = measured(whole, modules, done, open_data(unseen, "test"), seed=seed, reporter=reporter)
        modules = assemble(whole, done, seed=seed, date=settings.get("date"))
    return modules, done


def open_parent(parent: str | nn.Module, images: ImageSet, settings: DecomposeSettings) -> Parent:
    """The parent as trunk, head, labels and input; what nothing says is taken from the images."""
    if isinstance(parent, nn.Module):
        kind = type(parent).__name__
        source = ParentSource(name=kind.lower(), architecture=kind, model=parent)
    else:
        weights = settings.get("weights")
        source = load_parent(
            parent,
            weights=None if weights is None else Path(weights),
            arguments=settings.get("arguments", {}),
            fetch=_fetch,
        )
    spec = _input_spec(source.input, images, settings)
    return Parent.of(
        source.network(spec),
        name=settings.get("name") or source.name,
        architecture=source.architecture,
        labels=settings.get("labels") or source.labels or images.labels,
        input=spec,
        license=settings.get("license") or source.license,
        dataset=settings.get("dataset") or source.dataset or images.name,
    )


def _input_spec(known: InputSpec | None, images: ImageSet, settings: DecomposeSettings) -> InputSpec:
    size, mean, std = settings.get("input_size"), settings.get("mean"), settings.get("std")
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


def _method(name: str | Method, options: Mapping[str, str]) -> Method:
    """A method by its name or as FILE.py:CLASS, made with `options`; or one that was made already."""
    if not isinstance(name, str):
        return name
    path, colon, called = name.rpartition(":")
    own = bool(colon) and path.endswith(".py")
    if not own and name not in METHODS:
        raise DataError(
            f"There is no method '{name}'.",
            hint=f"There are: {', '.join(sorted(METHODS))}; one of your own is FILE.py:CLASS.",
        )
    if not own and not options:
        return METHODS[name]
    kind = callable_of(Path(path), called, "A method is FILE.py:CLASS.") if own else type(METHODS[name])
    known = inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise DataError(
                f"The method '{name}' has no option '{key}'.",
                hint=f"It has: {', '.join(known) or 'none'}.",
            )
    method: Method = kind(**parsed_arguments(options))
    if own and not (callable(getattr(method, "decompose", None)) and isinstance(method.name, str)):
        raise DataError(
            f"'{called}' in '{path}' is no method.", hint="What it needs is in docs/writing-a-method.md."
        )
    return method


def _fetch(repository: str, revision: str | None, filename: str) -> Path:
    files = open_catalog("hf").files
    place = RepositoryId.parse(repository)
    return files.fetch(place, files.commit_of(place, revision or "main"), filename)
