"""File downloads: GET, HEAD, ranges, ETags."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from modhub.errors import StorageError
from modhub.server.errors import HTTPError, missing_file
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.store.tree import TreeFile

routes = Routes()
AT_ONCE = 256 << 10
PIECE = 512 << 10
_OLD_CLIENT = re.compile(r"hf_hub/0\.")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_TEXT = frozenset(
    [
        ".cfg",
        ".csv",
        ".gitattributes",
        ".gitignore",
        ".html",
        ".ini",
        ".js",
        ".json",
        ".jsonl",
        ".lock",
        ".md",
        ".py",
        ".svg",
        ".toml",
        ".txt",
        ".xml",
        ".yaml",
        ".yml",
    ]
)
_IMAGES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
# User content is shown as text or downloaded, and may run nothing.
POLICY = "default-src 'none'; sandbox"


@routes.get(
    "/{web}{namespace}/{name}/resolve/{revision}/{path*}", "/{web}{namespace}/{name}/raw/{revision}/{path*}"
)
def resolve(request: Request) -> Response:
    record = request.repository("read")
    commit = request.commit_of(record, request.values["revision"])
    path = request.values["path"]
    file = request.store.reader.tree(record.key, commit).get(path)
    if file is None:
        raise missing_file(path, commit)
    if request.method == "GET" and _counts(request):
        # A full or read-only disk can still serve the file.
        with suppress(StorageError):
            visit = request.state.signer.pseudonym(request.client, record.key.path, commit)
            request.store.repositories.count_download(record.key, visit)
    headers = {"X-Repo-Commit": commit}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    media = _media_type(PurePosixPath(path), file)
    return send_file(request, file, headers, media, PurePosixPath(path).name)


def _counts(request: Request) -> bool:
    """Whether a client is downloading: newer ones say so, older stock clients do nothing else here."""
    return bool(
        request.headers.get("x-hf-download-counter")
        or _OLD_CLIENT.search(request.headers.get("user-agent", ""))
    )


def _media_type(path: PurePosixPath, file: TreeFile) -> str:
    suffix = path.suffix.lower() or path.name.lower()
    if suffix in _TEXT and not file.lfs:
        return "text/plain; charset=utf-8"
    return _IMAGES.get(suffix, "application/octet-stream")


def send_file(request: Request, file: TreeFile, headers: dict[str, str], media: str, name: str) -> Response:
    """The file or the requested range of it; large ones are streamed."""
    etag = f'"{file.sha256 if file.lfs else file.oid}"'
    headers = {
        **headers,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": media,
        "Content-Security-Policy": POLICY,
        "Access-Control-Expose-Headers": "X-Repo-Commit, X-Linked-Etag, X-Linked-Size, ETag, Content-Range",
        "Cache-Control": "private, no-cache",
    }
    if name:
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(name, safe='')}"
    if _matches_etag(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    start, stop, status = _requested_range(request, file.size, etag)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    stream = request.store.reader.open(file.sha256, start)
    if stop - start <= AT_ONCE:
        with stream:
            return Response(stream.read(stop - start), status, headers)
    return StreamingResponse(_pieces(stream, stop - start), status, headers)


def _matches_etag(header: str, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`; a compressing proxy makes it weak."""
    return any(value.strip().removeprefix("W/") in (etag, "*") for value in header.split(","))


def _requested_range(request: Request, size: int, etag: str) -> tuple[int, int, int]:
    """First byte, the byte after the last, and the status. Several ranges are answered with the full file."""
    header = request.headers.get("range", "")
    condition = request.headers.get("if-range", etag)
    match = _RANGE.match(header.replace(" ", ""))
    if match is None or condition != etag or not (match[1] or match[2]):
        return 0, size, 200
    if match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1 if match[2] else size, size)
    else:
        start, stop = max(0, size - int(match[2])), size
    if start >= size or start >= stop:
        raise HTTPError(416, "The range is outside the file.", headers={"Content-Range": f"bytes */{size}"})
    return start, stop, 206


async def _pieces(stream: BinaryIO, left: int) -> AsyncIterator[bytes]:
    try:
        while left > 0:
            piece = await anyio.to_thread.run_sync(stream.read, min(PIECE, left))
            if not piece:
                # Breaks the connection: better than a short file that looks complete.
                raise OSError("a stored file is shorter than its record says")
            left -= len(piece)
            yield piece
    finally:
        stream.close()
