"""Logging in with a token, for pages only: a cookie never authorises a change."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from modhub.errors import AccessError
from modhub.server.call import Call, form_fields
from modhub.server.faults import Fault
from modhub.server.routing import Routes
from modhub.server.state import SESSION_SECONDS
from modhub.server.web.render import address, page

__all__ = ["COOKIE", "routes"]

routes = Routes()
COOKIE = "modhub_session"


@routes.get("/login")
def form(call: Call) -> Response:
    return page(call, "login.html", title="Log in", trouble="", onward=_onward(call, call.one("next")))


@routes.post("/login", body_limit=4096)
def log_in(call: Call) -> Response:
    _refuse_other_sites(call)
    fields = dict(form_fields(call.body.decode("utf-8", "replace"), limit=10))
    onward = _onward(call, fields.get("next", ""))
    try:
        session = call.state.new_session(fields.get("token", "").strip())
    except AccessError:
        trouble = "This token opens nothing here. It may be mistyped, expired or revoked."
        return page(call, "login.html", status=401, title="Log in", trouble=trouble, onward=onward)
    response = RedirectResponse(onward or address(call), 303)
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_SECONDS,
        path=call.below or "/",
        httponly=True,
        samesite="lax",
        secure=call.base_url.startswith("https://"),
    )
    return response


@routes.post("/logout", body_limit=4096)
def log_out(call: Call) -> Response:
    _refuse_other_sites(call)
    response = RedirectResponse(address(call), 303)
    response.delete_cookie(COOKIE, path=call.below or "/")
    return response


def _onward(call: Call, wanted: str) -> str:
    """The page of this server that `wanted` names; nothing where it may lead elsewhere."""
    plain = re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}", wanted)
    return wanted if plain and wanted.startswith(f"{call.below}/") else ""


def _refuse_other_sites(call: Call) -> None:
    origin = call.request.headers.get("origin")
    # Scheme and host is all that there is in it; behind a proxy the schemes may differ.
    if origin is not None and origin.partition("://")[2] != urlsplit(call.base_url).netloc:
        raise Fault(403, "This form was sent from another site.")
