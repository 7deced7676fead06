"""Pull requests: open, list, comment, merge, close. Discussions without a branch are not supported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import Any

from starlette.responses import JSONResponse, Response

from modhub.errors import ConflictError, IntegrityError, NotFoundError
from modhub.server.auth.principal import authorize
from modhub.server.errors import HTTPError, not_found
from modhub.server.http.request import Request, text_field
from modhub.server.http.routing import Routes
from modhub.server.protocol.repositories import REPOSITORY
from modhub.store.records import PullRequest, RepositoryRecord

routes = Routes()
LIST = REPOSITORY + "/discussions"
PAGE = 50
HISTORY_LIMIT = 1000


def proposable(request: Request) -> RepositoryRecord:
    """The repository, if the principal may open pull requests: may read it, with a write token."""
    record = request.repository("read")
    if request.principal.name is None:
        raise HTTPError(401, "This requires authentication with a write token.")
    if request.principal.role not in ("write", "admin"):
        raise HTTPError(403, "This token is read-only.")
    request.state.refuse_when_read_only()
    return record


def pull_for_writing(request: Request, record: RepositoryRecord, number: int) -> PullRequest:
    """An open pull request of the principal, or of a repository they may write to."""
    pull = _pull(request, record, number)
    if pull.author != request.principal.name:
        authorize(request.principal, record, "write")
    if pull.status != "open":
        raise HTTPError(409, f"Pull request {number} is {pull.status}.")
    return pull


@routes.post(LIST)
def create(request: Request) -> Response:
    record = proposable(request)
    body = request.json()
    if body.get("pullRequest") is not True:
        raise HTTPError(400, "This hub supports pull requests only, no other discussions.")
    pull = request.store.pull_requests.open(
        record.key,
        title=text_field(body, "title", limit=300),
        description=text_field(body, "description", "", limit=60_000),
        actor=request.actor,
    )
    return JSONResponse({"num": pull.number, "pullRequest": True, "url": _url(request, record, pull)})


@routes.get(LIST)
def listing(request: Request) -> Response:
    record = request.repository("see")
    status, author, kind = request.parameter("status"), request.parameter("author"), request.parameter("type")
    pulls = [
        pull
        for pull in reversed(request.store.pull_requests.all(record.key))
        if (status in ("", "all") or status == ("open" if pull.status == "open" else "closed"))
        and author in ("", pull.author)
        and kind in ("", "all", "pull_request")
    ]
    start = (request.number("p", 1, 10**6) if request.parameter("p") not in ("", "0") else 0) * PAGE
    page = [_summary(record, pull) for pull in pulls[start : start + PAGE]]
    return JSONResponse({"count": len(pulls), "start": start, "discussions": page})


@routes.get(LIST + "/{number}")
def details(request: Request) -> Response:
    record = request.repository("see")
    pull = _numbered(request, record)
    pulls = request.store.pull_requests
    merged = _merge_commit(request, record, pull)
    return JSONResponse(
        {
            **_summary(record, pull),
            "changes": {"base": f"refs/heads/{pull.target}", **({"mergeCommitId": merged} if merged else {})},
            "filesWithConflicts": pulls.conflicts(record.key, pull.number) if pull.status == "open" else [],
            "diff": "",
            "events": _with_commits(request, record, pull),
        }
    )


@routes.post(LIST + "/{number}/merge")
def merge(request: Request) -> Response:
    record = request.repository("write")
    number = _numbered(request, record).number
    comment = text_field(request.json(), "comment", "", limit=60_000)
    try:
        merged = request.store.pull_requests.merge(
            record.key, number, actor=request.actor, description=comment
        )
    except ConflictError as error:
        raise HTTPError(409, str(error)) from None
    return JSONResponse(
        {
            "mergeCommitId": merged.id,
            "newStatus": _event(
                number,
                0,
                {
                    "type": "status-change",
                    "author": request.actor,
                    "date": merged.date,
                    "content": "merged",
                },
            ),
        }
    )


@routes.post(LIST + "/{number}/status")
def change_status(request: Request) -> Response:
    record = proposable(request)
    pull = _numbered(request, record)
    if pull.author != request.principal.name:
        authorize(request.principal, record, "write")
    body = request.json()
    status = body.get("status")
    if status not in ("open", "closed"):
        raise HTTPError(400, '"status" must be open or closed')
    changed = request.store.pull_requests.change_status(record.key, pull.number, status, actor=request.actor)
    return JSONResponse({"newStatus": _events(changed)[-1]})


@routes.post(LIST + "/{number}/comment")
def comment(request: Request) -> Response:
    record = proposable(request)
    pull = _numbered(request, record)
    text = text_field(request.json(), "comment", limit=60_000)
    changed = request.store.pull_requests.comment(record.key, pull.number, text, actor=request.actor)
    return JSONResponse({"newMessage": _events(changed)[-1]})


@routes.post(LIST + "/{number}/title")
def rename(request: Request) -> Response:
    record = proposable(request)
    pull = _numbered(request, record)
    if pull.author != request.principal.name:
        authorize(request.principal, record, "write")
    title = text_field(request.json(), "title", limit=300)
    changed = request.store.pull_requests.rename(record.key, pull.number, title, actor=request.actor)
    return JSONResponse({"newTitle": _events(changed)[-1]})


@routes.post(LIST + "/{number}/comment/{path*}")
def change_comment(request: Request) -> Response:
    """`<comment>/edit` or `<comment>/hide`."""
    record = proposable(request)
    pull = _numbered(request, record)
    comment, _, action = request.values["path"].partition("/")
    if action not in ("edit", "hide"):
        raise not_found()
    place, event = next(
        (
            (place, event)
            for place, event in enumerate(_events(pull))
            if event["id"] == comment and event["type"] == "comment"
        ),
        (0, None),
    )
    if event is None:
        raise HTTPError(404, "Comment not found.")
    if event["author"]["name"] != request.principal.name:
        authorize(request.principal, record, "write")
    hidden = action == "hide"
    text = "" if hidden else text_field(request.json(), "content", limit=60_000)
    changed = request.store.pull_requests.change_comment(
        record.key, pull.number, place, text, hidden=hidden, actor=request.actor
    )
    updated = _events(changed)[place]
    updated["data"] |= {"hidden": True} if hidden else {"edited": True}
    return JSONResponse({"updatedComment": updated})


def _numbered(request: Request, record: RepositoryRecord) -> PullRequest:
    text = request.values["number"]
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise HTTPError(404, "Pull request not found.")
    return _pull(request, record, int(text))


def _pull(request: Request, record: RepositoryRecord, number: int) -> PullRequest:
    try:
        return request.store.pull_requests.get(record.key, number)
    except NotFoundError:
        raise HTTPError(404, "Pull request not found.") from None


def _summary(record: RepositoryRecord, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.number,
        "title": pull.title,
        "author": {"name": pull.author or "anonymous", "type": "user"},
        "createdAt": pull.created,
        "status": pull.status,
        "isPullRequest": True,
        "pinned": False,
        "repo": {"name": str(record.id), "type": record.kind},
    }


def _events(pull: PullRequest) -> list[dict[str, Any]]:
    first = {"type": "comment", "author": pull.author, "date": pull.created, "content": pull.description}
    return [_event(pull.number, place, event) for place, event in enumerate((first, *pull.events))]


def _with_commits(request: Request, record: RepositoryRecord, pull: PullRequest) -> list[dict[str, Any]]:
    """The events, and the commits of the pull request among them, in order of time."""
    events = _events(pull)
    with suppress(NotFoundError, IntegrityError):
        history = request.store.reader.history(record.key, pull.ref)
        for commit in islice(takewhile(lambda commit: commit.id != pull.base, history), HISTORY_LIMIT):
            event = _event(pull.number, 0, {"type": "commit", "author": commit.author, "date": commit.date})
            data = {"subject": commit.title, "oid": commit.id}
            events.append({**event, "id": commit.id[:24], "data": data})
    return events[:1] + sorted(events[1:], key=lambda event: str(event["createdAt"]))


def _event(number: int, place: int, event: Mapping[str, str]) -> dict[str, Any]:
    """An event of a pull request's history, from what the store has of it."""
    kind, date, content = event["type"], event["date"], event.get("content", "")
    author = {"name": event["author"] or "anonymous"}
    latest = {"raw": content, "html": "", "updatedAt": date, "author": author}
    data: dict[str, Any] = {
        "edited": "edited" in event,
        "hidden": "hidden" in event,
        "latest": latest,
        "history": [],
    }
    if kind == "status-change":
        data = {"status": content}
    elif kind == "title-change":
        data = {"from": event.get("from", ""), "to": content}
    identity = hashlib.sha256(f"{number}/{place}/{date}".encode()).hexdigest()[:24]
    return {
        "id": identity,
        "type": kind,
        "createdAt": date,
        "author": {**author, "type": "user"},
        "data": data,
    }


def _merge_commit(request: Request, record: RepositoryRecord, pull: PullRequest) -> str | None:
    if pull.status != "merged":
        return None
    store = request.store
    head = store.reader.refs(record.key).get(pull.ref)
    for place, commit in enumerate(store.reader.history(record.key, f"refs/heads/{pull.target}")):
        if head in commit.parents[1:]:
            return commit.id
        if place > HISTORY_LIMIT:
            break
    return None


def _url(request: Request, record: RepositoryRecord, pull: PullRequest) -> str:
    return f"{request.base_url}/{record.id}/discussions/{pull.number}"
