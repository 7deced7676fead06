"""Writing: card check, preupload, and the commit itself, streamed."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.errors import ConflictError, ManifestError, NotFoundError, RefError, StaleParentError
from modhub.refs import is_commit, is_sha256
from modhub.server.errors import HTTPError
from modhub.server.http.body import batches
from modhub.server.http.request import Request, text_field
from modhub.server.http.routing import Routes
from modhub.server.protocol.commit_stream import CommitReader, Line
from modhub.server.protocol.documents import web_address
from modhub.server.protocol.gitignore import IgnoreRules
from modhub.server.protocol.pull_requests import proposable, pull_for_writing
from modhub.server.protocol.repositories import REPOSITORY
from modhub.store.blobs import Blob
from modhub.store.changes import Delete, Link, Put, StoreChange
from modhub.store.commits import full_ref
from modhub.store.front_matter import parse_front_matter
from modhub.store.paths import check_path
from modhub.store.records import RepositoryRecord
from modhub.store.store import Store
from modhub.store.tree import TreeFile

routes = Routes()
PREUPLOAD_LIMIT = 1000
LFS_FROM_BYTES = 1 << 20
_OLD_CLIENT = re.compile(r"hf_hub/(?:0\.|1\.1?\d\.)")
_PULL = re.compile(r"refs/pr/([1-9][0-9]{0,8})\Z")
STALE = "The branch was updated since you opened this page. Please refresh and try again."


@routes.post("/api/validate-yaml")
def validate_card(request: Request) -> Response:
    """Check the front matter of a card. The response is JSON, or text for `Accept: text/plain`."""
    content = text_field(request.json(), "content", limit=1 << 20).replace("\r\n", "\n")
    problems = _problems(content)
    warnings = [] if content.startswith("---\n") else [{"message": "The card has no YAML metadata."}]
    if problems and "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse("\n".join(f"- Error: {problem}" for problem in problems), 400)
    document = {"errors": [{"message": problem} for problem in problems], "warnings": warnings}
    return JSONResponse(document, 400 if problems else 200)


def _problems(content: str) -> list[str]:
    try:
        document = parse_front_matter(content)
    except ManifestError as error:
        return [error.message]
    problems = []
    for name in ("license", "library_name", "pipeline_tag"):
        value = document.get(name)
        if (
            value is not None
            and not isinstance(value, str)
            and not (name == "license" and isinstance(value, list))
        ):
            problems.append(f'"{name}" must be a string')
    tags = document.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        problems.append('"tags" must be an array of strings')
    return problems


@routes.post(REPOSITORY + "/preupload/{revision}", body_limit=16 << 20)
def preupload(request: Request) -> Response:
    record = _writable(request)
    body = request.json()
    files = body.get("files")
    if not isinstance(files, list) or len(files) > PREUPLOAD_LIMIT:
        raise HTTPError(400, f'"files" must be a list of at most {PREUPLOAD_LIMIT} files')
    commit = request.commit_of(record, request.values["revision"])
    store = request.store
    tree = store.reader.tree(record.key, commit)
    rules = text_field(body, "gitIgnore", "", limit=1 << 20)
    if not rules and ".gitignore" in tree and tree[".gitignore"].size < 1 << 20:
        rules = store.reader.read(record.key, commit, ".gitignore").decode("utf-8-sig", "replace")
    paths: list[str] = []
    for file in files:
        if not isinstance(file, dict) or not isinstance(file.get("size"), int):
            raise HTTPError(400, 'Each file needs a "path" and a "size".')
        paths.append(text_field(file, "path", limit=1000))
    ignored = IgnoreRules.of(rules).ignored(paths)
    lfs = _wants_lfs(request.headers.get("user-agent", ""))
    answers = []
    for path, file in zip(paths, files, strict=True):
        by_lfs = lfs and file["size"] >= LFS_FROM_BYTES
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if by_lfs else "regular",
                "shouldIgnore": path in ignored,
                "oid": _present_oid(store, tree.get(path), file["size"], by_lfs),
            }
        )
    return JSONResponse({"files": answers, "commitOid": commit})


def _wants_lfs(user_agent: str) -> bool:
    """Whether the client supports plain LFS.

    Newer stock clients refuse it wherever hf_xet is installed, without saying so; they send everything inside
    the commit. Older ones, and modhub's, leave the choice to the server.
    """
    return "modhub-lfs/1" in user_agent or bool(_OLD_CLIENT.search(user_agent))


def _present_oid(store: Store, file: TreeFile | None, size: int, by_lfs: bool) -> str | None:
    """The digest by which a client sees that its file is unchanged; None makes the client send it."""
    if file is None or file.size != size or not store.reader.holds(file):
        return None
    return file.sha256 if by_lfs else file.oid


def _writable(request: Request) -> RepositoryRecord:
    """The repository, for writing; for a pull request a named principal who may read it suffices."""
    revision = request.values["revision"]
    if request.flag("create_pr"):
        return proposable(request)
    if match := _PULL.match(revision):
        record = proposable(request)
        pull_for_writing(request, record, int(match[1]))
        return record
    return request.repository("write")


@routes.stream("POST", REPOSITORY + "/commit/{revision}")
async def commit(request: Request) -> Response:
    record = await request.in_thread(_writable, request)
    work = _Commit(request, record)
    try:
        await request.in_thread(work.begin)
        async for batch in batches(request.http, limit=request.state.options.upload_limit):
            request.state.metrics.count("received", len(batch))
            await request.in_thread(work.reader.feed, batch)
        response: Response = await request.in_thread(work.finish)
    finally:
        work.close()
    return response


class _Commit:
    """One commit while it arrives."""

    def __init__(self, request: Request, record: RepositoryRecord) -> None:
        self.request = request
        self.record = record
        self.header: dict[str, Any] | None = None
        self.changes: list[StoreChange] = []
        self.reader = CommitReader(request.store.uploads.writer, self._take)
        self._writing = ExitStack()

    def begin(self) -> None:
        """Keep what arrives from a garbage collection until `close`."""
        self._writing.enter_context(self.request.store.blobs.writing())

    def close(self) -> None:
        self.reader.close()
        self._writing.close()

    def _take(self, line: Line) -> None:
        key, value, blob = line
        if key == "header":
            self.header = value
        elif self.header is None:
            raise HTTPError(400, "The first line of a commit must be its header.")
        elif key == "file":
            self.changes.append(self._file(value, blob))
        elif key == "lfsFile":
            self.changes.append(_lfs_file(value))
        elif key in ("deletedFile", "deletedFolder", "deletedEntry"):
            self.changes.append(Delete(_path(value).rstrip("/")))
        else:
            raise HTTPError(400, f"Unknown commit line {key[:40]!r}.")

    def _file(self, value: dict[str, Any], blob: Blob | None) -> StoreChange:
        if value.get("encoding", "base64") != "base64" or blob is None:
            raise HTTPError(400, "The content of a file must be base64.")
        return Put(_path(value), blob)

    def finish(self) -> Response:
        self.reader.finish()
        if self.header is None:
            raise HTTPError(400, "The commit has no header.")
        title = text_field(self.header, "summary", "", limit=2000).strip()
        if not title:
            raise HTTPError(400, "The commit has no summary.")
        parent = self.header.get("parentCommit")
        if parent is not None and not (isinstance(parent, str) and is_commit(parent)):
            raise HTTPError(400, '"parentCommit" must be a commit id of 40 hex digits')
        request, record, store = self.request, self.record, self.request.store
        description = text_field(self.header, "description", "", limit=1 << 18)
        if not request.flag("create_pr") and (head := self._head_if_unchanged()):
            if parent not in (None, head):
                raise HTTPError(412, STALE)
            return JSONResponse(self._answer(head))
        revision = "main" if request.values["revision"] == "HEAD" else request.values["revision"]
        try:
            if not request.flag("create_pr"):
                created = store.commits.create(
                    record.key,
                    self.changes,
                    title=title,
                    description=description,
                    actor=request.actor,
                    parent=parent,
                    ref=_branch(revision),
                )
                return JSONResponse(self._answer(created.id))
            request.commit_of(record, revision)
            pull, created = store.pull_requests.propose(
                record.key,
                self.changes,
                title=title,
                description=description,
                actor=request.actor,
                parent=parent,
                target=revision,
            )
        except StaleParentError:
            raise HTTPError(412, STALE) from None
        url = web_address(request.base_url, record, "discussions", str(pull.number))
        return JSONResponse({**self._answer(created.id), "pullRequestUrl": url})

    def _head_if_unchanged(self) -> str | None:
        """The newest commit, when this one would change nothing.

        Clients send such commits when all files of a folder are ignored, and 0.36 sends unchanged files.
        """
        head = self.request.commit_of(self.record, self.request.values["revision"])
        tree = self.request.store.reader.tree(self.record.key, head)
        same = all(
            (digest := _digest_of(change)) and (file := tree.get(change.path)) and file.sha256 == digest
            for change in self.changes
        )
        return head if same else None

    def _answer(self, commit: str) -> dict[str, Any]:
        url = web_address(self.request.base_url, self.record, "commit", commit)
        return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}


def _branch(revision: str) -> str:
    try:
        return full_ref(revision)
    except RefError:
        raise HTTPError(404, f"Invalid rev id: {revision[:100]}", code="RevisionNotFound") from None


def _digest_of(change: StoreChange) -> str | None:
    if isinstance(change, Put):
        return change.blob.sha256
    return change.sha256 if isinstance(change, Link) else None


def _lfs_file(value: dict[str, Any]) -> Link:
    oid, size = value.get("oid"), value.get("size")
    if value.get("algo", "sha256") != "sha256" or not isinstance(oid, str) or not is_sha256(oid):
        raise HTTPError(400, "An LFS file needs its sha256, 64 hex digits.")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise HTTPError(400, "The size of an LFS file must be a number of bytes.")
    return Link(_path(value), oid, size, lfs=True)


def _path(value: dict[str, Any]) -> str:
    path = text_field(value, "path", limit=2000)
    check_path(path.rstrip("/"))
    return path


@routes.post(REPOSITORY + "/lfs-files/batch")
def delete_lfs_files(request: Request) -> Response:
    """Delete the files with these contents from main; with `rewriteHistory` from its history, too."""
    record = request.repository("write")
    deletions = request.json().get("deletions")
    oids = deletions.get("sha") if isinstance(deletions, dict) else None
    if not isinstance(deletions, dict) or not isinstance(oids, list):
        raise HTTPError(400, '"deletions.sha" must be a list of file oids')
    store = request.store
    tree = store.reader.tree(record.key, "main")
    digests = {oid for oid in oids if isinstance(oid, str)}
    changes = [
        Delete(path) for path, file in tree.items() if file.lfs and digests & {file.git_oid, file.sha256}
    ]
    try:
        if changes:
            store.commits.create(record.key, changes, title="Delete LFS files", actor=request.actor)
        if deletions.get("rewriteHistory"):
            store.commits.squash(record.key, "main", title="Delete LFS files", actor=request.actor)
    except (ConflictError, NotFoundError):
        raise HTTPError(412, STALE) from None
    return JSONResponse({"success": True})
