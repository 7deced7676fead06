"""The ASGI application: principal, route, body within its limits, response."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import unquote

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from modhub.errors import AccessError, IntegrityError, ManifestError, ModhubError
from modhub.server.auth.principal import ANONYMOUS, Principal
from modhub.server.auth.sessions import COOKIE
from modhub.server.errors import HTTPError, header_text, to_http_error
from modhub.server.http.body import read_body
from modhub.server.http.connections import PROXIES
from modhub.server.http.request import MovedError, Request
from modhub.server.http.routing import Match, Router
from modhub.server.http.state import ServerState

_log = logging.getLogger("modhub.server")
_TRACE = re.compile(r"[A-Za-z0-9=;:_.-]{1,128}\Z")
THREADS = 64
THREADS_EACH = 16
"""For one anonymous address."""
TURN_SECONDS = 20.0
PATH_LIMIT = 8192
HEADERS_LIMIT = 32 << 10
DRAINED_BYTES = 16 << 20
DRAINED_SECONDS = 10.0
MISSING_SECONDS = 0.01
"""An answer that a repository is missing takes a multiple of this: a private one takes longer to find."""


class Application:
    """Answers every request; no input makes it raise."""

    def __init__(
        self,
        state: ServerState,
        router: Router,
        error_page: Callable[[Request, HTTPError], Response],
        upstream: Callable[[Request], Response | None] | None = None,
    ) -> None:
        """`error_page` draws an error for browsers; `upstream` answers for repositories that are not here."""
        self.state = state
        self.router = router
        self.upstream = upstream
        self._error_page = error_page
        self._limiter: anyio.CapacityLimiter | None = None
        # By address, with how many requests have or await a turn.
        self._turns: dict[str, tuple[anyio.CapacityLimiter, int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        await _Exchange(self, _with_path(scope), receive, send).run()

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run blocking work beside the event loop."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)

    @asynccontextmanager
    async def turn(self, request: Request | None) -> AsyncIterator[None]:
        """Wait until fewer than `THREADS_EACH` requests of this anonymous address are at work.

        Raises `HTTPError` 503 after `TURN_SECONDS`.
        """
        address = "" if request is None or request.principal.name is not None else request.client
        if not address or address.removeprefix("address ") in PROXIES:
            yield
            return
        limiter, waiting = self._turns.get(address) or (anyio.CapacityLimiter(THREADS_EACH), 0)
        self._turns[address] = limiter, waiting + 1
        try:
            with anyio.move_on_after(TURN_SECONDS):
                await limiter.acquire_on_behalf_of(request)
            if request not in limiter.statistics().borrowers:
                raise HTTPError(
                    503,
                    "Too many requests of this address are at work. Wait for some, or log in.",
                    headers={"Retry-After": "5"},
                )
            try:
                yield
            finally:
                limiter.release_on_behalf_of(request)
        finally:
            limiter, waiting = self._turns.pop(address)
            if waiting > 1:
                self._turns[address] = limiter, waiting - 1

    def principal(self, http: StarletteRequest) -> Principal:
        """The user of the request's token or session. Raises `HTTPError` 401."""
        header = http.headers.get("authorization")
        if header is None:
            cookie = http.cookies.get(COOKIE)
            # Cookies are for reading only, so that no other site makes a browser change anything.
            reading = http.method in ("GET", "HEAD")
            return self.state.sessions.principal(cookie) if cookie and reading else ANONYMOUS
        try:
            return self.state.accounts.principal(_token_in(header))
        except AccessError as error:
            # Without WWW-Authenticate: a browser would ask for a password, and clients read the message.
            raise HTTPError(401, error.message) from None

    def error_response(self, http: StarletteRequest, error: HTTPError, request: Request | None) -> Response:
        """JSON for programs, a page for people. `request` is None when it was refused before it was read."""
        page: Response | None = None
        if request is not None and _wants_page(http):
            # There is no page for a request without a usable Host header.
            with suppress(HTTPError):
                page = self._error_page(request, error)
        if page is not None:
            response = page
        elif "git-lfs" in http.headers.get("accept", ""):
            body = json.dumps({"message": error.message})
            response = Response(body, error.status, media_type="application/vnd.git-lfs+json")
        else:
            body = json.dumps({"error": error.message, **error.body})
            response = Response(body, error.status, media_type="application/json")
        response.headers["x-error-message"] = header_text(error.message)
        if error.code:
            response.headers["x-error-code"] = error.code
        for name, value in error.headers.items():
            response.headers[name] = value
        return response


