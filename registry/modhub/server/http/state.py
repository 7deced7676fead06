"""What all requests share: options, store, accounts, metrics."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modhub.errors import HubError
from modhub.server.auth.accounts import Accounts
from modhub.server.auth.pull_commits import PullCommits
from modhub.server.auth.sessions import Sessions
from modhub.server.auth.signing import Signer
from modhub.server.errors import HTTPError
from modhub.server.http.metrics import Metrics
from modhub.store.store import Store

SIZES_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a server behaves.

    `public_url` is the address that clients see behind a proxy that rewrites the Host header; `upstream` is a
    hub to pull through from, with its token, other hosts that it may redirect to, and patterns of the
    repositories (`namespace/name`) that are mirrored. Repositories of `private_organisations` are private
    where their creator does not say. Raises `HubError` where either is not a URL.
    """

    read_only: bool = False
    public_url: str = ""
    upstream: str = ""
    upstream_token: str | None = None
    upstream_hosts: tuple[str, ...] = ()
    mirrored: tuple[str, ...] = ("*/*",)
    private_organisations: tuple[str, ...] = ()
    upload_limit: int = 1 << 40

    def __post_init__(self) -> None:
        for address in (self.public_url, "" if self.upstream == "hf" else self.upstream):
            if address and not _is_address(address):
                raise HubError(
                    f"'{address}' is not a hub's address.",
                    hint="Write it as https://host or http://host:port.",
                )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and valid_port and plain


DEFAULTS = Options()


class ServerState:
    """The store at `root`, its accounts, and what the server counts."""

    def __init__(self, root: Path, options: Options = DEFAULTS) -> None:
        self.store = Store(root)
        self.root = self.store.root
        self.options = options
        self.accounts = Accounts(self.root)
        self.signer = Signer(self.root)
        self.sessions = Sessions(self.accounts, self.signer, self.root / "ended-sessions")
        self.pull_commits = PullCommits()
        self.metrics = Metrics()
        self.started = time.time()
        # Facets of the front page with the time they were counted: see modhub.server.web.front.
        self.facets: dict[tuple[object, ...], tuple[float, list[tuple[str, int]]]] = {}
        self._stored: tuple[float, int] | None = None
        self._counting = threading.Lock()

    def stored_bytes(self) -> int:
        """Bytes of all contents, each counted once.

        A large store takes seconds to walk, so the sum may be some minutes old.
        """
        with self._counting:
            if self._stored is None or time.monotonic() - self._stored[0] > SIZES_SECONDS:
                blobs = self.store.blobs
                # None: a gc has just removed it.
                size = sum(blobs.size(sha256) or 0 for sha256 in blobs.all())
                self._stored = (time.monotonic(), size)
            return self._stored[1]

    def refuse_when_read_only(self) -> None:
        """Raises `HTTPError` 403 on a server that only reads."""
        if self.options.read_only:
            raise HTTPError(403, "This hub is read-only.", code="ReadOnlyHub")
