"""Pull-through cache: requests for repositories that are not here are answered from another hub.

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
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO

from starlette.responses import Response, StreamingResponse

from modhub.errors import IntegrityError
from modhub.files import canonical_json, write_bytes
from modhub.refs import is_commit
from modhub.server.errors import HTTPError
from modhub.server.http.request import Request
from modhub.server.protocol.downloads import send_file
from modhub.store.store import Store
from modhub.store.tree import TreeFile

__all__ = ["Mirror"]

OFFICIAL = "https://huggingface.co"
SECONDS = 20
ANSWER_LIMIT = 64 << 20
PIECE = 512 << 10
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
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.upstream = OFFICIAL if self.upstream == "hf" else self.upstream.rstrip("/")
        self.root = self.store.root / "mirror"

    def answer(self, request: Request) -> Response | None:
        """The upstream's response for a repository that is not here; None when it has none."""
        path = request.raw_path
        if request.method not in ("GET", "HEAD"):
            return None
        if _API.match(path):
            return self._document(request, path)
        return self._file(request, path) if _FILE.match(path) else None

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
        """The sha256 of a content that was downloaded before and is still here."""
        try:
            sha256 = etag if len(etag) == 64 else (self.root / "digests" / etag).read_text()
        except FileNotFoundError:
            return None
        return sha256 if self.store.blobs.size(sha256) == size else None

    def _through(self, path: str, etag: str, size: int) -> Iterator[bytes]:
        """The file as it arrives, stored on the way. The last piece is sent only once all is verified."""
        try:
            stream, _ = self._open("GET", path)
        except (_UnreachableError, urllib.error.HTTPError) as error:
            raise OSError("the upstream does not send the file") from error
        with stream, self.store.uploads.writer(size=size) as writer:
            last = b""
            while piece := _piece(stream):
                writer.write(piece)
                if last:
                    yield last
                last = piece
            try:
                blob = writer.finish(sha256=etag if len(etag) == 64 else None)
            except IntegrityError as error:
                raise OSError(f"the upstream sent something else: {error}") from error
            if len(etag) == 40:
                if blob.oid != etag:
                    raise OSError("the upstream sent something else than its digest says")
                write_bytes(self.root / "digests" / etag, blob.sha256.encode())
            yield last

    def _fetch(self, method: str, target: str) -> _Stored:
        """The upstream's response, or the stored one when it cannot be reached. Raises `HTTPError` 504."""
        place = self.root / "answers" / hashlib.sha256(f"{method} {target}".encode()).hexdigest()
        try:
            stream, headers = self._open(method, target)
            with stream:
                body = _document_in(stream) if method == "GET" else ""
            stored = _Stored(200, _relevant(headers), body)
            write_bytes(place, canonical_json({"headers": stored.headers, "body": body}))
            return stored
        except urllib.error.HTTPError as error:
            body = ""
            with error, suppress(http.client.HTTPException, OSError):
                body = error.read(10_000).decode("utf-8", "replace")
            return _Stored(error.code, _relevant(error.headers), body)
        except _UnreachableError as error:
            try:
                document = json.loads(place.read_bytes())
            except FileNotFoundError:
                raise HTTPError(504, f"The upstream cannot be reached: {error}") from None
            return _Stored(200, document["headers"], document["body"])

    def _open(self, method: str, target: str) -> tuple[IO[bytes], Message]:
        request = urllib.request.Request(self.upstream + target, method=method)
        request.add_header("Accept-Encoding", "identity")
        request.add_header("User-Agent", "modhub-mirror")
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        opener = urllib.request.build_opener(_NoRedirectForHead())
        try:
            response = opener.open(request, timeout=SECONDS)
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
        body = stream.read(ANSWER_LIMIT)
        json.loads(body)
    except (http.client.HTTPException, OSError, ValueError, RecursionError) as error:
        raise _UnreachableError("its response is not JSON") from error
    return body.decode("utf-8", "replace")


class _NoRedirectForHead(urllib.request.HTTPRedirectHandler):
    """Does not follow a HEAD's redirect: only the first response has commit and digest."""

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
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _relevant(headers: Message) -> dict[str, str]:
    names = (*_HEADERS, "x-error-code", "x-error-message")
    return {name: value for name in names if (value := headers.get(name)) is not None}
