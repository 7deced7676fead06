"""Build directories: a composed classifier, and the project, lock, options and manifests it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modhub.api.lock import LockChange
from modhub.catalog.catalog import Catalog
from modhub.composition import KINDS, Budget, Part, compose
from modhub.composition.build import BUILD_NAME, save_build
from modhub.composition.classifier import TrunkReport
from modhub.data import ImageSet, open_data, open_unlabelled
from modhub.energy import EnergyUse, Meter
from modhub.errors import BudgetError, ManifestError, hinting
from modhub.files import new_directory
from modhub.manifest import Fields, ModuleManifest
from modhub.project.lock import LOCK_NAME, Lock
from modhub.project.toml import PROJECT_NAME
from modhub.reporter import Reporter
from modhub.results import Document, Result
from modhub.text import parse_json, pretty_json

OPTIONS_NAME = "options.json"
OPTIONS_SCHEMA_VERSION = 1
AGAIN = "Compose it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions(Document):
    """`options.json` of a build: what it was composed with, so that `replace` can do the same again.

    `flops`, `params`, `time`, `max_loss` and `multiple` are those of a `Budget`; None: there is no limit.
    """

    flops: float | None = None
    params: float | None = None
    time: float | None = None
    max_loss: float | None = None
    multiple: int = 1
    reject: bool = False
    seed: int = 0

    @classmethod
    def of(cls, budget: Budget | None, *, reject: bool, seed: int) -> BuildOptions:
        """The options of a composition within `budget`; None: nothing is limited."""
        budget = budget or Budget()
        limits = {name: getattr(budget, name) for name in (*KINDS, "max_loss")}
        return cls(**limits, multiple=budget.block, reject=reject, seed=seed)

    @classmethod
    @hinting(AGAIN)
    def read(cls, path: Path) -> BuildOptions:
        """Read and check the file. Raises `ManifestError` or `SchemaVersionError` naming it."""
        fields = Fields(parse_json(path.read_bytes(), str(path)), str(path))
        fields.check_version(OPTIONS_SCHEMA_VERSION)
        limits = {
            name: None if fields.value.get(name) is None else fields.number(name)
            for name in (*KINDS, "max_loss")
        }
        options = cls(
            **limits,
            multiple=fields.integer("multiple", minimum=1) if "multiple" in fields.value else 1,
            reject=fields.boolean("reject"),
            seed=fields.integer("seed", minimum=-(2**53)),
        )
        try:
            _ = options.budget
        except BudgetError as error:
            raise ManifestError(f"{path}: {error.message}") from None
        return options

    def to_dict(self) -> dict[str, Any]:
        return {"schema_version": OPTIONS_SCHEMA_VERSION, **Document.to_dict(self)}

    @property
    def budget(self) -> Budget:
        return Budget(**{name: getattr(self, name) for name in (*KINDS, "max_loss", "multiple")})


@dataclass(frozen=True, slots=True)
class BuildCost:
    """Passes and multiply-adds for one image, and bytes on disk."""

    passes: int
    flops: int
    bytes: int

    @classmethod
    def read(cls, build: Path) -> BuildCost:
        """Of a build's directory. Raises `ManifestError` naming the file."""
        path = build / BUILD_NAME
        fields = Fields(parse_json(path.read_bytes(), str(path)), str(path))
        flops = [described.integer("flops") for described in fields.children("passes", minimum=1)]
        return cls(len(flops), sum(flops), _bytes_of(build))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BuildReport(Result):
    """A composed classifier on disk: `passes` per image, what each trunk costs, and all its `bytes`.

    `energy` is what composing it took, with emissions per classifier where the grid is named. `changes` are
    what its lock has from elsewhere than the lock that it replaces.
    """

    labels: tuple[str, ...]
    passes: int
    trunks: tuple[TrunkReport, ...]
    bytes: int
    path: Path
    energy: EnergyUse
    changes: tuple[LockChange, ...] = ()

    @property
    def cost(self) -> BuildCost:
        return BuildCost(self.passes, sum(trunk.flops for trunk in self.trunks), self.bytes)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a build is made of: `text` is its `modhub.toml`, `changes` what its lock has from elsewhere."""

    text: str
    lock: Lock
    changes: tuple[LockChange, ...] = ()


def write_build(
    target: Path,
    origin: Origin | None,
    fetch_parts: Callable[[], Sequence[Part]],
    options: BuildOptions,
    *,
    catalog: Catalog,
    tune: ImageSet | str | None,
    calibrate: ImageSet | str | None,
    device: torch.device,
    force: bool,
    reporter: Reporter,
) -> BuildReport:
    """Compose what `fetch_parts` gives into a new directory `target`, with its `origin` where it has one.

    Whether images and target can be used is known before anything is fetched.
    """
    tuning, labelled = open_tuning(tune, calibrate)
    with new_directory(target, force=force) as scratch:
        with Meter() as meter:
            classifier = compose(
                fetch_parts(),
                budget=options.budget,
                reject=options.reject,
                seed=options.seed,
                device=device,
                reporter=reporter,
                tune=tuning,
                calibrate=labelled,
            )
        energy = meter.use(device=device.type)
        save_build(classifier, scratch, energy=energy)
        if origin is not None:
            _write_origin(scratch, origin, options, catalog)
        return BuildReport(
            labels=classifier.labels,
            passes=len(classifier.trunk_passes),
            trunks=tuple(trunk_pass.report for trunk_pass in classifier.trunk_passes),
            bytes=_bytes_of(scratch),
            path=target,
            energy=energy,
            changes=() if origin is None else origin.changes,
        )


def _bytes_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _write_origin(directory: Path, origin: Origin, options: BuildOptions, catalog: Catalog) -> None:
    catalog = catalog.bound(origin.lock.hubs)
    for number, module in enumerate(origin.lock.modules):
        place = directory / "modules" / f"{number}.json"
        place.parent.mkdir(exist_ok=True)
        # The bytes of the cached file: they have the digest that the lock records.
        manifest = catalog.fetch(module.repository, module.commit, module.files[0])
        place.write_bytes(manifest.read_bytes())
    (directory / PROJECT_NAME).write_text(origin.text, encoding="utf-8")
    (directory / LOCK_NAME).write_bytes(origin.lock.to_bytes())
    (directory / OPTIONS_NAME).write_bytes(pretty_json(options.to_dict()))


def open_tuning(
    tune: ImageSet | str | None, calibrate: ImageSet | str | None
) -> tuple[ImageSet | None, ImageSet | None]:
    """The images to tune and to calibrate with, both opened: a path may be mistyped."""
    return (
        None if tune is None else open_unlabelled(tune, "train"),
        None if calibrate is None else open_data(calibrate, "train"),
    )


def build_manifests(build: Path) -> list[ModuleManifest]:
    """The manifests of the modules a build was made of, in the order of its labels; empty when unknown."""
    return [
        ModuleManifest.from_bytes(path.read_bytes(), str(path), hint=AGAIN) for path in manifest_paths(build)
    ]


def manifest_paths(build: Path) -> list[Path]:
    """The files of those manifests."""
    return sorted((build / "modules").glob("*.json"), key=lambda path: int(path.stem))
