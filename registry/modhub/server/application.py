"""All rooms of the server put together."""

from __future__ import annotations

from pathlib import Path

from modhub.server import (
    api_commits,
    api_discussions,
    api_files,
    api_lfs,
    api_repositories,
    operations,
    resolve,
)
from modhub.server.app import Application
from modhub.server.routing import Router
from modhub.server.state import DEFAULTS, Options, State
from modhub.server.web import PAGES, error_page

__all__ = ["create_app"]


def create_app(root: Path, options: Options = DEFAULTS) -> Application:
    """The ASGI application over the store at `root`; several processes may serve one store."""
    router = Router(
        operations.routes,
        api_repositories.routes,
        api_files.routes,
        api_commits.routes,
        api_discussions.routes,
        api_lfs.routes,
        resolve.routes,
        *PAGES,
    )
    return Application(State(root, options), router, error_page)
