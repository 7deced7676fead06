"""The server's routes put together as an ASGI application."""

from __future__ import annotations

from pathlib import Path

from modhub.server import monitoring
from modhub.server.http.application import Application
from modhub.server.http.routing import Router
from modhub.server.http.state import DEFAULTS, Options, ServerState
from modhub.server.protocol import commits, downloads, files, lfs, pull_requests, repositories
from modhub.server.protocol.mirror import Mirror
from modhub.server.web import PAGES, error_page


def create_app(root: Path, options: Options = DEFAULTS) -> Application:
    """The ASGI application over the store at `root`; several processes may serve one store."""
    router = Router(
        monitoring.routes,
        repositories.routes,
        files.routes,
        commits.routes,
        pull_requests.routes,
        lfs.routes,
        downloads.routes,
        *PAGES,
    )
    state = ServerState(root, options)
    mirror = None
    if options.upstream:
        mirror = Mirror(
            state.store,
            options.upstream,
            options.upstream_token,
            patterns=options.mirrored,
            hosts=options.upstream_hosts,
        )
    return Application(state, router, error_page, mirror.answer if mirror else None)
