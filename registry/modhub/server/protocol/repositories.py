"""Repositories: create, delete, move, settings, information, lists; and who the token belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.errors import ConflictError, IntegrityError, ModhubError, RefError
from modhub.refs import RepositoryId
from modhub.server.auth.principal import authorize_namespace
from modhub.server.errors import HTTPError
from modhub.server.http.request import Request, text_field
from modhub.server.http.routing import Routes
from modhub.server.protocol.documents import EXPANDABLE, listed_json, repository_json, web_address
from modhub.store.index import IndexEntry, Query
from modhub.store.records import RepositoryKey, Settings
from modhub.store.tree import TreeFile

routes = Routes()
REPOSITORY = "/api/{kind}s/{namespace}/{name}"
KINDS = {"model": "model", "dataset": "dataset", None: "model"}
ORDERS = {
    "": "updated",
    "lastModified": "updated",
    "createdAt": "created",
    "downloads": "downloads",
    "likes": "downloads",
    "trendingScore": "downloads",
}
PAGE = 1000
_LARGE = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy "
    "*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* "
    "*.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
FIRST_FILES = {
    ".gitattributes": "".join(
        f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE.split()
    ).encode()
}
"""The first commit of every repository, as on huggingface.co."""


@routes.get("/api/whoami-v2")
def whoami(request: Request) -> Response:
    principal = request.principal
    if principal.name is None:
        raise HTTPError(401, "Invalid credentials in Authorization header")
    return JSONResponse(
        {
            "type": "user",
            "id": principal.name,
            "name": principal.name,
            "fullname": principal.name,
            "email": None,
            "emailVerified": True,
            "canPay": False,
            "periodEnd": None,
            "isPro": False,
            "avatarUrl": "",
            "orgs": [
                {
                    "type": "org",
                    "id": name,
                    "name": name,
                    "fullname": name,
                    "email": None,
                    "canPay": False,
                    "periodEnd": None,
                    "isEnterprise": False,
                    "avatarUrl": "",
                    "roleInOrg": principal.role,
                }
                for name in principal.organisations
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": principal.token or "session", "role": principal.role},
            },
        }
    )


@routes.post("/api/repos/create")
def create(request: Request) -> Response:
    body = request.json()
    key = _key_in(request, body)
    authorize_namespace(request.principal, key.id.namespace)
    request.state.refuse_when_read_only()
    private = {name.lower() for name in request.state.options.private_organisations}
    default = Settings(private=key.id.namespace.lower() in private)
    try:
        record = request.store.repositories.create(
            key, settings=_settings(default, body), files=FIRST_FILES, actor=request.actor
        )
    except ConflictError:
        url = web_address(request.base_url, request.store.repositories.get(key))
        message = f"You already created this {key.kind} repo"
        raise HTTPError(409, message, body={"url": url}) from None
    return JSONResponse(
        {"url": web_address(request.base_url, record), "id": str(record.id), "name": str(record.id)}
    )


@routes.on("DELETE", "/api/repos/delete")
def delete(request: Request) -> Response:
    record = request.permitted(_key_in(request, request.json()), "write")
    request.store.repositories.delete(record.key, actor=request.actor)
    return PlainTextResponse("OK")


@routes.post("/api/repos/move")
def move(request: Request) -> Response:
    body = request.json()
    kind = _kind(body)
    record = request.permitted(request.key_of(text_field(body, "fromRepo"), kind), "write")
    target = _id(text_field(body, "toRepo"))
    authorize_namespace(request.principal, target.namespace)
    try:
        request.store.repositories.move(record.key, target, actor=request.actor)
    except ConflictError:
        raise HTTPError(409, f"A {kind} repository called {target} already exists") from None
    return PlainTextResponse("OK")


@routes.on("PUT", REPOSITORY + "/settings")
def change_settings(request: Request) -> Response:
    record = request.repository("write")
    settings = _settings(record.settings, request.json())
    request.store.repositories.change_settings(record.key, settings, actor=request.actor)
    return JSONResponse({"private": settings.private, "gated": settings.gated or False})


@routes.get(REPOSITORY + "/auth-check", REPOSITORY + "/auth-check/{level}")
def auth_check(request: Request) -> Response:
    request.repository("write" if request.values.get("level") == "write" else "read")
    return JSONResponse({"ok": True})


@routes.post(REPOSITORY + "/duplicate")
def duplicate(request: Request) -> Response:
    """A copy of the newest files. Contents are stored once, so this is fast whatever the size."""
    source = request.repository("read")
    body = request.json()
    target = _key(source.kind, text_field(body, "repository"))
    authorize_namespace(request.principal, target.id.namespace)
    request.state.refuse_when_read_only()
    store = request.store
    tree = store.reader.tree(source.key)
    if lost := store.reader.lost(tree):
        raise IntegrityError(
            f"The contents of '{lost[0]}' in '{source.key}' are lost.", hint="Push them there again first."
        )
    try:
        # The gate stays until the copy's owner removes it.
        settings = _settings(
            source.settings, {"visibility": body.get("visibility"), "private": body.get("private")}
        )
        record = store.repositories.create(target, settings=settings, actor=request.actor)
    except ConflictError:
        url = web_address(request.base_url, store.repositories.get(target))
        raise HTTPError(409, f"You already created this {target.kind} repo", body={"url": url}) from None
    if tree:
        store.commits.copy_files(
            source.key, record.key, title=f"Duplicate from {source.id}", actor=request.actor
        )
    return JSONResponse({"url": web_address(request.base_url, record), "filesCopyPending": False})


@routes.get("/api/settings/repositories", "/api/organizations/{namespace}/settings/repositories")
def list_own_repositories(request: Request) -> Response:
    namespace = request.values.get("namespace") or request.principal.name or ""
    if request.principal.name is None:
        raise HTTPError(401, "Invalid credentials in Authorization header")
    if not request.principal.belongs_to(namespace):
        raise HTTPError(403, f"You are not a member of '{namespace}'.")
    entries = request.store.index.search(Query(kind=None, author=namespace), limit=10_000)
    return JSONResponse(
        [
            {
                "id": str(entry.id),
                "type": entry.kind,
                "updatedAt": entry.updated,
                "visibility": "private" if entry.private else "public",
                "storage": sum(file.size for file in _files(request, entry).values()),
                "storagePercent": 0,
            }
            for entry in entries
        ]
    )


@routes.get(REPOSITORY, REPOSITORY + "/revision/{revision}")
def information(request: Request) -> Response:
    record = request.repository("see")
    commit = request.commit_of(record, request.values.get("revision", "main"))
    store = request.store
    document = repository_json(
        store,
        record,
        store.reader.commit(record.key, commit),
        blobs=request.flag("blobs"),
        expand=request.parameters("expand"),
    )
    return JSONResponse(document)


@routes.get("/api/{kind}s")
def listing(request: Request) -> Response:
    order = ORDERS.get(request.parameter("sort"))
    if order is None:
        raise HTTPError(400, f'"sort" must be one of {", ".join(name for name in ORDERS if name)}')
    if unknown := sorted(set(request.parameters("expand")) - EXPANDABLE):
        raise HTTPError(400, f'"expand" has no value {unknown[0][:50]!r}')
    for unsupported in ("num_parameters", "apps", "inference_provider", "inference"):
        if request.parameter(unsupported):
            raise HTTPError(400, f'This hub cannot filter by "{unsupported}"')
    tags = [
        tag
        for tag in (
            *request.parameters("filter"),
            *request.parameters("pipeline_tag"),
            *request.parameters("library"),
        )
        if tag
    ]
    gated = request.parameter("gated").lower()
    query = Query(
        kind=request.kind,
        tags=tags[:50],
        text=request.parameter("search")[:200],
        author=request.parameter("author")[:200],
        gated={"true": True, "false": False}.get(gated),
        visible=request.principal.visible,
    )
    limit, start = request.number("limit", PAGE, PAGE), request.number("cursor", 1, 10**9) - 1
    entries = request.store.index.search(query, sort=order, limit=limit + 1, offset=start)
    full = request.flag("full")
    expand = request.parameters("expand")
    items = [
        listed_json(entry, expand, full=full, card=full or request.flag("cardData"))
        for entry in entries[:limit]
    ]
    if full or "siblings" in expand:
        for item, entry in zip(items, entries, strict=False):
            item["siblings"] = [{"rfilename": path} for path in _files(request, entry)]
    return JSONResponse(
        items, headers=next_page(request, start + limit + 1) if len(entries) > limit else None
    )


def _files(request: Request, entry: IndexEntry) -> Mapping[str, TreeFile]:
    """Its newest files; empty where they are lost, so that a damaged repository breaks no list."""
    try:
        return request.store.reader.tree(entry.key, entry.head)
    except (ModhubError, OSError):
        return {}


def next_page(request: Request, cursor: int) -> dict[str, str]:
    """The header with the address of the list's next page."""
    query = [(name, value) for name, value in request.query if name != "cursor"]
    raw = request.raw_path
    return {"Link": f'<{request.base_url}{raw}?{urlencode([*query, ("cursor", str(cursor))])}>; rel="next"'}


