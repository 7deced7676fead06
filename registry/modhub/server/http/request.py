"""A request as handlers see it: the principal, the pieces of the address, the repository that is meant."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request as StarletteRequest

from modhub.errors import HubError, NotFoundError, RefError
from modhub.refs import RepositoryId, is_commit
from modhub.server.auth.principal import Principal, authorize, missing_repository
from modhub.server.errors import HTTPError
from modhub.store.records import PULLS, RepositoryKey, RepositoryRecord

if TYPE_CHECKING:
    from modhub.server.http.state import ServerState
    from modhub.store.store import Store


DEPTH_LIMIT = 64
_TRUE = ("1", "true", "yes", "on")


class MovedError(Exception):
    """The repository was renamed; `target` is the path and query to redirect to."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target


class Request:
    """`values` are the decoded pieces of the path; `body` is complete unless the handler streams `http`."""

    def __init__(
        self,
        state: ServerState,
        http: StarletteRequest,
        principal: Principal,
        values: Mapping[str, str],
    ) -> None:
        self.state = state
        self.http = http
        self.principal = principal
        self.values = values
        self.body = b""
        self.in_thread: Callable[..., Awaitable[Any]] = _no_threads
        self.query = form_fields(self.query_string, limit=2000)

    @property
    def store(self) -> Store:
        return self.state.store

    # -- the address ------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self.http.method

    @property
    def headers(self) -> Headers:
        return self.http.headers

    @property
    def raw_path(self) -> str:
        """The path as the client encoded it, without the query."""
        path: bytes = self.http.scope["raw_path"]
        return path.decode("latin-1").partition("?")[0]

    @property
    def query_string(self) -> str:
        """What follows the `?`, as the client encoded it."""
        query: bytes = self.http.scope["query_string"]
        return query.decode("latin-1")

    def parameter(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        return next((value for key, value in reversed(self.query) if key == name), default)

    def parameters(self, name: str) -> list[str]:
        """All values of a query parameter, `name=a&name=b` and `name[]=a` alike."""
        return [value for key, value in self.query if key in (name, f"{name}[]")]

    def flag(self, name: str) -> bool:
        return self.parameter(name).lower() in _TRUE

    def number(self, name: str, default: int, maximum: int) -> int:
        text = self.parameter(name)
        if not text:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise HTTPError(400, f'"{name}" must be a number, not {text[:50]!r}')
        return max(1, min(int(text), maximum))

    def json(self) -> dict[str, Any]:
        """The JSON body, an object; empty for an empty body."""
        return parse_body(self.body)

    @property
    def actor(self) -> str:
        """The user as the audit log names them."""
        return self.principal.name or ""

    @property
    def client(self) -> str:
        """Who asks: the user, or without a token the address (of IPv6 the network, which has many)."""
        if self.principal.name is not None:
            return f"user {self.principal.name.lower()}"
        host = self.http.client.host if self.http.client else ""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return f"address {host}"
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or ip_network((address, 64), strict=False).network_address
        return f"address {address}"

    @property
    def base_url(self) -> str:
        """Scheme and host as the client wrote them, or the configured public address."""
        if self.state.options.public_url:
            return self.state.options.public_url.rstrip("/")
        host = self.http.headers.get("host", "")
        if not re.fullmatch(r"[A-Za-z0-9._\-]+(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?", host):
            raise HTTPError(400, "Invalid Host header.")
        return f"{self.http.url.scheme}://{host}"

    @property
    def below(self) -> str:
        """The path of the public address, which the proxy strips from requests."""
        return urlsplit(self.state.options.public_url).path.rstrip("/")

    # -- the repository ---------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        if "kind" in self.values:
            return self.values["kind"]
        return "dataset" if self.values.get("web") else "model"

    def key(self) -> RepositoryKey:
        """The repository in the path. An invalid id is answered like a missing repository."""
        return self.key_of(f"{self.values['namespace']}/{self.values['name']}", self.kind)

    def key_of(self, text: str, kind: str) -> RepositoryKey:
        try:
            return RepositoryKey(kind, RepositoryId.parse(text))
        except RefError:
            raise missing_repository(self.principal) from None

    def repository(self, action: str) -> RepositoryRecord:
        """The repository in the path, if the principal may do `action`. Raises as `permitted` does."""
        return self.permitted(self.key(), action)

    def permitted(self, key: RepositoryKey, action: str) -> RepositoryRecord:
        """The repository `key`, if the principal may do `action`. Raises `HTTPError` or `MovedError`."""
        if (record := self.find_repository(key)) is None:
            raise missing_repository(self.principal)
        authorize(self.principal, record, action if record.key == key else "see")
        if record.key != key:
            raise self._moved(key, record)
        if action == "write":
            self.state.refuse_when_read_only()
        return record

    def find_repository(self, key: RepositoryKey) -> RepositoryRecord | None:
        """The repository of that name, or the one renamed from it, whoever the principal is."""
        store = self.state.store
        for _ in range(10):
            try:
                return store.repositories.get(key)
            except NotFoundError:
                moved = store.repositories.moved_to(key)
                if moved is None:
                    return None
                key = RepositoryKey(key.kind, moved)
        return None

    def _moved(self, key: RepositoryKey, record: RepositoryRecord) -> Exception:
        if "name" not in self.values:
            # The body names it, which no redirect would change.
            message = f"The repository '{key.id}' was renamed to '{record.id}'."
            return HTTPError(404, message, code="RepoNotFound")
        parts = self.http.scope["raw_path"].decode("latin-1").split("/")
        # The id comes after `/api/models` or `/lfs/models`, after `/datasets`, or first.
        place = 3 if "kind" in self.values else 2 if self.values.get("web") else 1
        git = ".git" if parts[place + 1].endswith(".git") else ""
        parts[place : place + 2] = [quote(record.id.namespace), quote(record.id.name) + git]
        return MovedError(
            self.below + "/".join(parts) + (f"?{self.query_string}" if self.query_string else "")
        )

    def commit_of(self, record: RepositoryRecord, revision: str) -> str:
        """The commit a revision names. Raises `HTTPError` 404 with `RevisionNotFound`."""
        place, pulls = record.key.path, self.state.pull_commits
        try:
            commit = self.state.store.reader.resolve(record.key, revision)
            if revision.startswith(PULLS):
                pulls.note(self.client, place, commit)
            return commit
        except (NotFoundError, RefError):
            if is_commit(revision) and pulls.admits(self.client, place, revision):
                return revision
            raise HTTPError(404, f"Invalid rev id: {revision[:100]}", code="RevisionNotFound") from None


def form_fields(text: str, *, limit: int) -> list[tuple[str, str]]:
    """The pairs of `a=1&b=2`. Raises `HTTPError` 400 for more than `limit`."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=limit)
    except ValueError:
        raise HTTPError(400, f"Too many fields; at most {limit:,} are allowed.") from None


def parse_body(body: bytes) -> dict[str, Any]:
    """Untrusted JSON: an object without deep nesting or NaN. Raises `HTTPError` 400."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body, parse_constant=_no_constant)
        fine = isinstance(value, dict) and _depth(value, DEPTH_LIMIT)
        if fine:
            json.dumps(value, ensure_ascii=False).encode()  # lone surrogates cannot be stored
    except (ValueError, RecursionError):
        raise HTTPError(400, "The request body is not valid JSON.") from None
    if not fine:
        raise HTTPError(400, "The request body must be a JSON object without deep nesting.")
    document: dict[str, Any] = value
    return document


async def _no_threads(*_: object) -> Any:
    raise HubError("This handler does not stream, so it runs in a thread already.")


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _depth(value: object, left: int) -> bool:
    if left == 0:
        return False
    if isinstance(value, dict):
        return all(_depth(item, left - 1) for item in value.values())
    if isinstance(value, list):
        return all(_depth(item, left - 1) for item in value)
    return True


def text_field(
    document: Mapping[str, Any], name: str, default: str | None = None, *, limit: int = 10_000
) -> str:
    """A string of a JSON body. Raises `HTTPError` 400; `default` replaces a missing or null one."""
    value = document.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > limit:
        raise HTTPError(400, f'"{name}" must be a string of at most {limit} characters')
    return value
