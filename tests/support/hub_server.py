"""A real server on a free port, and a client that sends exactly what it is told to."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modhub.server.auth.accounts import Accounts
from modhub.server.http.state import DEFAULTS, Options
from modhub.server.serving import Listening

TOKENS = {
    "admin": "admin-token-0123456789",
    "alice": "hf_alice-token-0123456789",
    "bob": "bob-token-0123456789",
    "reader": "reader-token-0123456789",
}
"""alice writes for herself and the organisation lab, bob for himself; reader is of lab but only reads."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Status and error code, as tables compare them."""
        code = self.headers.get("x-error-code", "")
        return f"{self.status} {code}".strip()


@dataclass
class Server:
    """`ask` sends one request; the path goes out as it is written."""

    address: str
    root: Path
    listening: Listening | None = field(default=None, repr=False)

    def ask(
        self,
        method: str,
        path: str,
        who: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        sent = dict(headers or {})
        if who is not None:
            sent["Authorization"] = f"Bearer {TOKENS.get(who, who)}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def commit(
        self,
        repository: str,
        files: Mapping[str, bytes],
        who: str = "alice",
        *,
        revision: str = "main",
        parent: str | None = None,
        lines: tuple[Mapping[str, Any], ...] = (),
        query: str = "",
    ) -> Answer:
        return self.ask(
            "POST",
            f"/api/{repository}/commit/{revision}{query}",
            who,
            commit_body(files, parent=parent, lines=lines),
            {"Content-Type": "application/x-ndjson"},
        )


def commit_body(
    files: Mapping[str, bytes], *, parent: str | None = None, lines: tuple[Mapping[str, Any], ...] = ()
) -> bytes:
    import base64

    header: dict[str, Any] = {"summary": "A change", "description": ""}
    if parent is not None:
        header["parentCommit"] = parent
    documents: list[Mapping[str, Any]] = [{"key": "header", "value": header}]
    for path, content in files.items():
        value = {"content": base64.b64encode(content).decode(), "path": path, "encoding": "base64"}
        documents.append({"key": "file", "value": value})
    return b"\n".join(json.dumps(one).encode() for one in (*documents, *lines))


@contextmanager
def serving(root: Path, options: Options = DEFAULTS, *, accounts: bool = True) -> Iterator[Server]:
    """The server in a thread of this process, with the accounts of `TOKENS`."""
    if accounts and Accounts(root).empty:
        made = Accounts(root)
        made.create_token("admin", role="admin", value=TOKENS["admin"])
        made.create_token("alice", organisations=("lab",), value=TOKENS["alice"])
        made.create_token("bob", value=TOKENS["bob"])
        made.create_token("reader", organisations=("lab",), role="read", value=TOKENS["reader"])
    listening = Listening(root, "127.0.0.1", 0, options)
    ready = threading.Event()
    thread = threading.Thread(target=listening.run, args=(lambda _: ready.set(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield Server(listening.address, root, listening)
    finally:
        listening.stop()
        thread.join(30)
