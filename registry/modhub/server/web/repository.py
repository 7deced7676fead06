"""A repository's page, its files and its history."""

from __future__ import annotations

from itertools import islice

from starlette.responses import Response

from modhub.catalog.releases import Release, newest_release, release_at
from modhub.errors import BusyError, ModhubError
from modhub.manifest import MANIFEST_NAME, ModuleEntry, RepositoryManifest
from modhub.server.auth.principal import authorize
from modhub.server.errors import HTTPError, missing_file, not_found, to_http_error
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.markdown import card_html
from modhub.server.web.render import address, page
from modhub.server.web.repository_view import RepositoryView
from modhub.store.model import MAIN
from modhub.store.records import CommitRecord, RepositoryRecord
from modhub.store.tree import TreeFile

routes = Routes()
REPOSITORY = "/{web}{namespace}/{name}"
FILES_LIMIT = 2000
COMMITS = 50
SEARCHED_FROM = 30


def parts_of(record: RepositoryRecord) -> tuple[str, ...]:
    """The parts of a repository's address."""
    parts = (record.id.namespace, record.id.name)
    return parts if record.kind == "model" else ("datasets", *parts)


def may_read(request: Request, record: RepositoryRecord) -> bool:
    """Whether the principal may read the files' contents."""
    try:
        authorize(request.principal, record, "read")
    except HTTPError:
        return False
    return True


def pin(revision: str, release: Release, newest: Release | None) -> str:
    """What a ref needs after it to mean what a page shows: nothing where no `revision` was asked for, as the
    page then shows the newest release, which such a ref means."""
    if not revision:
        return "" if newest else "@main"
    return f"@{release.commit}" if release.version is None else f"=={release.version}"


def _matching(manifest: RepositoryManifest, text: str) -> list[ModuleEntry]:
    """The modules whose names contain every word of `text`."""
    words = text.casefold().split()

    def matches(entry: ModuleEntry) -> bool:
        names = " ".join((entry.label, entry.slug, *entry.aliases)).casefold()
        return all(word in names for word in words)

    return [entry for entry in manifest.modules if matches(entry)]


@routes.get(REPOSITORY)
def overview(request: Request) -> Response:
    try:
        record = request.repository("see")
    except HTTPError:
        if request.values["namespace"] == "api" and not request.values["web"]:
            # Not a page, but an unknown route of the API.
            raise not_found() from None
        raise
    view, revision = RepositoryView(request.store, record), request.parameter("revision")
    commit = request.commit_of(record, revision or MAIN)
    manifest, unreadable = None, ""
    releases: tuple[Release, ...] = ()
    try:
        releases = view.releases
        if not revision:
            commit = view.presented or commit
        if MANIFEST_NAME in view.tree(commit):
            manifest = view.manifest(commit)
    except ModhubError as error:
        unreadable = to_http_error(error).message
    sought = " ".join(request.parameter("q")[:200].split())
    here = parts_of(record)
    text, complete = view.card(commit)
    newest, release = newest_release(releases), release_at(releases, revision, commit)
    tree = view.tree(commit)
    return page(
        request,
        "repository.html",
        title=f"{record.id} {revision[:40] if release.version is None else release}"
        if revision
        else str(record.id),
        record=record,
        here=here,
        commit=commit,
        revision=revision,
        shown=revision or (MAIN if commit == view.main else commit),
        release=release if revision else None,
        newest=newest,
        ref=f"{record.id}{pin(revision, release, newest)}",
        unreadable=unreadable,
        card=card_html(text, address(request, *here, "resolve", commit)),
        full_card="" if complete else address(request, *here, "resolve", commit, "README.md"),
        manifest=manifest,
        searchable=manifest is not None and len(manifest.modules) > SEARCHED_FROM,
        sought=sought,
        modules=_matching(manifest, sought) if manifest else [],
        releases=releases,
        downloads=request.store.references.downloads(record.key),
        files=len(tree),
        size=sum({file.sha256: file.size for file in tree.values()}.values()),
        readable=may_read(request, record),
    )


@routes.get(REPOSITORY + "/tree/{revision}", REPOSITORY + "/tree/{revision}/{path*}")
def files(request: Request) -> Response:
    record = request.repository("see")
    store = request.store
    commit = request.commit_of(record, request.values["revision"])
    folder = request.values.get("path", "").strip("/")
    tree = store.reader.tree(record.key, commit)
    if not tree.has_folder(folder):
        raise missing_file(folder, commit)
    listing = list(tree.listing(folder).items())
    changes: dict[str, CommitRecord] = {}
    note = ""
    try:
        changes = store.last_changes.of(record.key, commit, [path for path, _ in listing[:FILES_LIMIT]])
    except BusyError as error:
        note = str(error)
    here, revision = parts_of(record), request.values["revision"]
    rows = []
    for path, entry in listing[:FILES_LIMIT]:
        place = path.split("/")
        is_file = isinstance(entry, TreeFile)
        rows.append(
            {
                "name": place[-1],
                "size": entry.size if isinstance(entry, TreeFile) else None,
                "href": address(request, *here, "resolve" if is_file else "tree", revision, *place),
                "change": changes.get(path),
            }
        )
    above = folder.split("/")[:-1] if folder else None
    return page(
        request,
        "files.html",
        title=f"{folder or 'Files'} of {record.id} at {revision[:40]}",
        record=record,
        here=here,
        revision=revision,
        folder=folder,
        up=None if above is None else address(request, *here, "tree", revision, *above),
        rows=rows,
        note=note,
        left_out=max(0, len(listing) - FILES_LIMIT),
    )


@routes.get(REPOSITORY + "/commits/{revision}", REPOSITORY + "/commit/{revision}")
def history(request: Request) -> Response:
    record = request.repository("see")
    commit = request.commit_of(record, request.values["revision"])
    rows = list(islice(request.store.reader.history(record.key, commit), COMMITS + 1))
    here = parts_of(record)
    return page(
        request,
        "history.html",
        title=f"History of {record.id} at {request.values['revision'][:40]}",
        record=record,
        here=here,
        rows=rows[:COMMITS],
        older=address(request, *here, "commits", rows[COMMITS].id) if len(rows) > COMMITS else "",
        revision=request.values["revision"],
    )
