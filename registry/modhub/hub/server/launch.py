"""From a command line to a running server, without importing it before it is needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from modhub.errors import HubError, MissingDependencyError
from modhub.hub import default_hub
from modhub.hub.server.accounts import Accounts
from modhub.hub.server.state import Options

__all__ = ["first_token", "serve", "store_root"]

FIRST_USER = "admin"


def store_root(root: Path | None) -> Path:
    """The folder meant by `root`, or the user's own directory hub. Raises `HubError` when that is none."""
    if root is not None:
        return root.expanduser().resolve()
    place = default_hub()
    if place == "hf" or "://" in place:
        raise HubError(f"The hub '{place}' is not a folder.", hint="Name the store's folder with --root.")
    return Path(place).expanduser().resolve()


def first_token(root: Path) -> str | None:
    """The value of an admin token made for a store that has no token yet; None when it has one."""
    accounts = Accounts(root)
    return accounts.create_token(FIRST_USER, role="admin")[1] if accounts.empty else None


def serve(root: Path, *, host: str, port: int, options: Options, started: Callable[[str], None]) -> None:
    """`modhub.hub.server.serving.serve`, or `MissingDependencyError` where the extra is not installed."""
    for package in ("starlette", "uvicorn", "jinja2", "nh3", "markdown_it"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, purpose="The server", extra="server")
    from modhub.hub.server.serving import serve as run

    run(root, host=host, port=port, options=options, started=started)
