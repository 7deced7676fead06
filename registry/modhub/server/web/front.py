"""The front page: search and facets."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from starlette.responses import Response

from modhub.errors import RefError
from modhub.labels import slug_of
from modhub.manifest.card import class_tag
from modhub.server.errors import not_found
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.render import address, page, static_file, static_version
from modhub.server.web.repository_view import VisibleRepositories
from modhub.store.index import IndexEntry, Query

routes = Routes()
PAGE = 30
VALUES = 12
VALUES_LIMIT = 2000
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
def static(request: Request) -> Response:
    name = request.values["file"]
    content = static_file(name)
    if content is None:
        raise not_found()
    kept = request.parameter("v") == static_version(name)
    cached = "public, max-age=31536000, immutable" if kept else "no-cache"
    media = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
    return Response(content, headers={"Cache-Control": cached}, media_type=media)


@routes.get("/")
def front(request: Request) -> Response:
    chosen = {name: request.parameter(name)[:200] for name, _ in FACETS if request.parameter(name)}
    text = request.parameter("q")[:200]
    kind = "dataset" if request.parameter("kind") == "dataset" else "model"
    order = request.parameter("sort") if request.parameter("sort") in ORDERS else "updated"
    author = request.parameter("author")[:200]
    tags = [f"{name}:{_facet_value(name, value)}" for name, value in chosen.items()]
    query = Query(
        kind=kind,
        tags=tags,
        text=text,
        author=author,
        visible=request.principal.visible,
    )
    index = request.store.index
    total = index.count(query)
    # A page number beyond the end shows the last page.
    pages = max(1, -(-total // PAGE))
    number = min(request.number("page", 1, 10_000), pages)
    entries = index.search(query, sort=order, limit=PAGE, offset=(number - 1) * PAGE)
    # The query of every link on the page.
    state = {
        "q": text,
        "kind": kind if kind != "model" else "",
        "sort": order if order != "updated" else "",
        "author": author,
        **chosen,
    }

    opened = request.parameter("all")

    def facet(name: str) -> tuple[list[tuple[str, int, str]], str]:
        """The commonest values with their addresses, and the address of all where there are more."""
        others = replace(query, tags=[tag for tag in query.tags if not tag.startswith(f"{name}:")])
        limit = VALUES_LIMIT if name == opened else VALUES
        values = _facets(request, name, others, limit + 1)
        more = address(request, **{**state, "all": name}) if len(values) > limit and name != opened else ""
        return [
            (value, count, address(request, **{**state, name: value})) for value, count in values[:limit]
        ], more

    near: list[str] = []
    if text and not total:
        with suppress(RefError):
            near = VisibleRepositories(request.store, request.principal).nearest(text)
    other = "model" if kind == "dataset" else "dataset"
    return page(
        request,
        "front.html",
        title=_title(text, author, kind, number),
        text=text,
        kind=kind,
        order=order,
        orders=ORDERS,
        chosen=chosen,
        without={name: address(request, **{**state, name: ""}) for name in chosen},
        facets=[(name, title, *facet(name)) for name, title in FACETS],
        author=author,
        without_author=address(request, **{**state, "author": ""}),
        rows=[_row(request, entry, {tag for tag in tags if tag.startswith("class:")}) for entry in entries],
        total=total,
        number=number,
        pages=pages,
        near=[(name, address(request, **{**state, "q": name})) for name in near],
        same_name=_class_of_that_name(request, query),
        others=index.count(replace(query, kind=other)) if not total else 0,
        empty=not total and not index.count(Query(kind=None, visible=query.visible)),
        previous=address(request, **state, page=str(number - 1)) if number > 1 else "",
        following=address(request, **state, page=str(number + 1)) if number < pages else "",
        kinds={
            "model": address(request, **{**state, "kind": ""}),
            "dataset": address(request, **{**state, "kind": "dataset"}),
        },
    )


def _facets(request: Request, name: str, query: Query, limit: int) -> list[tuple[str, int]]:
    """Facets, cached for `FACETS_SECONDS` by query and visibility: counting 100,000 tags takes a while."""
    visible = None if query.visible is None else tuple(sorted(query.visible))
    key = (name, limit, query.kind, tuple(query.tags), query.text, query.author, visible)
    counted = request.state.facets.get(key)
    if counted is None or time.monotonic() - counted[0] > FACETS_SECONDS:
        counted = (time.monotonic(), request.store.index.facets(f"{name}:", query, limit=limit))
        if len(request.state.facets) >= FACETS_KEPT:
            request.state.facets.clear()
        request.state.facets[key] = counted
    return counted[1]


def _title(text: str, author: str, kind: str, number: int) -> str:
    what = "Data sets" if kind == "dataset" else "Modules and models"
    sought = f"“{text}” – " if text else ""
    return f"{sought}{what}{f' of {author}' if author else ''}{f', page {number}' if number > 1 else ''}"


def _class_of_that_name(request: Request, query: Query) -> dict[str, object] | None:
    """Number and addresses of the repositories with the class of that name: a text search matches names, too
    (`cat` in `big-cats`)."""
    try:
        name = slug_of(query.text)
    except RefError:
        return None
    number = request.store.index.count(Query(tags=["modhub", class_tag(query.text)], visible=query.visible))
    if not number:
        return None
    return {
        "name": name,
        "number": number,
        "only": address(request, **{"class": name}),
        "compare": address(request, "compose", q=query.text),
    }


def _facet_value(name: str, value: str) -> str:
    if name != "class":
        return value
    try:
        return slug_of(value)
    except RefError:
        return value


def _row(request: Request, entry: IndexEntry, wanted: set[str]) -> dict[str, object]:
    def tagged(prefix: str) -> list[str]:
        # The class searched for comes first, as only the first few are shown.
        tags = sorted(
            (tag for tag in entry.tags if tag.startswith(prefix)), key=lambda tag: tag not in wanted
        )
        return [tag[len(prefix) :] for tag in tags]

    return {
        "entry": entry,
        "href": address(
            request, "" if entry.kind == "model" else "datasets", entry.id.namespace, entry.id.name
        ),
        "classes": tagged("class:"),
        "datasets": tagged("dataset:"),
        "licenses": tagged("license:"),
        "architectures": tagged("architecture:"),
    }
