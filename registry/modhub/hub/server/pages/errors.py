"""What a person sees when something goes wrong."""

from __future__ import annotations

from starlette.responses import Response

from modhub.hub.server.call import Call
from modhub.hub.server.faults import Fault
from modhub.hub.server.pages.render import page

__all__ = ["error_page"]

_TITLES = {401: "Log in to see this", 403: "Not allowed", 404: "Not found", 500: "The server failed"}


def error_page(call: Call, fault: Fault) -> Response:
    """The fault as a page. A private repository and a missing one look the same."""
    title = _TITLES.get(fault.status, "That did not work")
    if fault.code == "RepoNotFound":
        title = "There is no such repository here"
    return page(
        call, "error.html", status=fault.status, title=title, message=fault.message, code=fault.status
    )
