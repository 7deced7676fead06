"""Git LFS: the batch route, uploads to signed URLs (in one piece or in parts), verification, downloads.

Clients send no token to an upload URL, so it is signed: what it allows, the token it was given for, the
repository, digest, size and expiry. It ends with the token, and with what the token's user may do. An upload
may be used by the repository it was sent to, and by no other. What a public repository has, of which a trunk
is the largest, need not be sent.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import JSONResponse, Response

from modhub.errors import AccessError, IntegrityError, ModhubError
from modhub.files import sha256_of_bytes, write_text
from modhub.refs import is_sha256
from modhub.server.auth.principal import ANONYMOUS, authorize, missing_repository
from modhub.server.auth.signing import LIFETIME
from modhub.server.errors import HTTPError
from modhub.server.http.body import batches
from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.server.protocol.documents import repository_path
from modhub.server.protocol.downloads import send_file
from modhub.store.blobs import BlobWriter
from modhub.store.index import Query
from modhub.store.records import RepositoryKey, RepositoryRecord
from modhub.store.store import Store
from modhub.store.tree import TreeFile

routes = Routes()
GIT = "/{web}{namespace}/{name}.git/info/lfs/"
UPLOAD = "/lfs/{kind}s/{namespace}/{name}/{sha256}/{size}"
MEDIA = "application/vnd.git-lfs+json"
OBJECTS_LIMIT = 1000
MULTIPART_FROM = 512 << 20
PART = 64 << 20
PARTS_LIMIT = 10_000
_HOLDERS = 200
"""Public repositories that may be asked for an object."""
_SECONDS = 1.0
"""How long they are asked."""
SLOWEST = 1 << 20
"""Bytes a second: an address is good for as long as its batch takes at this rate, and `LIFETIME` more."""
_ACTIONS = {"read": "read", "write": "write", "propose": "read"}
"""What an address allows, and what its user must be allowed to do for that; who may read may propose."""


@routes.post(GIT + "objects/batch", "/{web}{namespace}/{name}/info/lfs/objects/batch")
def batch(request: Request) -> Response:
    record = request.repository("see")
    body = request.json()
    operation, objects = body.get("operation"), body.get("objects")
    if operation not in ("upload", "download"):
        raise HTTPError(422, '"operation" must be upload or download')
    if body.get("hash_algo", "sha256") != "sha256":
        raise HTTPError(409, "Unsupported hash algorithm; this hub uses sha256.")
    if not isinstance(objects, list) or len(objects) > OBJECTS_LIMIT:
        raise HTTPError(413, f'"objects" must be a list of at most {OBJECTS_LIMIT} objects')
    right = "write" if operation == "upload" else "read"
    if operation == "upload" and _proposes(body) and request.principal.role in ("write", "admin"):
        right = "propose" if request.principal.name else "write"
    record = request.repository(_ACTIONS[right])
    if operation == "upload":
        request.state.refuse_when_read_only()
    sizes = [item["size"] for item in objects if isinstance(item, dict) and _is_size(item.get("size"))]
    seconds = LIFETIME + sum(sizes) // SLOWEST
    grant = _Grant(request, record, right, seconds)
    transfers = body.get("transfers")
    multipart = isinstance(transfers, list) and "multipart" in transfers
    answers, chosen = [], "basic"
    oids = [item.get("oid") for item in objects if isinstance(item, dict)]
    asked = [oid for oid in oids if isinstance(oid, str)]
    present = request.store.uploads.find_all(record.key, asked)
    if operation == "upload":
        present |= _published(request.store, record.key, [oid for oid in asked if oid not in present])
    for item in objects:
        answer = _object(grant, item, multipart, present)
        answers.append(answer)
        if "chunk_size" in answer.get("actions", {}).get("upload", {}).get("header", {}):
            chosen = "multipart"
    document = {"transfer": chosen, "objects": answers, "hash_algo": "sha256"}
    return JSONResponse(document, media_type=MEDIA)


def _published(store: Store, key: RepositoryKey, oids: list[str]) -> dict[str, TreeFile]:
    """Those of `oids` that a repository has which is open to everyone; the most downloaded are asked.

    A digest proves no ownership; of bytes that anybody may download it need not.
    """
    public = Query(kind=None, gated=False, visible=())
    until = time.monotonic() + _SECONDS

    def holders() -> Iterator[RepositoryKey]:
        for entry in store.index.search(public, sort="downloads", limit=_HOLDERS):
            if time.monotonic() > until:
                return
            if entry.key == key:
                continue
            # The index may be a moment behind.
            with suppress(ModhubError, HTTPError):
                authorize(ANONYMOUS, store.repositories.get(entry.key), "read")
                yield entry.key

    return store.uploads.share(key, oids, holders())


def _proposes(body: dict[str, Any]) -> bool:
    ref = body.get("ref")
    name = ref.get("name") if isinstance(ref, dict) else None
    return isinstance(name, str) and name.startswith("refs/pr/")


@dataclass(frozen=True, slots=True)
class _Grant:
    """What the addresses of one answer allow (a key of `_ACTIONS`), and for how many seconds."""

    request: Request
    record: RepositoryRecord
    right: str
    seconds: int

    def query(self, oid: str, size: int) -> str:
        """What follows the `?` of an object's address."""
        token = self.request.principal.token
        parts = ("lfs", self.right, token, self.record.key.path, oid, str(size))
        signature = self.request.state.signer.sign(*parts, lifetime=self.seconds)
        return urlencode({"right": self.right, "token": token, "signature": signature})


