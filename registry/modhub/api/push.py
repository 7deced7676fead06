"""Publish modules as a release of a repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from modhub.api.catalogs import open_catalog
from modhub.api.trunks import check_artifact_trunks
from modhub.catalog import publish
from modhub.catalog.catalog import Catalog
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.refs import RepositoryId, parse_version
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

if TYPE_CHECKING:
    from modhub.artifact.modules import ModuleSet


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PushReport(Result):
    """The release: `modules` and `files` are counts, `bytes` were sent.

    `existed`: it was there already with these very files; `bytes` then are those the hub had lost.
    """

    repository: str
    version: str
    commit: str
    hub: str
    modules: int
    files: int
    bytes: int
    existed: bool


def push(
    modules: Path | str | ModuleSet,
    repository: str,
    *,
    version: str,
    private: bool = False,
    force: bool = False,
    hub: str | Catalog | None = None,
    reporter: Reporter = SILENT,
) -> PushReport:
    """Publish an artifact's directory or a `ModuleSet`: one commit, one tag. See `catalog.publish.push`.

    Raises `ManifestError` for a trunk that is no network within the limits (`modhub.nets.limits`), and
    `IntegrityError` for one that costs otherwise than its manifest says.

    Without `force`, raises `ConflictError` for a network that has no class in common with the release before.
    """
    place, number = RepositoryId.parse(repository), parse_version(version)
    catalog = open_catalog(hub)
    with _written(modules) as directory:
        done = publish.push(
            catalog,
            directory,
            place,
            number,
            private=private,
            force=force,
            check=check_artifact_trunks,
            reporter=reporter,
        )
        # From here, not from the hub: what is published is no failure, whatever the hub says next.
        manifest = RepositoryManifest.from_bytes((directory / MANIFEST_NAME).read_bytes())
    return PushReport(
        repository=str(place),
        version=str(done.release.version),
        commit=done.release.commit,
        hub=catalog.hub.address,
        modules=len(manifest.modules),
        files=done.files,
        bytes=done.sent,
        existed=done.existed,
    )


@contextmanager
def _written(modules: Path | str | ModuleSet) -> Iterator[Path]:
    """The directory of an artifact; that of a set in memory goes away with the block."""
    if isinstance(modules, Path | str):
        yield Path(modules)
        return
    # Whoever has a set in memory has torch, too.
    from modhub.artifact import write_artifact

    with TemporaryDirectory() as scratch:
        yield write_artifact(Path(scratch) / "modules", modules)
