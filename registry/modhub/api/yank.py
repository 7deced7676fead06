"""Yank a release: nothing resolves to it any more, except what pins it."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.api.catalogs import open_catalog
from modhub.catalog import publish
from modhub.catalog.catalog import Catalog
from modhub.errors import RefError
from modhub.refs import Ref, parse_version, pinned_versions
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class YankReport(Result):
    """The reason the release is `yanked` for now and was `before`; None: it is or was active."""

    repository: str
    version: str
    yanked: str | None
    before: str | None


def yank(ref: str, *, reason: str = "", undo: bool = False, hub: str | Catalog | None = None) -> YankReport:
    """Yank the release that `repository==version` names, or with `undo` make it active again.

    Without a new `reason` an earlier one stays. Raises `RefError` for a ref that does not name one release,
    and `HubError`.
    """
    parsed = Ref.parse(ref)
    pins = set(pinned_versions(parsed.specifier))
    if parsed.revision is not None and parsed.revision.startswith("v"):
        pins.add(parse_version(parsed.revision))
    if parsed.repository is None or parsed.label is not None or len(pins) != 1:
        raise RefError(f"'{ref}' does not name one release.", hint="Write namespace/name==1.0.0.")
    catalog, (version,) = open_catalog(hub), pins
    reasons = {release.version: release.yanked for release in catalog.releases(parsed.repository)}
    before = reasons.get(version)
    if undo:
        release = publish.unyank(catalog, parsed.repository, version)
    else:
        release = publish.yank(catalog, parsed.repository, version, reason or before or "")
    return YankReport(
        repository=str(parsed.repository),
        version=str(release.version),
        yanked=release.yanked,
        before=before,
    )
