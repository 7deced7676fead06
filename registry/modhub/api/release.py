"""What an administrator does to releases on a hub's machine."""

from __future__ import annotations

import getpass
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modhub.api.stores import open_store
from modhub.errors import HubError, RefError
from modhub.refs import Ref, pinned_versions
from modhub.results import Result
from modhub.store.records import RepositoryKey


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RemovedRelease(Result):
    """The release that was removed: the commit it had and the sha256 of its `modhub.json`."""

    repository: str
    version: str
    commit: str
    manifest: str


def remove_release(ref: str, *, root: Path | None = None, force: bool = False) -> RemovedRelease:
    """Remove the release that `repository==version` names from the hub in the directory `root`.

    Whatever pins it fails from then on, and the version is never published with other files. Raises
    `HubError` without `force`, `RefError` for a ref that does not name one release, and `NotFoundError`.
    """
    parsed = Ref.parse(ref)
    pins = pinned_versions(parsed.specifier)
    if parsed.repository is None or parsed.label is not None or len(pins) != 1:
        raise RefError(f"'{ref}' does not name one release.", hint="Write namespace/name==1.0.0.")
    if not force:
        raise HubError(
            f"Removing a release breaks every lock that pins {ref}.",
            hint=f"Yank it instead: modhub yank {ref}; or pass --force.",
        )
    store, (version,) = open_store(root), pins
    actor = "administrator"
    with suppress(KeyError, OSError):
        actor = getpass.getuser()
    key = RepositoryKey.model(parsed.repository)
    tag = store.releases.remove(key, str(version), actor=actor)
    release = store.references.removed_releases(key)[tag]
    return RemovedRelease(
        repository=str(parsed.repository),
        version=tag.removeprefix("v"),
        commit=release.commit,
        manifest=release.manifest,
    )
