"""Reading what repositories hold: trees, paths, references, history."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.errors import ConflictError, IntegrityError, NotFoundError, RefError
from modhub.server.api_repositories import ONE, next_page
from modhub.server.call import Call, form_fields, text_field
from modhub.server.describe import commit_json, file_json
from modhub.server.faults import Fault
from modhub.server.routing import Routes
from modhub.store.records import CommitRecord, RepositoryRecord
from modhub.store.store import HEADS, TAGS
from modhub.store.tree import TreeFile, TreeFolder

__all__ = ["routes"]

routes = Routes()
PAGE, EXPANDED_PAGE = 1000, 50
PATHS_LIMIT = 5000


@routes.get(ONE + "/tree/{revision}", ONE + "/tree/{revision}/{path*}")
def tree(call: Call) -> Response:
    record = call.repository("see")
    commit = call.commit_of(record, call.values["revision"])
    folder = call.values.get("path", "").strip("/")
    whole = call.state.store.tree(record.key, commit)
    if not whole.has_folder(folder):
        raise missing_file(folder, commit)
    items = whole.listing(folder, recursive=call.flag("recursive"))
    expand = call.flag("expand")
    size = EXPANDED_PAGE if expand else PAGE
    size, start = call.number("limit", size, size), call.number("cursor", 1, 10**9) - 1
    page = dict(list(items.items())[start : start + size])
    headers = next_page(call, start + size + 1) if start + size < len(items) else None
    return JSONResponse(_items(call, record, commit, page, expand), headers=headers)


@routes.post(ONE + "/paths-info/{revision}")
def paths_info(call: Call) -> Response:
    record = call.repository("see")
    commit = call.commit_of(record, call.values["revision"])
    if call.request.headers.get("content-type", "").startswith("application/json"):
        body = call.json()
        paths, expand = body.get("paths"), body.get("expand") is True
    else:
        form = form_fields(call.body.decode("utf-8", "replace"), limit=PATHS_LIMIT + 10)
        paths = [value for name, value in form if name in ("paths", "paths[]")]
        expand = any(name == "expand" and value.lower() == "true" for name, value in form)
    if not isinstance(paths, list) or len(paths) > PATHS_LIMIT:
        raise Fault(400, f'"paths" must be a list of at most {PATHS_LIMIT} paths')
    whole = call.state.store.tree(record.key, commit).listing(recursive=True)
    found = {path: whole[path] for path in paths if isinstance(path, str) and path in whole}
    return JSONResponse(_items(call, record, commit, found, expand))


def _items(
    call: Call,
    record: RepositoryRecord,
    commit: str,
    entries: Mapping[str, TreeFile | TreeFolder],
    expand: bool,
) -> list[dict[str, object]]:
    changes: Mapping[str, CommitRecord] = {}
    if expand:
        changes = call.state.store.last_changes(record.key, commit, entries)
    return [file_json(path, entry, changes.get(path), expand) for path, entry in entries.items()]


@routes.get(ONE + "/refs")
def refs(call: Call) -> Response:
    record = call.repository("see")
    all_refs = call.state.store.refs(record.key)

    def below(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref[len(prefix) :], "ref": ref, "targetCommit": commit}
            for ref, commit in sorted(all_refs.items())
            if ref.startswith(prefix)
        ]

    document = {"branches": below(HEADS), "tags": below(TAGS), "converts": []}
    if call.flag("include_prs"):
        document["pullRequests"] = below("refs/pr/")
    return JSONResponse(document)


@routes.get(ONE + "/commits/{revision}")
def commits(call: Call) -> Response:
    record = call.repository("see")
    commit = call.commit_of(record, call.values["revision"])
    size, page = call.number("limit", 100, PAGE), call.number("p", 0, 10**6)
    page = 0 if call.one("p") in ("", "0") else page
    start = call.number("cursor", page * size + 1, 10**9) - 1
    items: list[dict[str, object]] = []
    for position, one in enumerate(call.state.store.history(record.key, commit)):
        if position >= start + size:
            return JSONResponse(items, headers=next_page(call, start + size + 1))
        if position >= start:
            items.append(commit_json(one))
    return JSONResponse(items)


@routes.post(ONE + "/tag/{revision}")
def create_tag(call: Call) -> Response:
    record = call.repository("write")
    name = text_field(call.json(), "tag", limit=300)
    commit = call.commit_of(record, call.values["revision"])
    try:
        call.state.store.create_tag(record.key, name, revision=commit, actor=call.actor)
    except ConflictError:
        raise Fault(409, f"Reference refs/tags/{name} already exists") from None
    return PlainTextResponse("OK")


@routes.on("DELETE", ONE + "/tag/{tag}")
def delete_tag(call: Call) -> Response:
    record = call.repository("write")
    call.state.store.delete_tag(record.key, call.values["tag"], actor=call.actor)
    return PlainTextResponse("OK")


@routes.post(ONE + "/branch/{branch}")
def create_branch(call: Call) -> Response:
    record = call.repository("write")
    name = call.values["branch"]
    body = call.json()
    start = call.commit_of(record, text_field(body, "startingPoint", "main", limit=300))
    try:
        call.state.store.create_branch(record.key, name, revision=start, actor=call.actor)
    except ConflictError:
        raise Fault(409, f"Reference refs/heads/{name} already exists") from None
    return PlainTextResponse("OK")


@routes.on("DELETE", ONE + "/branch/{branch}")
def delete_branch(call: Call) -> Response:
    record = call.repository("write")
    name = call.values["branch"]
    try:
        call.state.store.delete_branch(record.key, name, actor=call.actor)
    except ConflictError:
        raise Fault(403, f"Cannot delete refs/heads/{name}") from None
    return PlainTextResponse("OK")


@routes.post(ONE + "/super-squash/{revision}")
def squash(call: Call) -> Response:
    record = call.repository("write")
    message = text_field(
        call.json(), "message", f"Super-squash branch '{call.values['revision']}'", limit=5000
    )
    try:
        squashed = call.state.store.squash(
            record.key, call.values["revision"], title=message, actor=call.actor
        )
    except RefError as error:
        raise Fault(404, error.message, code="RevisionNotFound") from None
    return JSONResponse({"commitId": squashed.id})


@routes.get(ONE + "/lfs-files")
def lfs_files(call: Call) -> Response:
    record = call.repository("see")
    files: dict[str, dict[str, object]] = {}
    store = call.state.store
    for ref, head in sorted(store.refs(record.key).items()):
        try:
            commit = store.commit_record(record.key, head)
            tree = store.tree_of(commit)
        except (IntegrityError, NotFoundError):
            # A tag whose commit is lost stays; the others can be told.
            continue
        for path, file in tree.items():
            if file.lfs:
                files.setdefault(
                    file.sha256,
                    {
                        "fileOid": file.git_oid,
                        "filename": path,
                        "oid": file.sha256,
                        "pushedAt": commit.date,
                        "ref": ref,
                        "size": file.size,
                    },
                )
    return JSONResponse(list(files.values()))


def missing_file(path: str, commit: str) -> Fault:
    """404 for a path that a commit has not; the commit in the header lets clients remember the absence."""
    return Fault(
        404, f"Entry not found: {path[:200]}", code="EntryNotFound", headers={"X-Repo-Commit": commit}
    )
