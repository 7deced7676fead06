"""What a person sees when something goes wrong."""

from __future__ import annotations

from starlette.responses import Response

from modhub.server.errors import HTTPError
from modhub.server.http.request import Request
from modhub.server.web.render import address, page

__all__ = ["error_page"]

_TITLES = {401: "Log in to see this", 403: "Not allowed", 404: "Not found", 500: "The server failed"}


def error_page(request: Request, error: HTTPError) -> Response:
    """The error as a page. A private repository and a missing one look the same."""
    title, message = _TITLES.get(error.status, "That did not work"), error.message
    values = request.values
    name = f"{values['namespace']}/{values['name']}" if "namespace" in values and "name" in values else ""
    repository = ""
    # The protocol's own words, which clients look for, say little to people.
    if error.code == "RepoNotFound":
        title = "There is no such repository here"
        if name:
            message = f"There is no repository {name[:200]}, or it may not be seen by everybody."
    elif name:
        parts = ("datasets" if request.kind == "dataset" else "", values["namespace"], values["name"])
        repository = address(request, *parts)
        if error.code == "RevisionNotFound":
            title = "There is no such release or branch here"
            revision = values.get("revision") or request.parameter("revision")
            message = f"“{revision[:100]}” names no release, branch or commit of {name}."
        elif error.code == "EntryNotFound":
            title = "There is no such file here"
            message = f"{name} has no file or folder “{values.get('path', '')[:200]}” at this revision."
    return page(
        request,
        "error.html",
        status=error.status,
        title=title,
        message=message,
        code=error.status,
        repository=repository,
        name=name,
    )