def _kind(body: dict[str, Any]) -> str:
    kind = body.get("type")
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise HTTPError(400, f'This hub has no repositories of type "{str(kind)[:30]}"')
    return kind or "model"


def _key_in(request: Request, body: dict[str, Any]) -> RepositoryKey:
    """The repository of a body `{name, organization, type}`; `name` may be `namespace/name`."""
    name = text_field(body, "name")
    if "/" in name:
        return _key(_kind(body), name)
    namespace = text_field(body, "organization", request.principal.name or "")
    if not namespace:
        raise HTTPError(401, "Invalid credentials in Authorization header")
    return _key(_kind(body), f"{namespace}/{name}")


def _key(kind: str, text: str) -> RepositoryKey:
    return RepositoryKey(kind, _id(text))


def _id(text: str) -> RepositoryId:
    try:
        return RepositoryId.parse(text)
    except RefError as error:
        raise HTTPError(400, str(error)) from None


def _settings(settings: Settings, body: dict[str, Any]) -> Settings:
    """`visibility` (2.x) or `private` (0.36), `gated`, and modhub's `readers`."""
    if (visibility := body.get("visibility")) is not None:
        if visibility not in ("public", "private"):
            raise HTTPError(400, '"visibility" must be public or private')
        settings = replace(settings, private=visibility == "private")
    if (private := body.get("private")) is not None:
        if not isinstance(private, bool):
            raise HTTPError(400, '"private" must be true or false')
        settings = replace(settings, private=private)
    if (gated := body.get("gated")) is not None:
        if gated not in (False, "auto", "manual"):
            raise HTTPError(400, '"gated" must be auto, manual or false')
        settings = replace(settings, gated=gated or "")
    if (readers := body.get("readers")) is not None:
        if not isinstance(readers, list) or not all(isinstance(name, str) and name for name in readers):
            raise HTTPError(400, '"readers" must be a list of user names')
        settings = replace(settings, readers=tuple(dict.fromkeys(name[:100] for name in readers[:10_000])))
    return settings
