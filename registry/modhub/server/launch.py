"""From a command line to a running server, without importing it before it is needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from modhub.errors import HubError, MissingDependencyError, StorageError
from modhub.hub import default_hub
from modhub.server.auth.accounts import Accounts
from modhub.server.http.state import Options

__all__ = ["first_token", "serve", "store_root"]

FIRST_USER = "admin"


def store_root(root: Path | None, *, begin: bool = True) -> Path:
    """The folder meant by `root`, or the user's own directory hub; only with `begin` it may still be made.

    Raises `HubError` when that is none, `StorageError` when it is not there.
    """
    place = default_hub() if root is None else str(root)
    if root is None and (place == "hf" or "://" in place):
        raise HubError(f"The hub '{place}' is not a folder.", hint="Name the store's folder with --root.")
    folder = Path(place).expanduser().resolve()
    if not begin and not folder.is_dir():
        raise StorageError(f"'{place}' is no hub's folder.", hint="Name one with --root.")
    return folder


def first_token(root: Path, *, read_only: bool = False) -> str | None:
    """The value of an admin token made for a store that has no token yet; None when it has one.

    Raises `StorageError` where it cannot be written, unless nobody is to change anything there.
    """
    accounts = Accounts(root)
    try:
        return accounts.create_token(FIRST_USER, role="admin")[1] if accounts.empty else None
    except StorageError:
        if not read_only:
            raise
        return None


def serve(root: Path, *, host: str, port: int, options: Options, started: Callable[[str], None]) -> None:
    """`modhub.server.serving.serve`, or `MissingDependencyError` where the extra is not installed."""
    for package in ("starlette", "uvicorn", "jinja2", "nh3", "markdown_it"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, purpose="The server", extra="server")
    from modhub.server.serving import serve as run

    run(root, host=host, port=port, options=options, started=started)
