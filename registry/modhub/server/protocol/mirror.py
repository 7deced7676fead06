"""Pull-through cache: requests for repositories that are not here are answered from another hub.

The upstream is not trusted: it is asked for what the server's options name and for nothing in a namespace
that has repositories here; its redirects lead to its own hosts; it gets nothing of this store by naming a
digest; and while it does not answer, nobody waits for it.

Repositories of the upstream keep their commits, so lock files made against it are valid here. Its responses
are kept in `<root>/mirror` for when it is unreachable; file contents become blobs of the store, verified
against the upstream's digest on the way. `gc` removes contents that no repository here uses; they are
downloaded again when requested.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from starlette.responses import Response, StreamingResponse

from modhub.catalog.releases import YANKED_NAME
from modhub.errors import IntegrityError
from modhub.files import write_bytes
from modhub.integrity import git_oid
from modhub.refs import is_commit, is_text
from modhub.server.errors import HTTPError
from modhub.server.http.request import Request
from modhub.server.protocol.downloads import send_file
from modhub.store.records import KINDS
from modhub.store.store import Store
from modhub.store.tree import TreeFile
from modhub.text import canonical_json

OFFICIAL = "https://huggingface.co"
SECONDS = 5.0
"""How long the upstream may be silent."""
ANSWER_SECONDS = 20.0
"""How long a response may take; a file has the time of its bytes at `SLOWEST` more."""
SLOWEST = 50_000
WAITING = 16
"""Requests that wait for the upstream at one time."""
FAILURES, PAUSE_SECONDS = 3, 30.0
"""After so many failures on end the upstream is not asked for so long."""
OFFICIAL_HOSTS = (".huggingface.co", ".hf.co")
ANSWER_LIMIT = 64 << 20
ANSWERS = 20_000
ANSWERS_BYTES = 2 << 30
"""Of the upstream's answers that are kept for when it is unreachable."""
FORGETTING = 100
"""Answers from one count to the next."""
PIECE = 512 << 10
_PORTS = {"http": 80, "https": 443}
_API = re.compile(r"/api/(?:model|dataset)s/[^/]+/[^/]+(?:/(?:revision|tree|refs|commits)(?:/.*)?)?\Z")
_FILE = re.compile(r"/(?:datasets/)?[^/]+/[^/]+/resolve/.+\Z")
_HEADERS = (
    "content-type",
    "link",
    "etag",
    "x-repo-commit",
    "x-linked-etag",
    "x-linked-size",
    "content-length",
)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A response of the upstream; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str = ""


class _UnreachableError(Exception):
    """The upstream cannot be reached."""


