"""Find modules by the classes they answer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modhub.api.catalogs import open_catalog
from modhub.catalog.catalog import Catalog
from modhub.catalog.search import SearchHit
from modhub.catalog.search import search as search_modules
from modhub.labels import LabelIndex
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

__all__ = ["SearchHit", "SearchResult", "search"]


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
        modules=tuple(hits),
        nearest={label: tuple(nearest) for label, nearest in near.items() if nearest},
    )


def _trunk_id(trunk: str) -> str:
    """Of a directory of modules the content id of their trunk; else what was given."""
    path = Path(trunk) / MANIFEST_NAME
    if not trunk or not path.is_file():
        return trunk
    manifest = RepositoryManifest.from_bytes(path.read_bytes(), str(path))
    return manifest.trunk_of(manifest.modules[0]).sha256
