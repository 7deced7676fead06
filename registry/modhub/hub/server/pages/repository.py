"""A repository's page, its files and its history."""

from __future__ import annotations

from starlette.responses import Response

from modhub.hub.records import RepositoryRecord
from modhub.hub.server.api_files import missing_file
from modhub.hub.server.call import Call
from modhub.hub.server.faults import Fault, nothing_here
from modhub.hub.server.pages.markdown import card_html
from modhub.hub.server.pages.render import address, page
from modhub.hub.server.principal import authorize
from modhub.hub.server.routing import Routes
from modhub.hub.server.shelf import Shelf
from modhub.hub.tree import TreeFile

__all__ = ["may_read", "parts_of", "routes"]

routes = Routes()
ONE = "/{web}{namespace}/{name}"
FILES_LIMIT = 2000
COMMITS = 50
SHOWN_TEXT = 256 << 10


def parts_of(record: RepositoryRecord) -> tuple[str, ...]:
    """The parts of a repository's address."""
    parts = (record.id.namespace, record.id.name)
    return parts if record.kind == "model" else ("datasets", *parts)


def may_read(call: Call, record: RepositoryRecord) -> bool:
    """Whether the reader gets at the files' content, behind the gate if there is one."""
    try:
        authorize(call.principal, record, "read")
    except Fault:
        return False
    return True


@routes.get(ONE)
def overview(call: Call) -> Response:
    try:
        record = call.repository("see")
    except Fault:
        if call.values["namespace"] == "api" and not call.values["web"]:
            # No page was meant, but something of the API that is not here.
            raise nothing_here() from None
        raise
    shelf = Shelf(call.state.store)
    commit = call.commit_of(record, call.one("revision", "main"))
    tree = call.state.store.tree(record.key, commit)
    manifest = shelf.manifest(record, commit)
    here = parts_of(record)
    return page(
        call,
        "repository.html",
        title=str(record.id),
        record=record,
        here=here,
        commit=commit,
        revision=call.one("revision"),
        card=card_html(shelf.card(record, commit), address(call, *here, "resolve", commit)),
        manifest=manifest,
        releases=shelf.releases(record),
        downloads=call.state.store.references.downloads(record.key),
        files=len(tree),
        size=sum({file.sha256: file.size for file in tree.values()}.values()),
        readable=may_read(call, record),
    )


@routes.get(ONE + "/tree/{revision}", ONE + "/tree/{revision}/{path*}")
def files(call: Call) -> Response:
    record = call.repository("see")
    store = call.state.store
    commit = call.commit_of(record, call.values["revision"])
    folder = call.values.get("path", "").strip("/")
    tree = store.tree(record.key, commit)
    if not tree.has_folder(folder):
        raise missing_file(folder, commit)
    listing = list(tree.listing(folder).items())
    changes = store.last_changes(record.key, commit, [path for path, _ in listing[:200]])
    here, revision = parts_of(record), call.values["revision"]
    rows = []
    for path, entry in listing[:FILES_LIMIT]:
        place = path.split("/")
        is_file = isinstance(entry, TreeFile)
        rows.append(
            {
                "name": place[-1],
                "size": entry.size if isinstance(entry, TreeFile) else None,
                "href": address(call, *here, "resolve" if is_file else "tree", revision, *place),
                "change": changes.get(path),
            }
        )
    above = folder.split("/")[:-1] if folder else None
    return page(
        call,
        "files.html",
        title=f"Files of {record.id}",
        record=record,
        here=here,
        revision=revision,
        folder=folder,
        up=None if above is None else address(call, *here, "tree", revision, *above),
        rows=rows,
        left_out=max(0, len(listing) - FILES_LIMIT),
    )


@routes.get(ONE + "/commits/{revision}", ONE + "/commit/{revision}")
def history(call: Call) -> Response:
    record = call.repository("see")
    commit = call.commit_of(record, call.values["revision"])
    rows = []
    for row in call.state.store.history(record.key, commit):
        rows.append(row)
        if len(rows) == COMMITS:
            break
    return page(
        call,
        "history.html",
        title=f"History of {record.id}",
        record=record,
        here=parts_of(record),
        rows=rows,
        revision=call.values["revision"],
    )
