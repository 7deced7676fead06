"""Searching modules: the newest release of each repository that may have them, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modhub.catalog.catalog import Catalog
from modhub.catalog.measurements import measurement_of
from modhub.catalog.releases import Release
from modhub.errors import HubError, IntegrityError, ManifestError, NotFoundError, OfflineError, RefError
from modhub.manifest import Measurement, ModuleEntry, RepositoryManifest, Sample, at_least, ranking_key
from modhub.manifest.card import class_tags
from modhub.refs import Ref, RepositoryId
from modhub.reporter import SILENT, Reporter
from modhub.store.model import RepositorySummary

__all__ = ["ModuleHit", "search"]

_DIGITS = 8
"""Fewer hex digits are not taken for those of a content id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleHit:
    """A module of the newest release of its repository.

    `metrics` are fractions in [0, 1] as its publisher claims them, on the images `sample` if that is known;
    `measured` is what was measured on this machine, None where nothing was. `bytes` counts the module's own
    files, not a shared trunk, whose content id is `trunk`; `place` is that of the first of the labels
    searched for that means it.
    """

    repository: RepositoryId
    release: Release
    label: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    sample: Sample | None
    measured: Measurement | None
    license: str | None
    dataset: str | None
    architecture: str
    trunk: str
    kept_channels_fraction: float
    bytes: int
    downloads: int
    place: int = 0

    @property
    def ref(self) -> str:
        """How to name it: `namespace/name/label`."""
        return str(Ref(self.repository, self.label))

    @property
    def at_least(self) -> float | None:
        """The lower bound of its claimed balanced accuracy: `modhub.manifest.ranking`."""
        return at_least(self.metrics, self.sample)


def search(
    catalog: Catalog,
    labels: Sequence[str] = (),
    *,
    license: str = "",  # noqa: A002 - the word users know
    dataset: str = "",
    architecture: str = "",
    trunk: str = "",
    text: str = "",
    limit: int = 100,
    reporter: Reporter = SILENT,
) -> list[ModuleHit]:
    """Modules that answer to any of `labels` (all modules without any), the best first.

    Those measured on this machine come before the others, whose figures are their publishers' claims;
    `modhub.manifest.ranking` says which are the best. `license`, `dataset` and `architecture` are compared
    without case; `trunk` is the first digits of a content id, or what `architecture` is; every word of `text`
    occurs in the repository's name or tags. Repositories without an active release are skipped, and so are
    those that cannot be read; `reporter.warn` says how many, and why the first.
    """
    wanted = {"license": license, "dataset": dataset, "architecture": architecture}
    summaries = {
        summary.id: summary
        for tags in [[tag] for label in labels for tag in class_tags(label)] or [[]]
        for summary in catalog.find(tags, text)
    }
    hits: list[ModuleHit] = []
    unreadable: list[str] = []
    for summary in summaries.values():
        try:
            hits += _hits(catalog, summary, labels)
        except NotFoundError:
            continue
        except (HubError, ManifestError, IntegrityError, RefError) as error:
            # One bad repository must not hide the others.
            if not (isinstance(error, OfflineError) and catalog.files.offline):
                unreadable.append(error.message)
    if unreadable:
        number = "1 repository" if len(unreadable) == 1 else f"{len(unreadable)} repositories"
        reporter.warn(f"Skipped {number} that cannot be read. The first: {unreadable[0]}")

    def rank(hit: ModuleHit) -> tuple[Any, ...]:
        measured, claimed = hit.measured, ranking_key(hit.metrics, hit.sample)
        here = (False, -1.0) if measured is None else ranking_key(measured.values, measured.sample)
        figures = [(not unseen, -bound) for unseen, bound in (here, claimed)]
        return (hit.place, measured is None, *figures, -hit.downloads, hit.repository, hit.label)

    fitting = [
        hit
        for hit in hits
        if all(
            not value or (getattr(hit, name) or "").casefold() == value.casefold()
            for name, value in wanted.items()
        )
        and (not trunk or _stands_on(hit, trunk.casefold()))
    ]
    return sorted(fitting, key=rank)[:limit]


def _stands_on(hit: ModuleHit, trunk: str) -> bool:
    digest = len(trunk) >= _DIGITS and set(trunk) <= set("0123456789abcdef")
    return hit.trunk.startswith(trunk) if digest else hit.architecture.casefold() == trunk


def _hits(catalog: Catalog, summary: RepositorySummary, labels: Sequence[str]) -> list[ModuleHit]:
    release = catalog.select(Ref(summary.id, None))
    manifest = catalog.manifest(summary.id, release.commit)
    places: dict[str, int] = {} if labels else {entry.slug: 0 for entry in manifest.modules}
    for place, label in enumerate(labels):
        for entry in manifest.matching(label):
            places.setdefault(entry.slug, place)
    return [
        _hit(summary, release, manifest, entry, places[entry.slug])
        for entry in manifest.modules
        if entry.slug in places
    ]


def _hit(
    summary: RepositorySummary, release: Release, manifest: RepositoryManifest, entry: ModuleEntry, place: int
) -> ModuleHit:
    return ModuleHit(
        repository=summary.id,
        release=release,
        label=entry.label,
        aliases=entry.aliases,
        metrics=entry.metrics,
        sample=entry.sample,
        measured=measurement_of(entry.manifest.sha256),
        license=manifest.license,
        dataset=manifest.parent.dataset,
        architecture=manifest.parent.architecture,
        trunk=manifest.trunk_of(entry).sha256,
        kept_channels_fraction=entry.kept_channels_fraction,
        bytes=entry.bytes,
        downloads=summary.downloads,
        place=place,
    )
