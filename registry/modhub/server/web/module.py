"""A module's page: kept and shared channels, calibration, metrics, commands."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from typing import Any

from starlette.responses import Response

from modhub.catalog.releases import newest_release, release_at, weight_of
from modhub.errors import ModhubError
from modhub.manifest import MANIFEST_NAME, Calibration, ModuleEntry, RepositoryManifest
from modhub.manifest.card import ref_of
from modhub.server.errors import HTTPError, to_http_error
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.pictures import (
    calibration_picture,
    mask_picture,
    overlap,
    overlap_picture,
)
from modhub.server.web.render import literal, page
from modhub.server.web.repository import may_read, parts_of, pin
from modhub.server.web.repository_view import RepositoryView

routes = Routes()
SIBLINGS = 24
_UNSEEN: dict[str, Any] = {"mask": None, "matrix": None, "closest": []}


@routes.get("/{namespace}/{name}/modules/{slug}")
def module(request: Request) -> Response:
    record = request.repository("see")
    view, revision = RepositoryView(request.store, record), request.parameter("revision")
    releases = view.releases
    newest = newest_release(releases)
    commit = request.commit_of(record, revision) if revision else newest.commit if newest else view.main or ""
    wanted = request.values["slug"][:100]
    if MANIFEST_NAME not in view.tree(commit):
        raise HTTPError(404, f"There is no module '{wanted}' in {record.id}.")
    manifest = view.manifest(commit)
    entry = _entry(manifest, request.values["slug"])
    if entry is None:
        near = get_close_matches(wanted, [entry.slug for entry in manifest.modules], n=5)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        raise HTTPError(404, f"There is no module '{wanted}' in {record.id}.{hint}")
    readable = may_read(request, record)
    release = release_at(releases, revision, commit)
    ref = ref_of(str(record.id), entry) + pin(revision, release, newest)
    details, trouble = None, ""
    if readable:
        try:
            details = view.module(commit, entry)
        except ModhubError as error:
            trouble = to_http_error(error).message
    return page(
        request,
        "module.html",
        title=f"{entry.label} of {record.id}{f' {release}' if release.version else ''}",
        record=record,
        here=parts_of(record),
        commit=commit,
        revision=revision,
        release=release,
        newest=newest,
        manifest=manifest,
        entry=entry,
        trunk=manifest.trunk_of(entry),
        weight=weight_of(manifest, entry),
        details=details,
        trouble=trouble,
        readable=readable,
        ref=ref,
        in_shell=shlex.quote(ref),
        in_python=literal(ref),
        calibration=None if details is None else _calibration(details.calibration),
        **(_pictures(view, commit, manifest, entry) if readable else _UNSEEN),
    )


def _entry(manifest: RepositoryManifest, name: str) -> ModuleEntry | None:
    """The module whose path component is `name`, else the one that it means."""
    named = [entry for entry in manifest.modules if entry.slug == name] or manifest.matching(name)
    return named[0] if len(named) == 1 else None


def _pictures(
    view: RepositoryView, commit: str, manifest: RepositoryManifest, entry: ModuleEntry
) -> dict[str, Any]:
    mask = view.mask(commit, entry)
    if mask is None:
        return _UNSEEN
    trunk = manifest.trunk_of(entry).sha256
    siblings = [other for other in manifest.modules if manifest.trunk_of(other).sha256 == trunk]
    position = siblings.index(entry)
    start = max(0, min(position - SIBLINGS // 2, len(siblings) - SIBLINGS))
    shown = [
        (other.label, other_mask)
        for other in siblings[start : start + SIBLINGS]
        if (other_mask := view.mask(commit, other)) is not None and len(other_mask) == len(mask)
    ]
    labels = [label for label, _ in shown]
    matrix, closest = None, []
    if len(shown) > 1:
        shares, row = overlap([other_mask for _, other_mask in shown]), labels.index(entry.label)
        matrix = overlap_picture(labels, shares, row)
        # Also as text, for readers who cannot distinguish the squares.
        order = sorted(range(len(labels)), key=lambda column: -shares[row, column])
        closest = [(labels[column], float(shares[row, column])) for column in order if column != row][:3]
    return {"mask": mask_picture(mask), "matrix": matrix, "closest": closest}


def _calibration(calibration: Calibration) -> dict[str, Any] | None:
    """The figure and its horizontal axis; None where the manifest lacks a parameter of the curve."""
    parameters = calibration.parameters
    over = "odds" if "odds_mean" in parameters else "margin"
    names = ("slope", "intercept", f"{over}_mean", f"{over}_std")
    if any(name not in parameters for name in names):
        return None
    slope, intercept, mean, deviation = (parameters[name] for name in names)
    if slope <= 0 or deviation < 0:
        return None
    return {"picture": calibration_picture(slope, intercept, mean, deviation, over=over), "over": over}
