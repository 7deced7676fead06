"""The front page: search and facets."""

from __future__ import annotations

import time
from dataclasses import replace

from starlette.responses import Response

from modhub.errors import RefError
from modhub.hub.index import IndexEntry, Query
from modhub.hub.server.call import Call
from modhub.hub.server.faults import nothing_here
from modhub.hub.server.pages.render import address, page, static_file
from modhub.hub.server.routing import Routes
from modhub.refs import slug_of

__all__ = ["routes"]

routes = Routes()
PAGE = 30
FACETS_SECONDS = 10.0
FACETS_KEPT = 500
FACETS = (
    ("class", "Class"),
    ("dataset", "Data set"),
    ("architecture", "Architecture"),
    ("license", "Licence"),
)
ORDERS = {"updated": "Last updated", "downloads": "Most downloaded", "created": "Newest", "name": "Name"}
_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@routes.get("/static/{file}")
def static(call: Call) -> Response:
    name = call.values["file"]
    content = static_file(name)
    if content is None:
        raise nothing_here()
    media = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
    return Response(content, headers={"Cache-Control": "public, max-age=3600"}, media_type=media)


@routes.get("/")
def front(call: Call) -> Response:
    chosen = {name: call.one(name)[:200] for name, _ in FACETS if call.one(name)}
    text = call.one("q")[:200]
    kind = "dataset" if call.one("kind") == "dataset" else "model"
    order = call.one("sort") if call.one("sort") in ORDERS else "updated"
    number = call.number("page", 1, 10_000)
    query = Query(
        kind=kind,
        tags=[f"{name}:{_facet_value(name, value)}" for name, value in chosen.items()],
        text=text,
        visible=None if call.principal.admin else call.principal.namespaces,
    )
    index = call.state.store.index
    entries = index.search(query, sort=order, limit=PAGE + 1, offset=(number - 1) * PAGE)
    # What every link of the page keeps of the present choice.
    state = {
        "q": text,
        "kind": kind if kind != "model" else "",
        "sort": order if order != "updated" else "",
        **chosen,
    }

    def facet(name: str) -> list[tuple[str, int, str]]:
        others = replace(query, tags=[tag for tag in query.tags if not tag.startswith(f"{name}:")])
        found = _facets(call, name, others)
        return [(value, count, address(call, **{**state, name: value})) for value, count in found]

    return page(
        call,
        "front.html",
        title="Modules and models",
        text=text,
        kind=kind,
        order=order,
        orders=ORDERS,
        chosen=chosen,
        without={name: address(call, **{**state, name: ""}) for name in chosen},
        facets=[(name, title, facet(name)) for name, title in FACETS],
        rows=[_row(call, entry) for entry in entries[:PAGE]],
        total=index.count(query),
        number=number,
        previous=address(call, **state, page=str(number - 1)) if number > 1 else "",
        following=address(call, **state, page=str(number + 1)) if len(entries) > PAGE else "",
        kinds={
            "model": address(call, **{**state, "kind": ""}),
            "dataset": address(call, **{**state, "kind": "dataset"}),
        },
    )


def _facets(call: Call, name: str, query: Query) -> list[tuple[str, int]]:
    """Counting 100,000 tags takes a while: what was counted for the same eyes lately is good enough."""
    visible = None if query.visible is None else tuple(sorted(query.visible))
    key = (name, query.kind, tuple(query.tags), query.text, visible)
    counted = call.state.facets.get(key)
    if counted is None or time.monotonic() - counted[0] > FACETS_SECONDS:
        counted = (time.monotonic(), call.state.store.index.facets(f"{name}:", query, limit=12))
        if len(call.state.facets) >= FACETS_KEPT:
            call.state.facets.clear()
        call.state.facets[key] = counted
    return counted[1]


def _facet_value(name: str, value: str) -> str:
    if name != "class":
        return value
    try:
        return slug_of(value)
    except RefError:
        return value


def _row(call: Call, entry: IndexEntry) -> dict[str, object]:
    def tagged(prefix: str) -> list[str]:
        return [tag[len(prefix) :] for tag in entry.tags if tag.startswith(prefix)]

    return {
        "entry": entry,
        "href": address(call, "" if entry.kind == "model" else "datasets", entry.id.namespace, entry.id.name),
        "classes": tagged("class:"),
        "datasets": tagged("dataset:"),
        "licenses": tagged("license:"),
        "architectures": tagged("architecture:"),
    }
