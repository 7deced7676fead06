"""A trunk's page: every class that anybody has published on it, to compose in one pass."""

from __future__ import annotations

import shlex
import time

from starlette.responses import Response

from modhub.server.errors import HTTPError
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.web.choices import Match, choice_of, matches_in, rank
from modhub.server.web.render import page
from modhub.server.web.repository_view import READING_SECONDS, VisibleRepositories

routes = Routes()
ROWS = 200
_SOURCES = ("timm:", "torchvision:", "hf:")
"""Parents that others can name, too."""


@routes.get("/trunks/{digest}")
def trunk(request: Request) -> Response:
    digest, text = request.values["digest"], " ".join(request.parameter("q")[:200].split())
    until = time.monotonic() + READING_SECONDS
    catalogue = VisibleRepositories(request.store, request.principal, until)
    matches = matches_in(catalogue, catalogue.on_trunk(digest), trunk=digest)
    if not matches:
        raise HTTPError(404, f"Nobody has published modules on the trunk {digest[:12]} here.")
    fitting = sorted((match for match in matches if _is_named(match, text)), key=rank, reverse=True)
    # Of the modules of a class the best comes first.
    fitting.sort(key=lambda match: match.entry.label.casefold())
    manifest = matches[0].manifest
    sources = sorted({name for match in matches if (name := match.manifest.parent.name).startswith(_SOURCES)})
    return page(
        request,
        "trunk.html",
        title=f"Trunk {digest[:12]} ({manifest.parent.architecture})",
        digest=digest,
        architecture=manifest.parent.architecture,
        info=manifest.trunk_of(matches[0].entry),
        source=shlex.quote(sources[0]) if sources else "",
        text=text,
        classes=len({match.entry.label.casefold() for match in matches}),
        modules=len(matches),
        repositories=len({match.repository for match in matches}),
        fitting=len(fitting),
        choices=[choice_of(request, catalogue, match) for match in fitting[:ROWS]],
    )


def _is_named(match: Match, text: str) -> bool:
    """Whether every word of `text` is in one of the class's names, or in the repository's."""
    names = (match.entry.label, *match.entry.aliases, str(match.repository))
    return all(any(word in name.casefold() for name in names) for word in text.casefold().split())
