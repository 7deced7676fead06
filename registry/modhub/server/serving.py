"""The application under uvicorn, with time limits on idle connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from modhub.errors import HubError
from modhub.server.app import create_app
from modhub.server.http.connections import Connections, raise_file_limit
from modhub.server.http.state import DEFAULTS, Options

HEADER_SECONDS = 20.0
UNREAD_SECONDS = 120.0
"""How long a client may leave a response unread."""
HEADER_BYTES = 32 << 10
KEEP_ALIVE_SECONDS = 30
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\n\r\n"
    b'{"error": "Too many connections are open; close some, or try again later."}'
)


class _TimeLimited(H11Protocol):
    """Closes a connection whose request headers are incomplete after `HEADER_SECONDS`, or whose client reads
    nothing for `UNREAD_SECONDS`: it would hold a connection and an open file for any length of time."""

    admission: Connections
    """Of the server; set by a subclass."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn's log would show queries, and with them signed addresses.
        self.access_log = False
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._start_deadline()
        peer = transport.get_extra_info("peername")
        if not self.admission.admit(self, peer[0] if peer else ""):
            transport.write(_FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        # After a response these bytes begin the next request.
        if self._deadline is None and self.idle:
            self._start_deadline()

    def handle_events(self) -> None:
        super().handle_events()
        self.admission.used(self)
        if not self.idle:
            self._cancel_deadline()

    def pause_writing(self) -> None:
        super().pause_writing()
        # `close` would wait until the rest is read.
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_unread()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_unread()
        self.admission.forget(self)
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_idle)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _close_idle(self) -> None:
        if self.idle and not self.transport.is_closing():
            self.transport.close()


class Listening:
    """A server bound to its address, before `run`; `stop` may be called from any thread."""

    def __init__(self, root: Path, host: str, port: int, options: Options = DEFAULTS) -> None:
        """Port 0 takes a free one. Raises `HubError` when the address cannot be used."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off (40 ms an answer) only where the protocol is named.
        self._listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except (OSError, OverflowError) as error:
            self._listener.close()
            raise HubError(
                f"The address {host}:{port} cannot be used: {error}.",
                hint="Choose another with --host and --port.",
            ) from error
        bound_host, bound_port = self._listener.getsockname()[:2]
        # An empty host listens on all interfaces.
        shown_host = f"[{host}]" if ":" in host else host or bound_host
        self.address = f"http://{shown_host}:{bound_port}"
        self.app = create_app(root, options)
        self.connections = Connections(raise_file_limit())
        http: Any = type("_Limited", (_TimeLimited,), {"admission": self.connections})
        config = uvicorn.Config(
            self.app,
            http=http,
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            # X-Forwarded-* of a proxy is trusted.
            proxy_headers=True,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=20,
        )
        self._server = _Server(config)

    def run(self, started: Callable[[str], None] = lambda address: None) -> None:
        """Answer until `stop` or a signal; `started` is called once connections are accepted."""
        self._server.on_started = lambda: started(self.address)
        with self._listener:
            try:
                self._server.run(sockets=[self._listener])
            except KeyboardInterrupt:
                # Ctrl-C is how a running server ends; before it accepts connections it is an interruption.
                if not self._server.started:
                    raise

    def stop(self) -> None:
        """Finish running requests, then return from `run`."""
        self._server.should_exit = True


def serve(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: Options = DEFAULTS,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the store at `root` until the process is told to stop; port 0 takes a free one.

    `started` is called with the address once connections are accepted. Raises `HubError` when the address
    cannot be used.
    """
    Listening(root, host, port, options).run(started)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.on_started: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_started()
