"""Repositories as wholes: who am I, create, delete, move, settings, information, lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.errors import ConflictError, IntegrityError, NotFoundError, RefError
from modhub.refs import RepositoryId
from modhub.server.call import Call, text_field
from modhub.server.describe import EXPANDABLE, listed_json, repository_json, web_address
from modhub.server.faults import Fault
from modhub.server.principal import authorize_namespace
from modhub.server.routing import Routes
from modhub.store.index import IndexEntry, Query
from modhub.store.records import RepositoryKey, Settings
from modhub.store.tree import TreeFile

__all__ = ["routes"]

routes = Routes()
ONE = "/api/{kind}s/{namespace}/{name}"
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


@routes.get("/api/whoami-v2")
def whoami(call: Call) -> Response:
    who = call.principal
    if who.name is None:
        raise Fault(401, "Invalid credentials in Authorization header")
    return JSONResponse(
        {
            "type": "user",
            "id": who.name,
            "name": who.name,
            "fullname": who.name,
            "email": None,
            "isPro": False,
            "orgs": [
                {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": who.role}
                for name in who.organisations
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": who.token or "session", "role": who.role},
            },
        }
    )


@routes.post("/api/repos/create")
def create(call: Call) -> Response:
    body = call.json()
    key = _named(call, body)
    authorize_namespace(call.principal, key.id.namespace)
    call.state.refuse_when_read_only()
    try:
        record = call.state.store.create_repository(
            key, settings=_settings(Settings(), body), actor=call.actor
        )
    except ConflictError:
        url = web_address(call.base_url, call.state.store.repository(key))
        message = f"You already created this {key.kind} repo"
        raise Fault(409, message, body={"url": url}) from None
    return JSONResponse(
        {"url": web_address(call.base_url, record), "id": str(record.id), "name": str(record.id)}
    )


@routes.on("DELETE", "/api/repos/delete")
def delete(call: Call) -> Response:
    record = call.permitted(_named(call, call.json()), "write")
    call.state.store.delete_repository(record.key, actor=call.actor)
    return PlainTextResponse("OK")


@routes.post("/api/repos/move")
def move(call: Call) -> Response:
    body = call.json()
    kind = _kind(body)
    record = call.permitted(call.key_of(text_field(body, "fromRepo"), kind), "write")
    target = _id(text_field(body, "toRepo"))
    authorize_namespace(call.principal, target.namespace)
    try:
        call.state.store.move_repository(record.key, target, actor=call.actor)
    except ConflictError:
        raise Fault(409, f"A {kind} repository called {target} already exists") from None
    return PlainTextResponse("OK")


@routes.on("PUT", ONE + "/settings")
def change_settings(call: Call) -> Response:
    record = call.repository("write")
    settings = _settings(record.settings, call.json())
    call.state.store.change_settings(record.key, settings, actor=call.actor)
    return JSONResponse({"private": settings.private, "gated": settings.gated or False})


@routes.get(ONE + "/auth-check", ONE + "/auth-check/{level}")
def auth_check(call: Call) -> Response:
    call.repository("write" if call.values.get("level") == "write" else "read")
    return JSONResponse({"ok": True})


@routes.post(ONE + "/duplicate")
def duplicate(call: Call) -> Response:
    """A copy of the newest files. Their bytes are held once, so this takes a moment whatever the size."""
    source = call.repository("read")
    body = call.json()
    target = _key(source.kind, text_field(body, "repository"))
    authorize_namespace(call.principal, target.id.namespace)
    call.state.refuse_when_read_only()
    store = call.state.store
    tree = store.tree(source.key)
    if lost := store.lost(tree):
        raise IntegrityError(
            f"The contents of '{lost[0]}' in '{source.key}' are lost.", hint="Push them there again first."
        )
    try:
        settings = _settings(Settings(private=source.settings.private), body)
        record = store.create_repository(target, settings=settings, actor=call.actor)
    except ConflictError:
        url = web_address(call.base_url, store.repository(target))
        raise Fault(409, f"You already created this {target.kind} repo", body={"url": url}) from None
    if tree:
        store.copy_files(source.key, record.key, title=f"Duplicate from {source.id}", actor=call.actor)
    return JSONResponse({"url": web_address(call.base_url, record), "filesCopyPending": False})


@routes.get("/api/settings/repositories", "/api/organizations/{namespace}/settings/repositories")
def own_repositories(call: Call) -> Response:
    namespace = call.values.get("namespace") or call.principal.name or ""
    if call.principal.name is None:
        raise Fault(401, "Invalid credentials in Authorization header")
    if not call.principal.belongs_to(namespace):
        raise Fault(403, f"You are not a member of '{namespace}'.")
    entries = call.state.store.index.search(Query(kind=None, author=namespace), limit=10_000)
    return JSONResponse(
        [
            {
                "id": str(entry.id),
                "type": entry.kind,
                "updatedAt": entry.updated,
                "visibility": "private" if entry.private else "public",
                "storage": sum(file.size for file in _files(call, entry).values()),
                "storagePercent": 0,
            }
            for entry in entries
        ]
    )


@routes.get(ONE, ONE + "/revision/{revision}")
def information(call: Call) -> Response:
    record = call.repository("see")
    commit = call.commit_of(record, call.values.get("revision", "main"))
    store = call.state.store
    document = repository_json(
        store,
        record,
        store.commit_record(record.key, commit),
        blobs=call.flag("blobs"),
        wanted=call.many("expand"),
    )
    return JSONResponse(document)


@routes.get("/api/{kind}s")
def listing(call: Call) -> Response:
    order = ORDERS.get(call.one("sort"))
    if order is None:
        raise Fault(400, f'"sort" must be one of {", ".join(name for name in ORDERS if name)}')
    if unknown := sorted(set(call.many("expand")) - EXPANDABLE):
        raise Fault(400, f'"expand" does not know {unknown[0][:50]}')
    for unsupported in ("num_parameters", "apps", "inference_provider", "inference"):
        if call.one(unsupported):
            raise Fault(400, f'This hub cannot filter by "{unsupported}"')
    tags = [tag for tag in (*call.many("filter"), *call.many("pipeline_tag"), *call.many("library")) if tag]
    gated = call.one("gated").lower()
    query = Query(
        kind=call.kind,
        tags=tags[:50],
        text=call.one("search")[:200],
        author=call.one("author")[:200],
        gated={"true": True, "false": False}.get(gated),
        visible=None if call.principal.admin else call.principal.namespaces,
    )
    limit, start = call.number("limit", PAGE, PAGE), call.number("cursor", 1, 10**9) - 1
    entries = call.state.store.index.search(query, sort=order, limit=limit + 1, offset=start)
    full = call.flag("full")
    wanted = call.many("expand")
    items = [
        listed_json(one, wanted, full=full, card=full or call.flag("cardData")) for one in entries[:limit]
    ]
    if full or "siblings" in wanted:
        for item, entry in zip(items, entries, strict=False):
            item["siblings"] = [{"rfilename": path} for path in _files(call, entry)]
    return JSONResponse(items, headers=next_page(call, start + limit + 1) if len(entries) > limit else None)


def _files(call: Call, entry: IndexEntry) -> Mapping[str, TreeFile]:
    """Its newest files; none where they are lost: one damaged repository keeps no other out of a list."""
    try:
        return call.state.store.tree(entry.key, entry.head)
    except (IntegrityError, NotFoundError):
        return {}


def next_page(call: Call, cursor: int) -> dict[str, str]:
    """The header that says where the list goes on."""
    query = [(name, value) for name, value in call.query if name != "cursor"]
    raw = call.request.scope["raw_path"].decode("latin-1").partition("?")[0]
    return {"Link": f'<{call.base_url}{raw}?{urlencode([*query, ("cursor", str(cursor))])}>; rel="next"'}


def _kind(body: dict[str, Any]) -> str:
    kind = body.get("type")
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise Fault(400, f'This hub has no repositories of type "{str(kind)[:30]}"')
    return kind or "model"


def _named(call: Call, body: dict[str, Any]) -> RepositoryKey:
    """The repository of a body `{name, organization, type}`; `name` may be `namespace/name`."""
    name = text_field(body, "name")
    if "/" in name:
        return _key(_kind(body), name)
    namespace = text_field(body, "organization", call.principal.name or "")
    if not namespace:
        raise Fault(401, "Invalid credentials in Authorization header")
    return _key(_kind(body), f"{namespace}/{name}")


def _key(kind: str, text: str) -> RepositoryKey:
    return RepositoryKey(kind, _id(text))


def _id(text: str) -> RepositoryId:
    try:
        return RepositoryId.parse(text)
    except RefError as error:
        raise Fault(400, str(error)) from None


def _settings(settings: Settings, body: dict[str, Any]) -> Settings:
    """`visibility` (2.x) or `private` (0.36), `gated`, and our own `readers`."""
    if (visibility := body.get("visibility")) is not None:
        if visibility not in ("public", "private"):
            raise Fault(400, '"visibility" must be public or private')
        settings = replace(settings, private=visibility == "private")
    if (private := body.get("private")) is not None:
        if not isinstance(private, bool):
            raise Fault(400, '"private" must be true or false')
        settings = replace(settings, private=private)
    if (gated := body.get("gated")) is not None:
        if gated not in (False, "auto", "manual"):
            raise Fault(400, '"gated" must be auto, manual or false')
        settings = replace(settings, gated=gated or "")
    if (readers := body.get("readers")) is not None:
        if not isinstance(readers, list) or not all(isinstance(one, str) and one for one in readers):
            raise Fault(400, '"readers" must be a list of user names')
        settings = replace(settings, readers=tuple(dict.fromkeys(one[:100] for one in readers[:10_000])))
    return settings
