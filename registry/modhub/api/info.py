"""What a release, and a module of it, says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modhub.api.catalogs import open_catalog
from modhub.catalog.catalog import Catalog
from modhub.catalog.measurements import measurement_of
from modhub.energy import EnergyUse
from modhub.manifest import InputSpec, Measurement, MethodInfo, ModuleManifest, ParentInfo, Sample, at_least
from modhub.refs import Ref
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrunkSummary(Result):
    """The trunk that the modules of a repository share; `flops` are multiply-adds for one image."""

    sha256: str
    parameters: int
    flops: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModuleSummary(Result):
    """A module of a release; the fields are those of `modhub.catalog.search.SearchHit`."""

    label: str
    aliases: tuple[str, ...]
    form: str
    kept_channels_fraction: float
    metrics: Mapping[str, float]
    sample: Sample | None
    at_least: float | None
    measured: Measurement | None
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Info(Result):
    """A release. `yanked` is the reason or None; `trunk` is None where modules have their own.

    `energy` is what making the modules took, None where the manifest does not say. `releases` are all of the
    repository's. `module` is the manifest of the module that the ref names.
    """

    repository: str
    version: str | None
    commit: str
    yanked: str | None
    releases: tuple[str, ...]
    license: str | None
    parent: ParentInfo
    method: MethodInfo
    input: InputSpec
    trunk: TrunkSummary | None
    modules: tuple[ModuleSummary, ...]
    module: ModuleManifest | None
    energy: EnergyUse | None = None


def info(ref: str, *, hub: str | Catalog | None = None, offline: bool = False) -> Info:
    """What a release, and if the ref names one a module, says of itself.

    Raises `RefError`, `HubError` (`NotFoundError` for what is not there) and `ManifestError`.
    """
    details = open_catalog(hub, offline=offline).details(Ref.parse(ref))
    manifest, trunk, module = details.manifest, details.manifest.trunk, details.module
    entries = [entry for entry in manifest.modules if module is None or entry.slug == module.slug]
    samples = [entry.sample for entry in entries]
    if module is not None and module.measurement is not None:
        samples = [module.measurement.sample]
    return Info(
        repository=str(details.repository),
        version=None if details.release.version is None else str(details.release.version),
        commit=details.release.commit,
        yanked=details.release.yanked,
        releases=tuple(str(release) for release in details.releases),
        license=manifest.license,
        parent=manifest.parent,
        method=manifest.method,
        input=manifest.input,
        trunk=None
        if trunk is None
        else TrunkSummary(
            sha256=trunk.sha256,
            parameters=trunk.parameters,
            flops=trunk.flops,
            bytes=sum(file.size for file in trunk.files),
        ),
        modules=tuple(
            ModuleSummary(
                label=entry.label,
                aliases=tuple(entry.aliases),
                form=entry.form,
                kept_channels_fraction=entry.kept_channels_fraction,
                metrics=entry.metrics,
                sample=sample,
                at_least=at_least(entry.metrics, sample),
                measured=measurement_of(entry.manifest.sha256),
                bytes=entry.bytes,
            )
            for entry, sample in zip(entries, samples, strict=True)
        ),
        module=module,
        energy=manifest.energy,
    )
