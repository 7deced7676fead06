"""Routes on the raw path: revisions and file paths come with `/` percent-encoded and must stay in one piece.

Patterns: `/api/{kind}s/{namespace}/{name}/tree/{revision}/{path*}`. `{x}` is one
segment, `{x*}` one or more; `{digest}` is 64 hex digits, `{kind}` is `model` or `dataset`, `{web}` is nothing
or `datasets/` before an id. A revision may have several plain segments (`refs/pr/1`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.responses import Response

from modhub.server.errors import HTTPError, not_found

if TYPE_CHECKING:
    from modhub.server.http.request import Request


_FIELD = re.compile(r"\{(\w+)(\*?)\}")
_SPECIAL = {
    "kind": r"(?P<kind>model|dataset)",
    "digest": r"(?P<digest>[0-9a-f]{64})",
    "web": r"(?P<web>(?:datasets/)?)",
    "revision": r"(?P<revision>refs/(?:pr|heads|tags|convert)/[^/]+|[^/]+)",
}

SyncHandler = Callable[["Request"], Response]
AsyncHandler = Callable[["Request"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """A route. `body_limit` is in bytes; a streaming handler reads the body itself."""

    method: str
    pattern: str
    handler: SyncHandler | AsyncHandler
    body_limit: int
    streams: bool
    expression: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request and the decoded pieces of its path."""

    route: Route
    values: dict[str, str]


class Routes:
    """Collects the routes of one file, in the order in which they are tried."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def get(self, *patterns: str) -> Callable[[SyncHandler], SyncHandler]:
        return self.on("GET", *patterns)

    def post(self, *patterns: str, body_limit: int = 1 << 20) -> Callable[[SyncHandler], SyncHandler]:
        return self.on("POST", *patterns, body_limit=body_limit)

    def on(
        self, method: str, *patterns: str, body_limit: int = 1 << 20
    ) -> Callable[[SyncHandler], SyncHandler]:
        """A handler that runs in a worker thread once the body (at most `body_limit` bytes) is complete."""

        def register(handler: SyncHandler) -> SyncHandler:
            for pattern in patterns:
                self.all.append(Route(method, pattern, handler, body_limit, False, _compile(pattern)))
            return handler

        return register

    def stream(self, method: str, *patterns: str) -> Callable[[AsyncHandler], AsyncHandler]:
        """A handler on the event loop that reads the body piece by piece."""

        def register(handler: AsyncHandler) -> AsyncHandler:
            for pattern in patterns:
                self.all.append(Route(method, pattern, handler, 0, True, _compile(pattern)))
            return handler

        return register


class Router:
    """All routes of the server."""

    def __init__(self, *groups: Routes) -> None:
        self.routes = tuple(route for group in groups for route in group.all)

    def match(self, method: str, raw_path: str) -> Match:
        """The route for a request; HEAD is answered wherever GET is. Raises `HTTPError` 400, 404 or 405."""
        allowed: set[str] = set()
        wanted = "GET" if method == "HEAD" else method
        for route in self.routes:
            match = route.expression.match(raw_path)
            if match is None:
                continue
            if route.method != wanted:
                allowed.add(route.method)
                continue
            return Match(route, {name: _decoded(text or "") for name, text in match.groupdict().items()})
        if allowed:
            allowed |= {"HEAD"} if "GET" in allowed else set()
            raise HTTPError(
                405, f"Method {method} is not allowed.", headers={"Allow": ", ".join(sorted(allowed))}
            )
        raise not_found(_code_for(raw_path))


def _code_for(raw_path: str) -> str:
    """The error code: an id of one segment is a repository that cannot exist."""
    single = re.match(r"/api/(?:models|datasets|spaces|kernels)/[^/]+(?:/(?:revision|tree)/.*)?\Z", raw_path)
    web = re.match(r"/(?:(?:datasets|spaces|kernels)/)?[^/]+(?:/[^/]+)?/resolve/", raw_path)
    return "RepoNotFound" if single or web else ""


def _compile(pattern: str) -> re.Pattern[str]:
    text, last = "", 0
    for field in _FIELD.finditer(pattern):
        text += re.escape(pattern[last : field.start()])
        name, many = field.groups()
        text += _SPECIAL.get(name) or (f"(?P<{name}>.+)" if many else f"(?P<{name}>[^/]+)")
        last = field.end()
    return re.compile(text + re.escape(pattern[last:]) + r"/?\Z", re.DOTALL)


def _decoded(text: str) -> str:
    try:
        value = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise HTTPError(400, "The URL is not valid UTF-8.") from None
    if "\0" in value:
        raise HTTPError(400, "The URL contains a null byte.")
    return value
