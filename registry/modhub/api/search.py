"""Find modules by the classes they answer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modhub.api.catalogs import open_catalog
from modhub.catalog.catalog import Catalog
from modhub.catalog.search import ModuleHit
from modhub.catalog.search import search as search_modules
from modhub.labels import LabelIndex
from modhub.manifest import MANIFEST_NAME, Measurement, RepositoryManifest, Sample
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

__all__ = ["SearchHit", "SearchResult", "search"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SearchHit(Result):
    """A module of a repository's newest release.

    `metrics` are what its publisher claims, fractions in [0, 1] by name, `recall` among them; `sample` are
    the images that they are claimed for, `at_least` what the balanced accuracy then is with 97.5 % certainty.
    `measured` is what `decompose` or `evaluate` measured on this machine, None where nothing was. `bytes` is
    without the trunk, whose content id is `trunk`: modules with the same one compose in one pass.
    """

    ref: str
    repository: str
    version: str | None
    label: str
    aliases: tuple[str, ...]
    recall: float | None
    metrics: Mapping[str, float]
    sample: Sample | None
    at_least: float | None
    measured: Measurement | None
    license: str | None
    dataset: str | None
    architecture: str
    trunk: str
    kept_channels_fraction: float
    bytes: int
    downloads: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SearchResult(Result):
    """`modules`, the best first; `nearest` has for a label that no class is called the names like it."""

    modules: tuple[SearchHit, ...]
    nearest: Mapping[str, tuple[str, ...]]


def search(
    labels: str | Sequence[str] = (),
    *,
    license: str = "",  # noqa: A002 - the word users know
    dataset: str = "",
    architecture: str = "",
    trunk: str = "",
    text: str = "",
    limit: int = 50,
    hub: str | Catalog | None = None,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> SearchResult:
    """Modules that answer to any of `labels`; without any, the modules of all repositories.

    `trunk` finds what stands on one: its content id, or eight digits of it or more; a directory of modules;
    or a parent string such as timm:resnet50, as which several trunks may be published.

    `nearest` has for each label that no class on the hub is called the names that look like it.
    `reporter.warn` says how many repositories cannot be read.
    """
    labels = [labels] if isinstance(labels, str) else labels
    catalog = open_catalog(hub, offline=offline)
    hits = search_modules(
        catalog,
        labels,
        license=license,
        dataset=dataset,
        architecture=architecture,
        trunk=_trunk_id(trunk),
        text=text,
        limit=limit,
        reporter=reporter,
    )
    names = LabelIndex([hit.label for hit in hits], [hit.aliases for hit in hits])
    near = {label: catalog.nearest(label) for label in labels if not names.find(label)}
    return SearchResult(
        modules=tuple(_hit(hit) for hit in hits),
        nearest={label: tuple(nearest) for label, nearest in near.items() if nearest},
    )


def _trunk_id(trunk: str) -> str:
    """Of a directory of modules the content id of their trunk; else what was given."""
    path = Path(trunk) / MANIFEST_NAME
    if not trunk or not path.is_file():
        return trunk
    manifest = RepositoryManifest.from_bytes(path.read_bytes(), str(path))
    return manifest.trunk_of(manifest.modules[0]).sha256


def _hit(hit: ModuleHit) -> SearchHit:
    return SearchHit(
        ref=hit.ref,
        repository=str(hit.repository),
        version=None if hit.release.version is None else str(hit.release.version),
        label=hit.label,
        aliases=tuple(hit.aliases),
        recall=hit.metrics.get("recall"),
        metrics=hit.metrics,
        sample=hit.sample,
        at_least=hit.at_least,
        measured=hit.measured,
        license=hit.license,
        dataset=hit.dataset,
        architecture=hit.architecture,
        trunk=hit.trunk,
        kept_channels_fraction=hit.kept_channels_fraction,
        bytes=hit.bytes,
        downloads=hit.downloads,
    )
