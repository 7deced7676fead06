"""Reading what repositories hold: trees, paths, references, history."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.errors import ConflictError, IntegrityError, NotFoundError, RefError
from modhub.server.errors import HTTPError, missing_file
from modhub.server.http.request import Request, form_fields, text_field
from modhub.server.http.routing import Routes
from modhub.server.protocol.documents import commit_json, file_json
from modhub.server.protocol.repositories import REPOSITORY, next_page
from modhub.store.records import HEADS, PULLS, TAGS, CommitRecord, RepositoryRecord
from modhub.store.tree import TreeFile, TreeFolder

routes = Routes()
PAGE, EXPANDED_PAGE = 1000, 50
PATHS_LIMIT = 5000


@routes.get(REPOSITORY + "/tree/{revision}", REPOSITORY + "/tree/{revision}/{path*}")
def list_tree(request: Request) -> Response:
    record = request.repository("see")
    commit = request.commit_of(record, request.values["revision"])
    folder = request.values.get("path", "").strip("/")
    tree = request.store.reader.tree(record.key, commit)
    if not tree.has_folder(folder):
        raise missing_file(folder, commit)
    items = tree.listing(folder, recursive=request.flag("recursive"))
    expand = request.flag("expand")
    size = EXPANDED_PAGE if expand else PAGE
    size, start = request.number("limit", size, size), request.number("cursor", 1, 10**9) - 1
    page = dict(list(items.items())[start : start + size])
    headers = next_page(request, start + size + 1) if start + size < len(items) else None
    return JSONResponse(_items(request, record, commit, page, expand), headers=headers)


@routes.post(REPOSITORY + "/paths-info/{revision}")
def paths_info(request: Request) -> Response:
    record = request.repository("see")
    commit = request.commit_of(record, request.values["revision"])
    if request.headers.get("content-type", "").startswith("application/json"):
        body = request.json()
        paths, expand = body.get("paths"), body.get("expand") is True
    else:
        form = form_fields(request.body.decode("utf-8", "replace"), limit=PATHS_LIMIT + 10)
        paths = [value for name, value in form if name in ("paths", "paths[]")]
        expand = any(name == "expand" and value.lower() == "true" for name, value in form)
    if not isinstance(paths, list) or len(paths) > PATHS_LIMIT:
        raise HTTPError(400, f'"paths" must be a list of at most {PATHS_LIMIT} paths')
    listing = request.store.reader.tree(record.key, commit).listing(recursive=True)
    entries = {path: listing[path] for path in paths if isinstance(path, str) and path in listing}
    return JSONResponse(_items(request, record, commit, entries, expand))


def _items(
    request: Request,
    record: RepositoryRecord,
    commit: str,
    entries: Mapping[str, TreeFile | TreeFolder],
    expand: bool,
) -> list[dict[str, object]]:
    changes: Mapping[str, CommitRecord] = {}
    if expand:
        changes = request.store.last_changes.of(record.key, commit, entries)
    return [file_json(path, entry, changes.get(path), expand) for path, entry in entries.items()]


@routes.get(REPOSITORY + "/refs")
def refs(request: Request) -> Response:
    record = request.repository("see")
    all_refs = request.store.reader.refs(record.key)

    def named(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref[len(prefix) :], "ref": ref, "targetCommit": commit}
            for ref, commit in sorted(all_refs.items())
            if ref.startswith(prefix)
        ]

    document = {"branches": named(HEADS), "tags": named(TAGS), "converts": []}
    if request.flag("include_prs"):
        document["pullRequests"] = named(PULLS)
    return JSONResponse(document)


@routes.get(REPOSITORY + "/commits/{revision}")
def commits(request: Request) -> Response:
    record = request.repository("see")
    commit = request.commit_of(record, request.values["revision"])
    size, page = request.number("limit", 100, PAGE), request.number("p", 0, 10**6)
    page = 0 if request.parameter("p") in ("", "0") else page
    start = request.number("cursor", page * size + 1, 10**9) - 1
    items: list[dict[str, object]] = []
    formatted = "formatted" in request.parameters("expand")
    for position, past in enumerate(request.store.reader.history(record.key, commit)):
        if position >= start + size:
            return JSONResponse(items, headers=next_page(request, start + size + 1))
        if position >= start:
            items.append(commit_json(past, formatted=formatted))
    return JSONResponse(items)


@routes.post(REPOSITORY + "/tag/{revision}")
def create_tag(request: Request) -> Response:
    record = request.repository("write")
    name = text_field(request.json(), "tag", limit=300)
    commit = request.commit_of(record, request.values["revision"])
    try:
        request.store.tags.create(record.key, name, revision=commit, actor=request.actor)
    except ConflictError:
        raise HTTPError(409, f"Reference refs/tags/{name} already exists") from None
    return PlainTextResponse("OK")


@routes.on("DELETE", REPOSITORY + "/tag/{tag}")
def delete_tag(request: Request) -> Response:
    record = request.repository("write")
    request.store.tags.delete(record.key, request.values["tag"], actor=request.actor)
    return PlainTextResponse("OK")


@routes.post(REPOSITORY + "/branch/{branch}")
def create_branch(request: Request) -> Response:
    record = request.repository("write")
    name = request.values["branch"]
    body = request.json()
    start = request.commit_of(record, text_field(body, "startingPoint", "main", limit=300))
    try:
        request.store.branches.create(record.key, name, revision=start, actor=request.actor)
    except ConflictError:
        raise HTTPError(409, f"Reference refs/heads/{name} already exists") from None
    return PlainTextResponse("OK")


@routes.on("DELETE", REPOSITORY + "/branch/{branch}")
def delete_branch(request: Request) -> Response:
    record = request.repository("write")
    name = request.values["branch"]
    try:
        request.store.branches.delete(record.key, name, actor=request.actor)
    except ConflictError:
        raise HTTPError(403, f"Cannot delete refs/heads/{name}") from None
    return PlainTextResponse("OK")


@routes.post(REPOSITORY + "/super-squash/{revision}")
def squash(request: Request) -> Response:
    record = request.repository("write")
    message = text_field(
        request.json(), "message", f"Super-squash branch '{request.values['revision']}'", limit=5000
    )
    try:
        squashed = request.store.commits.squash(
            record.key, request.values["revision"], title=message, actor=request.actor
        )
    except RefError as error:
        raise HTTPError(404, error.message, code="RevisionNotFound") from None
    return JSONResponse({"commitId": squashed.id})


@routes.get(REPOSITORY + "/lfs-files")
def lfs_files(request: Request) -> Response:
    record = request.repository("see")
    files: dict[str, dict[str, object]] = {}
    store = request.store
    for ref, head in sorted(store.reader.refs(record.key).items()):
        try:
            commit = store.reader.commit(record.key, head)
            tree = store.reader.tree_of(commit)
        except (IntegrityError, NotFoundError):
            # A tag whose commit is lost remains; the others are listed.
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
