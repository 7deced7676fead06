"""Login with a token, for pages only: a cookie never authorises a change."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from modhub.errors import AccessError
from modhub.server.auth.sessions import COOKIE, SESSION_SECONDS
from modhub.server.errors import HTTPError
from modhub.server.http.request import Request, form_fields
from modhub.server.http.routing import Routes
from modhub.server.web.render import address, page

routes = Routes()


@routes.get("/login")
def form(request: Request) -> Response:
    return page(
        request, "login.html", title="Log in", trouble="", onward=_onward(request, request.parameter("next"))
    )


@routes.post("/login", body_limit=4096)
def log_in(request: Request) -> Response:
    _refuse_other_sites(request)
    fields = dict(form_fields(request.body.decode("utf-8", "replace"), limit=10))
    onward = _onward(request, fields.get("next", ""))
    try:
        session = request.state.sessions.create(fields.get("token", "").strip())
    except AccessError:
        error = "Invalid, expired or revoked token."
        return page(request, "login.html", status=401, title="Log in", trouble=error, onward=onward)
    response = RedirectResponse(onward or address(request), 303)
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_SECONDS,
        path=request.below or "/",
        httponly=True,
        samesite="lax",
        secure=request.base_url.startswith("https://"),
    )
    return response


@routes.post("/logout", body_limit=4096)
def log_out(request: Request) -> Response:
    _refuse_other_sites(request)
    response = RedirectResponse(address(request), 303)
    if cookie := request.http.cookies.get(COOKIE):
        request.state.sessions.end(cookie)
    response.delete_cookie(COOKIE, path=request.below or "/")
    return response


def _onward(request: Request, target: str) -> str:
    """`target`, if it is a page of this server; nothing where it may lead elsewhere."""
    plain = re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}", target)
    return target if plain and target.startswith(f"{request.below}/") else ""


def _refuse_other_sites(request: Request) -> None:
    origin = request.headers.get("origin")
    # Origin has scheme and host only; behind a proxy the schemes may differ.
    if origin is not None and origin.partition("://")[2] != urlsplit(request.base_url).netloc:
        raise HTTPError(403, "Cross-site form submissions are refused.")