class _Exchange:
    """One request and its answer."""

    def __init__(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        self.application = application
        self.state = application.state
        self.scope = scope
        self._receive = receive
        self._send = send
        self.http = StarletteRequest(scope, self.receive)
        self._body_is_over = False
        self.status = 0
        self.began = 0.0
        trace = self.http.headers.get("x-amzn-trace-id", "")
        self.trace = trace if _TRACE.match(trace) else uuid.uuid4().hex
        self.request: Request | None = None
        self.route = "none"

    async def run(self) -> None:
        self.began = time.perf_counter()
        self.state.metrics.begin()
        try:
            response = await self._answer()
            await self._let_finish(response.status_code)
            await response(self.scope, self.receive, self.send)
        except ClientDisconnect:
            self.status = self.status or 499
        except OSError as error:
            _log.warning("%s the connection broke: %s", self.trace, error)
        finally:
            seconds = time.perf_counter() - self.began
            method = self.http.method if self.http.method in _METHODS else "OTHER"
            self.state.metrics.end(method, self.route, self.status or 500, seconds)
            # Without the query, which may hold a signature.
            path = cast(bytes, self.scope["raw_path"]).partition(b"?")[0][:PATH_LIMIT]
            _log.info(
                "%s %s %s %s %.1f ms %s %s",
                self.trace,
                method,
                path.decode("ascii", "backslashreplace"),
                self.status,
                seconds * 1000,
                self.http.client.host if self.http.client else "-",
                (self.request.actor if self.request is not None else "") or "-",
            )

    async def _answer(self) -> Response:
        try:
            return await self._handle()
        except MovedError as moved:
            return RedirectResponse(moved.target, 307)
        except HTTPError as error:
            if error.code == "RepoNotFound":
                spent = time.perf_counter() - self.began
                await anyio.sleep(MISSING_SECONDS - spent % MISSING_SECONDS)
            return self._refuse(error)
        except ModhubError as error:
            answer = to_http_error(error)
            # A request that only reads sends nothing that could be damaged: the store is.
            damaged = self.http.method in ("GET", "HEAD") and isinstance(
                error, IntegrityError | ManifestError
            )
            if answer.status >= 500 or damaged:
                _log.error("%s %s", self.trace, error)
            answer.message = answer.message.replace(f"{self.state.root}/", "")
            return self._refuse(answer)
        except ClientDisconnect:
            raise
        except Exception:
            _log.exception("%s the server failed", self.trace)
            message = f"Internal server error; the server's log has the details under {self.trace}."
            return self._refuse(HTTPError(500, message))

    async def _handle(self) -> Response:
        raw = cast(bytes, self.scope["raw_path"]).decode("latin-1").partition("?")[0]
        if len(raw) > PATH_LIMIT:
            raise HTTPError(414, "The URL is too long.")
        if sum(len(name) + len(value) for name, value in self.scope["headers"]) > HEADERS_LIMIT:
            raise HTTPError(431, "The request headers are too large.")
        try:
            match = self.application.router.match(self.http.method, raw)
        except HTTPError:
            if _wants_page(self.http):
                # The page shows who is logged in; a bad token is not the error to report here.
                with suppress(HTTPError):
                    self.request = Request(self.state, self.http, await self._principal(), {})
            raise
        self.route = match.route.pattern
        if self.http.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPError(415, "Content-Encoding is not supported; send the body uncompressed.")
        principal = await self._principal()
        self.request = Request(self.state, self.http, principal, match.values)
        try:
            return await self._run(match, self.request)
        except HTTPError as error:
            upstream = self.application.upstream
            if upstream is None or error.code != "RepoNotFound":
                raise
            # Private or absent here: the upstream is asked in both cases, so that its answer tells nothing.
            response: Response | None = await self.application.in_thread(upstream, self.request)
            if response is None:
                raise
            return response

    async def _run(self, match: Match, request: Request) -> Response:
        if match.route.streams:
            request.in_thread = self.application.in_thread
            handler = cast(Callable[[Request], Awaitable[Response]], match.route.handler)
            return await handler(request)
        return await self._run_in_thread(match)

    async def _principal(self) -> Principal:
        try:
            return self.application.principal(self.http)
        except HTTPError:
            # The error page links to the login.
            self.request = Request(self.state, self.http, ANONYMOUS, {})
            raise

    async def _run_in_thread(self, match: Match) -> Response:
        if self.http.method not in ("GET", "HEAD") and self.request is not None:
            self.request.body = await read_body(self.http, match.route.body_limit)
            self.state.metrics.count("received", len(self.request.body))
        async with self.application.turn(self.request):
            return cast(Response, await self.application.in_thread(match.route.handler, self.request))

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_is_over = self._body_is_over or not message.get("more_body", False)
        return message

    async def _let_finish(self, status: int) -> None:
        """Read the rest of a body that was refused early: many clients read the response only then.

        The connection of one that is too long or too slow is closed.
        """
        announced = self.http.headers.get("content-length", "")
        if status in (200, 408) or self.http.method in ("GET", "HEAD") or not announced.isdigit():
            return
        if "expect" in self.http.headers or int(announced) > DRAINED_BYTES:
            return
        with anyio.move_on_after(DRAINED_SECONDS):
            while not self._body_is_over:
                await self.receive()

    def _refuse(self, error: HTTPError) -> Response:
        return self.application.error_response(self.http, error, self.request)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [
                *message.get("headers", []),
                (b"x-request-id", self.trace.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"same-origin"),
            ]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            if self.http.method == "HEAD":
                message = {**message, "body": b""}
            else:
                self.state.metrics.count("sent", len(message.get("body", b"")))
        await self._send(message)


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def _with_path(scope: Scope) -> Scope:
    """The scope with a plain path where a proxy sent the absolute form, `GET http://host/path`."""
    absolute = re.match(rb"https?://([^/]*)(/?.*)\Z", scope["raw_path"], re.IGNORECASE | re.DOTALL)
    if absolute is None:
        return scope
    host, path = absolute[1], absolute[2] or b"/"
    # Takes precedence over the Host header (RFC 9112, 3.2.2).
    headers = [(b"host", host), *((name, value) for name, value in scope["headers"] if name != b"host")]
    return {**scope, "raw_path": path, "path": unquote(path.decode("latin-1")), "headers": headers}


def _wants_page(http: StarletteRequest) -> bool:
    """Whether to answer with a page: browsers prefer HTML to JSON, and do not use the API."""
    if http.url.path.startswith("/api/"):
        return False
    accepted = {"text/html": 0.0, "application/json": 0.0}
    for part in http.headers.get("accept", "").lower().split(","):
        kind, *settings = (text.strip() for text in part.split(";"))
        quality = next((text[2:] for text in settings if text.startswith("q=")), "1")
        if kind in accepted and re.fullmatch(r"[01](\.[0-9]{0,3})?", quality):
            accepted[kind] = float(quality)
    return accepted["text/html"] > 0 and accepted["text/html"] >= accepted["application/json"]


def _token_in(header: str) -> str:
    """The token of `Bearer TOKEN`, or the password of `Basic …` as git-lfs sends it.

    Raises `HTTPError` 401.
    """
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            password = ""
        if password:
            return password
    raise HTTPError(401, "Invalid credentials in Authorization header")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
