"""Error pages."""

from __future__ import annotations

from starlette.responses import Response

from modhub.server.errors import HTTPError
from modhub.server.http.request import Request
from modhub.server.web.render import address, page

_TITLES = {401: "Login required", 403: "Not allowed", 404: "Not found", 500: "Internal server error"}


def error_page(request: Request, error: HTTPError) -> Response:
    """The error as a page. A private repository and a missing one look the same."""
    title, message = _TITLES.get(error.status, "Request failed"), error.message
    values = request.values
    name = f"{values['namespace']}/{values['name']}" if "namespace" in values and "name" in values else ""
    repository = ""
    # The protocol's messages, which clients parse, are not written for people.
    if error.code == "RepoNotFound":
        title = "Repository not found"
        if name:
            message = f"The repository {name[:200]} does not exist or is private."
    elif name:
        parts = ("datasets" if request.kind == "dataset" else "", values["namespace"], values["name"])
        repository = address(request, *parts)
        if error.code == "RevisionNotFound":
            title = "Revision not found"
            revision = values.get("revision") or request.parameter("revision")
            message = f"“{revision[:100]}” is not a release, branch or commit of {name}."
        elif error.code == "EntryNotFound":
            title = "File not found"
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