@dataclass
class Mirror:
    """The hub `upstream` (an endpoint, or `hf`). `token` is the server's, never a client's."""

    store: Store
    upstream: str
    token: str | None = None
    patterns: tuple[str, ...] = ("*/*",)
    """Repositories that are mirrored, by shell patterns of `namespace/name`, without case."""
    hosts: tuple[str, ...] = ()
    """Other hosts (`host` or `host:port`) that the upstream may redirect to, in private networks, too."""
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.upstream = OFFICIAL if self.upstream == "hf" else self.upstream.rstrip("/")
        self.root = self.store.root / "mirror"
        self._breaker = _Breaker()
        self._until_forgetting = 1
        redirects = _Redirects(self.upstream, self.hosts)
        self._opener = urllib.request.build_opener(redirects)

    def answer(self, request: Request) -> Response | None:
        """The upstream's response for a repository that is not here; None when it has none."""
        path = request.raw_path
        if request.method not in ("GET", "HEAD") or not _is_plain(path) or not self._mirrors(request):
            return None
        if _API.match(path):
            return self._document(request, path)
        return self._file(request, path) if _FILE.match(path) else None

    def _mirrors(self, request: Request) -> bool:
        """Whether the repository is one to ask for. A namespace that is here, or was, is not."""
        namespace = request.values.get("namespace", "").lower()
        name = f"{namespace}/{request.values.get('name', '')}".lower()
        local = (
            self.store.root / folder / kind / namespace
            for folder in ("repositories", "moved", "removed")
            for kind in KINDS
        )
        return any(fnmatchcase(name, pattern.lower()) for pattern in self.patterns) and not any(
            place.is_dir() for place in local
        )

    def _document(self, request: Request, path: str) -> Response | None:
        query = request.query_string
        target = f"{path}?{query}" if query else path
        stored = self._fetch("GET", target)
        if stored.status in (401, 403):
            return None
        headers, link = {}, stored.headers.get("link", "")
        # Clients send their token to a list's next page: that must be here.
        if link.startswith(f"<{self.upstream}/"):
            headers["link"] = link.replace(self.upstream, request.base_url)
        if stored.status == 404 and stored.headers.get("x-error-code", "RepoNotFound") == "RepoNotFound":
            return None
        for name in ("x-error-code", "x-error-message"):
            if name in stored.headers:
                headers[name] = stored.headers[name]
        return Response(stored.body, stored.status, headers, "application/json")

    def _file(self, request: Request, path: str) -> Response | None:
        if path.endswith("/" + YANKED_NAME):
            return self._yanked(path)
        head = self._fetch("HEAD", path)
        if head.status != 200:
            code = head.headers.get("x-error-code", "")
            if head.status == 404 and code in ("EntryNotFound", "RevisionNotFound"):
                headers = {name: head.headers[name] for name in ("x-repo-commit",) if name in head.headers}
                raise HTTPError(404, "The upstream has no such file or revision.", code=code, headers=headers)
            return None
        etag = head.headers.get("x-linked-etag", head.headers.get("etag", "")).removeprefix("W/").strip('"')
        size = head.headers.get("x-linked-size", head.headers.get("content-length", ""))
        commit = head.headers.get("x-repo-commit", "")
        if (
            not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag)
            or not re.fullmatch(r"[0-9]{1,15}", size)
            or not is_commit(commit)
        ):
            raise HTTPError(502, "The upstream sent no valid digest, size or commit for the file.")
        headers = {"X-Repo-Commit": commit}
        if len(etag) == 64:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": size}
        present = self._present(etag, int(size))
        if present is not None or request.method == "HEAD":
            file = TreeFile(present or etag, int(size), etag, len(etag) == 64)
            return send_file(request, file, headers, "application/octet-stream", path.rpartition("/")[2])
        headers |= {"ETag": f'"{etag}"', "Content-Length": size, "Accept-Ranges": "none"}
        pieces = self._through(path, etag, int(size))
        return StreamingResponse(pieces, 200, headers, "application/octet-stream")

    def _present(self, etag: str, size: int) -> str | None:
        """The sha256 of a content that the upstream sent before and that is still here."""
        try:
            # Not whatever the store has: the upstream could name the digest of somebody's private file.
            sha256 = (self.root / "digests" / etag).read_text()
        except FileNotFoundError:
            return None
        return sha256 if self.store.blobs.size(sha256) == size else None

    def _through(self, path: str, etag: str, size: int) -> Iterator[bytes]:
        """The file as it arrives, stored on the way. The last piece is sent only once all is verified."""
        try:
            with self._breaker.asking():
                stream, _ = self._open("GET", path)
        except (_UnreachableError, urllib.error.HTTPError) as error:
            raise OSError("the upstream does not send the file") from error
        with stream, self.store.uploads.writer(size=size) as writer:
            last = b""
            until = time.monotonic() + ANSWER_SECONDS + size / SLOWEST
            while piece := _piece(stream):
                if time.monotonic() > until:
                    raise OSError("the upstream is too slow")
                writer.write(piece)
                if last:
                    yield last
                last = piece
            try:
                blob = writer.finish(sha256=etag if len(etag) == 64 else None)
            except IntegrityError as error:
                raise OSError(f"the upstream sent something else: {error}") from error
            if len(etag) == 40 and blob.oid != etag:
                raise OSError("the upstream sent something else than its digest says")
            write_bytes(self.root / "digests" / etag, blob.sha256.encode())
            yield last

    def _yanked(self, path: str) -> Response:
        """The list of yanked releases, which is kept apart from the contents that a `gc` removes."""
        stored = self._fetch("GET", path)
        commit = stored.headers.get("x-repo-commit", "")
        headers = {"X-Repo-Commit": commit} if is_commit(commit) else {}
        if stored.status != 200:
            code = stored.headers.get("x-error-code", "EntryNotFound")
            raise HTTPError(404, "The upstream has no such file or revision.", code=code, headers=headers)
        body = stored.body.encode()
        digest = stored.headers.get("etag", "").removeprefix("W/").strip('"')
        if digest not in (git_oid(body), hashlib.sha256(body).hexdigest()) or not headers:
            raise HTTPError(502, "The upstream sent no valid digest, size or commit for the file.")
        return Response(body, 200, {**headers, "ETag": f'"{digest}"'}, "application/json")

    def _fetch(self, method: str, target: str) -> _Stored:
        """The upstream's response, or the stored one when it cannot be reached. Raises `HTTPError` 504."""
        place = self.root / "answers" / hashlib.sha256(f"{method} {target}".encode()).hexdigest()
        try:
            with self._breaker.asking():
                stream, headers = self._open(method, target)
                with stream:
                    body = _document_in(stream) if method == "GET" else ""
            stored = _Stored(200, _relevant(headers), body)
            kept = {"keep": True} if target.endswith("/" + YANKED_NAME) else {}
            write_bytes(place, canonical_json({"headers": stored.headers, "body": body, **kept}))
            self._forget_answers()
            return stored
        except urllib.error.HTTPError as error:
            body = ""
            with error, suppress(http.client.HTTPException, OSError):
                body = error.read(10_000).decode("utf-8", "replace")
            if error.code in (404, 410) and place.exists():
                # What is gone does not come back when the upstream cannot be reached.
                gone = {"status": error.code, "headers": _relevant(error.headers), "body": body}
                write_bytes(place, canonical_json(gone))
            return _Stored(error.code, _relevant(error.headers), body)
        except _UnreachableError as error:
            try:
                document = json.loads(place.read_bytes())
            except FileNotFoundError:
                raise HTTPError(504, f"The upstream cannot be reached: {error}") from None
            return _Stored(document.get("status", 200), document["headers"], document["body"])

    def _forget_answers(self) -> None:
        """Now and then remove the answers that are oldest, beyond `ANSWERS` of them or `ANSWERS_BYTES`.

        What says that something is gone or yanked stays.
        """
        self._until_forgetting -= 1
        if self._until_forgetting > 0:
            return
        self._until_forgetting = FORGETTING
        answers = []
        for place in (self.root / "answers").iterdir():
            with suppress(FileNotFoundError):
                facts = place.stat()
                answers.append((facts.st_mtime, facts.st_size, place))
        number, size = len(answers), sum(bytes_ for _, bytes_, _ in answers)
        for _, bytes_, place in sorted(answers):
            if number <= ANSWERS and size <= ANSWERS_BYTES:
                break
            with suppress(OSError, ValueError):
                document = json.loads(place.read_bytes())
                if "status" in document or document.get("keep"):
                    continue
                place.unlink()
            number -= 1
            size -= bytes_

    def _open(self, method: str, target: str) -> tuple[IO[bytes], Message]:
        request = urllib.request.Request(self.upstream + target, method=method)
        request.add_header("Accept-Encoding", "identity")
        request.add_header("User-Agent", "modhub-mirror")
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            response = self._opener.open(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            if (
                method == "HEAD"
                and error.code in (301, 302, 303, 307, 308)
                and "X-Linked-Etag" in error.headers
            ):
                return error, error.headers
            if error.code < 400 or error.code >= 500 or error.code == 429:
                raise _UnreachableError(f"status {error.code}") from error
            raise
        # ValueError: it redirects to something that is not a URL.
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise _UnreachableError(str(getattr(error, "reason", error))) from error
        return response, response.headers


def _piece(stream: IO[bytes]) -> bytes:
    """More of a file. Raises `OSError`."""
    try:
        return stream.read(PIECE)
    except http.client.HTTPException as error:
        raise OSError("the upstream breaks off") from error


def _document_in(stream: IO[bytes]) -> str:
    """A response of the API, complete JSON: a truncated one must not replace a stored one.

    Raises `_UnreachableError`.
    """
    try:
        until, pieces, size = time.monotonic() + ANSWER_SECONDS, [], 0
        while piece := _some(stream):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > until or size > ANSWER_LIMIT:
                raise OSError("its response takes too long")
        body = b"".join(pieces)
        json.loads(body)
    except (http.client.HTTPException, OSError, ValueError, RecursionError) as error:
        raise _UnreachableError("its response is not JSON") from error
    return body.decode("utf-8", "replace")


def _some(stream: IO[bytes]) -> bytes:
    """What has come of a response by now, at most `PIECE` bytes."""
    read = getattr(stream, "read1", stream.read)
    some: bytes = read(PIECE)
    return some


def _is_plain(path: str) -> bool:
    """Whether no part of the path leads elsewhere than it says, encoded or not."""
    parts = unquote(path).split("/")[1:]
    return not any(part in ("", ".", "..") or "\\" in part or not is_text(part) for part in parts)


class _Breaker:
    """Lets requests pass to the upstream while it answers, and a few at one time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._failures = 0
        self._until = 0.0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around a request. Raises `_UnreachableError`."""
        with self._lock:
            if time.monotonic() < self._until:
                raise _UnreachableError("it did not answer a moment ago")
            if self._waiting >= WAITING:
                raise _UnreachableError("too many requests wait for it")
            self._waiting += 1
        try:
            yield
        except _UnreachableError:
            with self._lock:
                self._failures += 1
                if self._failures >= FAILURES:
                    self._until = time.monotonic() + PAUSE_SECONDS
            raise
        except BaseException:
            self._answered()
            raise
        else:
            self._answered()
        finally:
            with self._lock:
                self._waiting -= 1

    def _answered(self) -> None:
        with self._lock:
            self._failures = 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the upstream's own hosts and to configured ones.

    Does not follow a HEAD's: only the first response has commit and digest.
    """

    def __init__(self, upstream: str, hosts: tuple[str, ...]) -> None:
        self._upstream = urlsplit(upstream)
        self._hosts = {host.lower() for host in hosts}

    def _allows(self, address: str) -> bool:
        """Raises `ValueError` for what is no address, `OSError` for a host without one."""
        target = urlsplit(address)
        host, port = (target.hostname or "").lower(), target.port or _PORTS.get(target.scheme)
        if target.scheme not in _PORTS or (self._upstream.scheme, target.scheme) == ("https", "http"):
            return False
        if {host, f"{host}:{port}"} & self._hosts:
            return True
        upstream_port = self._upstream.port or _PORTS[self._upstream.scheme]
        if (host, port) == ((self._upstream.hostname or "").lower(), upstream_port):
            return True
        if self._upstream.geturl() != OFFICIAL or not host.endswith(OFFICIAL_HOSTS):
            return False
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return all(ip_address(str(place[4][0]).partition("%")[0]).is_global for place in addresses)

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.get_method() == "HEAD" and "X-Linked-Etag" in headers:
            return None
        if not self._allows(newurl):
            raise urllib.error.URLError(
                f"it redirects to {urlsplit(newurl).netloc[:100]}, which --upstream-host does not allow"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _relevant(headers: Message) -> dict[str, str]:
    names = (*_HEADERS, "x-error-code", "x-error-message")
    return {name: value for name in names if (value := headers.get(name)) is not None}
