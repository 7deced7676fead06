"""What `modhub serve` and `modhub token` call; the server itself is imported only to run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from modhub.errors import HubError, MissingDependencyError, StorageError
from modhub.hub import default_hub
from modhub.server.auth.accounts import Accounts
from modhub.server.http.connections import Connections, raise_file_limit
from modhub.server.http.state import Options

FIRST_USER = "admin"
_ROOT = "Pass the store's directory with --root."


def store_root(root: Path | None, *, begin: bool = True) -> Path:
    """The directory `root`, or the default hub's; only with `begin` it need not exist yet.

    Raises `HubError` when the default hub is not a directory, `StorageError` when it does not exist.
    """
    place = default_hub() if root is None else str(root)
    if root is None and (place == "hf" or "://" in place):
        raise HubError(f"The hub '{place}' is not a directory.", hint=_ROOT)
    directory = Path(place).expanduser().resolve()
    if not begin and not directory.is_dir():
        raise StorageError(f"'{place}' is not a hub directory.", hint=_ROOT)
    return directory


def connection_limits() -> str:
    """A sentence with the limits of connections and open files that a server of this process has."""
    return str(Connections(raise_file_limit()))


def first_token(root: Path, *, read_only: bool = False) -> str | None:
    """The value of a new admin token for a store without tokens; None when it has any.

    Raises `StorageError` where it cannot be written, unless the server is read-only.
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