def _check_grant(request: Request, key: RepositoryKey, *rights: str) -> None:
    """Raises `HTTPError` unless the address is signed for one of `rights`, and its token still has it."""
    right, token = request.parameter("right"), request.parameter("token")
    values = request.values
    parts = ("lfs", right, token, key.path, values["sha256"], values["size"])
    request.state.signer.check(request.parameter("signature"), *parts)
    if right not in rights:
        raise HTTPError(403, "This URL is for something else.")
    record = request.find_repository(key)
    if record is None:
        raise missing_repository(request.principal)
    try:
        principal = request.state.accounts.principal_of(token) if token else ANONYMOUS
    except AccessError:
        raise HTTPError(403, "The token of this URL is expired or revoked.") from None
    authorize(principal, record, _ACTIONS[right])


def _object(grant: _Grant, item: object, multipart: bool, present: Mapping[str, TreeFile]) -> dict[str, Any]:
    request, record = grant.request, grant.record
    oid = item.get("oid") if isinstance(item, dict) else None
    size = item.get("size") if isinstance(item, dict) else None
    if not isinstance(oid, str) or not is_sha256(oid) or not isinstance(size, int) or not _is_size(size):
        message = "Each object needs an oid (sha256) and a size."
        return {"oid": str(oid)[:64], "size": 0, "error": {"code": 422, "message": message}}
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    present_size = present[oid].size if oid in present else None
    if grant.right == "read":
        if present_size is None:
            return {**answer, "error": {"code": 404, "message": "Object does not exist."}}
        query = grant.query(oid, present_size)
        href = f"{request.base_url}{_place(record, oid, present_size)}?{query}"
        return {**answer, "size": present_size, "actions": {"download": {"href": href}}}
    if present_size is not None:
        if present_size != size:
            return {
                **answer,
                "error": {"code": 422, "message": f"This object has {present_size} bytes, not {size}."},
            }
        return answer
    if size > request.state.options.upload_limit:
        return {**answer, "error": {"code": 422, "message": "The object exceeds this hub's size limit."}}
    return {**answer, "actions": _upload(grant, oid, size, multipart)}


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 50


def _place(record: RepositoryRecord, oid: str, size: int) -> str:
    return f"/lfs/{record.kind}s/{quote(str(record.id))}/{oid}/{size}"


