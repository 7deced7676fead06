"""Searching modules: the newest release of each repository that may have them, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from modhub.catalog.catalog import Catalog
from modhub.catalog.measurements import measurement_of
from modhub.catalog.releases import Release
from modhub.errors import HubError, IntegrityError, ManifestError, NotFoundError, OfflineError, RefError
from modhub.manifest import Measurement, ModuleEntry, RepositoryManifest, Sample, at_least, ranking_key
from modhub.manifest.card import class_tags
from modhub.refs import Ref
from modhub.reporter import SILENT, Reporter
from modhub.results import Result
from modhub.store.model import RepositorySummary

_DIGITS = 8
"""Fewer hex digits are not taken for those of a content id."""


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
) -> list[SearchHit]:
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
    hits: list[tuple[int, SearchHit]] = []
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

    def rank(place: int, hit: SearchHit) -> tuple[object, ...]:
        measured, claimed = hit.measured, ranking_key(hit.metrics, hit.sample)
        here = (False, -1.0) if measured is None else ranking_key(measured.values, measured.sample)
        figures = [(not unseen, -bound) for unseen, bound in (here, claimed)]
        return (place, measured is None, *figures, -hit.downloads, hit.repository.split("/"), hit.label)

    ranked = [
        (rank(place, hit), hit)
        for place, hit in hits
        if all(
            not value or (getattr(hit, name) or "").casefold() == value.casefold()
            for name, value in wanted.items()
        )
        and (not trunk or _stands_on(hit, trunk.casefold()))
    ]
    return [hit for _, hit in sorted(ranked, key=itemgetter(0))[:limit]]


def _stands_on(hit: SearchHit, trunk: str) -> bool:
    digest = len(trunk) >= _DIGITS and set(trunk) <= set("0123456789abcdef")
    return hit.trunk.startswith(trunk) if digest else hit.architecture.casefold() == trunk


def _hits(catalog: Catalog, summary: RepositorySummary, labels: Sequence[str]) -> list[tuple[int, SearchHit]]:
    """The modules of a repository that `labels` mean, with the place of the first label that means each."""
    release = catalog.select(Ref(summary.id, None))
    manifest = catalog.manifest(summary.id, release.commit)
    places: dict[str, int] = {} if labels else {entry.slug: 0 for entry in manifest.modules}
    for place, label in enumerate(labels):
        for entry in manifest.matching(label):
            places.setdefault(entry.slug, place)
    return [
        (places[entry.slug], _hit(summary, release, manifest, entry))
        for entry in manifest.modules
        if entry.slug in places
    ]


def _hit(
    summary: RepositorySummary, release: Release, manifest: RepositoryManifest, entry: ModuleEntry
) -> SearchHit:
    return SearchHit(
        ref=str(Ref(summary.id, entry.label)),
        repository=str(summary.id),
        version=None if release.version is None else str(release.version),
        label=entry.label,
        aliases=entry.aliases,
        recall=entry.metrics.get("recall"),
        metrics=entry.metrics,
        sample=entry.sample,
        at_least=at_least(entry.metrics, entry.sample),
        measured=measurement_of(entry.manifest.sha256),
        license=manifest.license,
        dataset=manifest.parent.dataset,
        architecture=manifest.parent.architecture,
        trunk=manifest.trunk_of(entry).sha256,
        kept_channels_fraction=entry.kept_channels_fraction,
        bytes=entry.bytes,
        downloads=summary.downloads,
    )
