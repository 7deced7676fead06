"""Add modules to a project's `modhub.toml`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modhub.api.catalogs import open_catalog
from modhub.api.project_files import editing, parse_item, project_path, read_project
from modhub.catalog.catalog import Catalog
from modhub.files import rewrite
from modhub.project.toml import Project, Want, add_want
from modhub.refs import Ref


def add(
    directory: Path, items: Iterable[str], *, hub: str | Catalog | None = None, offline: bool = False
) -> list[Want]:
    """Add `label=REF`, a ref, or every module of a repository; the wants added, in order.

    An entry that exists already is left as it is, and is not among them. The hub is asked only for
    a repository without a class. Raises `RefError`, `CompositionError` and `StorageError`; then nothing is
    written.
    """
    wants: list[Want] = []
    hubs = read_project(directory).hubs
    for item in items:
        want = parse_item(item)
        if isinstance(want, Want):
            wants.append(want)
        else:
            wants.extend(_wants_of(want, open_catalog(hub, offline=offline).bound(hubs)))
    added: list[Want] = []
    with editing(directory) as text:
        there = Project.from_toml(text, str(project_path(directory))).wants
        for want in wants:
            if want not in (*there, *added):
                text = add_want(text, want)
                added.append(want)
        if added:
            rewrite(project_path(directory), text)
    return added


def _wants_of(ref: Ref, catalog: Catalog) -> list[Want]:
    """One want for every module of a repository."""
    if ref.repository is None:
        return []
    manifest = catalog.manifest(ref.repository, catalog.select(ref).commit)
    return [
        Want(entry.label, Ref(ref.repository, entry.label, ref.specifier, ref.revision))
        for entry in manifest.modules
    ]