def _upload(grant: _Grant, oid: str, size: int, multipart: bool) -> dict[str, Any]:
    request, record = grant.request, grant.record
    place, query = request.base_url + _place(record, oid, size), grant.query(oid, size)
    verify = {"href": f"{request.base_url}/{repository_path(record)}.git/info/lfs/verify"}
    if authorization := request.headers.get("authorization"):
        verify = {**verify, "header": {"Authorization": authorization}}  # type: ignore[dict-item]
    chunk = max(PART, -(-size // PARTS_LIMIT))
    if not multipart or size < MULTIPART_FROM:
        return {"upload": {"href": f"{place}?{query}"}, "verify": verify}
    header = {"chunk_size": str(chunk)}
    for number in range(1, -(-size // chunk) + 1):
        header[str(number)] = f"{place}/{number}?{query}&chunk={chunk}"
    return {"upload": {"href": f"{place}?{query}&chunk={chunk}", "header": header}, "verify": verify}


@routes.post(GIT + "verify", "/{web}{namespace}/{name}/info/lfs/verify")
def verify(request: Request) -> Response:
    record = request.repository("see")
    body = request.json()
    oid, size = body.get("oid"), body.get("size")
    file = request.store.uploads.find(record.key, oid) if isinstance(oid, str) else None
    if file is None or file.size != size:
        raise HTTPError(404, "No such object of this size.")
    return JSONResponse({}, media_type=MEDIA)


@routes.stream("PUT", UPLOAD)
async def put(request: Request) -> Response:
    upload = await request.in_thread(_Upload, request)
    writer: BlobWriter = await request.in_thread(upload.open)
    try:
        async for chunk in batches(request.http, limit=upload.size):
            request.state.metrics.count("received", len(chunk))
            await request.in_thread(writer.write, chunk)
        await request.in_thread(upload.finish, writer)
    finally:
        writer.__exit__(None, None, None)
    return Response(status_code=200, headers={"ETag": f'"{upload.sha256}"'})


@routes.stream("PUT", UPLOAD + "/{part}")
async def put_part(request: Request) -> Response:
    """A part of an upload, stored until all are there."""
    upload = await request.in_thread(_Upload, request)
    number, expected = upload.part(request.values["part"])
    path = upload.folder() / f"{number}.part"
    writer: BlobWriter = await request.in_thread(request.store.uploads.writer)
    try:
        total = 0
        async for chunk in batches(request.http, limit=expected):
            total += len(chunk)
            request.state.metrics.count("received", len(chunk))
            await request.in_thread(writer.write, chunk)
        if total != expected:
            raise HTTPError(422, f"Part {number} should have {expected} bytes, not {total}.")
        blob = await request.in_thread(writer.finish)
        await request.in_thread(write_text, path, blob.sha256)
    finally:
        writer.__exit__(None, None, None)
    return Response(status_code=200, headers={"ETag": f'"{blob.sha256}"'})


@routes.stream("POST", UPLOAD)
async def complete(request: Request) -> Response:
    """Join the parts. `{oid, parts: [{partNumber, etag}]}`."""
    upload = await request.in_thread(_Upload, request)
    async for _ in batches(request.http, limit=1 << 20):
        pass
    await request.in_thread(upload.assemble)
    return JSONResponse({"oid": upload.sha256}, media_type=MEDIA)


@routes.get(UPLOAD)
def download(request: Request) -> Response:
    """The object of a signed URL, which git-lfs is given."""
    key = request.key()
    sha256 = request.values["sha256"]
    _check_grant(request, key, "read")
    file = request.store.uploads.find(key, sha256)
    if file is None:
        raise missing_repository(request.principal)
    return send_file(request, replace(file, lfs=True), {}, "application/octet-stream", "")


class _Upload:
    """An upload allowed by a signed URL. Raises `HTTPError` 403 for a wrong signature."""

    def __init__(self, request: Request) -> None:
        self.store = request.store
        self.root = request.state.root
        self.key: RepositoryKey = request.key()
        self.sha256, size = request.values["sha256"], request.values["size"]
        _check_grant(request, self.key, "write", "propose")
        request.state.refuse_when_read_only()
        self.size = int(size)
        chunk = request.parameter("chunk", str(PART))
        if not re.fullmatch(r"[1-9][0-9]{0,15}", chunk) or -(-self.size // int(chunk)) > PARTS_LIMIT:
            raise HTTPError(400, "Invalid part size.")
        self.chunk = int(chunk)

    def open(self) -> BlobWriter:
        return self.store.uploads.writer(size=self.size)

    def finish(self, writer: BlobWriter) -> None:
        self.store.uploads.add(self.key, writer.finish(sha256=self.sha256))

    def folder(self) -> Path:
        # Namespace and name together may be longer than a file name may be.
        repository = sha256_of_bytes(self.key.path.encode())
        return self.root / "staging" / f"multipart-{repository}-{self.sha256}-{self.chunk}"

    def part(self, text: str) -> tuple[int, int]:
        """Number and size of a part."""
        count = -(-self.size // self.chunk)
        if not re.fullmatch(r"[1-9][0-9]{0,5}", text) or int(text) > count:
            raise HTTPError(400, f"The part number must be from 1 to {count}.")
        number = int(text)
        return number, min(self.chunk, self.size - (number - 1) * self.chunk)

    def assemble(self) -> None:
        # A client that missed the response repeats it, and two may send the same object.
        present = self.store.uploads.find(self.key, self.sha256)
        if present is None or present.size != self.size:
            self._join()
        shutil.rmtree(self.folder(), ignore_errors=True)

    def _join(self) -> None:
        count = -(-self.size // self.chunk)
        with self.open() as writer:
            for number in range(1, count + 1):
                try:
                    digest = (self.folder() / f"{number}.part").read_text()
                except FileNotFoundError:
                    raise HTTPError(422, f"Part {number} of {count} is missing; send it again.") from None
                with self.store.blobs.open(digest) as stream:
                    while chunk := stream.read(1 << 20):
                        writer.write(chunk)
            try:
                self.finish(writer)
            except IntegrityError:
                shutil.rmtree(self.folder(), ignore_errors=True)
                raise
