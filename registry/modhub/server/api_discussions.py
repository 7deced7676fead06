"""Pull requests: open, list, comment, merge, close. Discussions without a branch are not kept here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from modhub.errors import ConflictError, NotFoundError
from modhub.server.api_repositories import ONE
from modhub.server.call import Call, text_field
from modhub.server.faults import Fault
from modhub.server.principal import authorize
from modhub.server.routing import Routes
from modhub.store.pull_requests import PullRequests
from modhub.store.records import PullRequest, RepositoryRecord

__all__ = ["proposable", "pull_for_writing", "routes"]

routes = Routes()
LIST = ONE + "/discussions"
PAGE = 50
HISTORY_LIMIT = 1000


def proposable(call: Call) -> RepositoryRecord:
    """The repository, if the caller may propose changes: reads it, and has a token that may write."""
    record = call.repository("read")
    if call.principal.name is None:
        raise Fault(401, "Log in first: this needs a token that may write.")
    if call.principal.role not in ("write", "admin"):
        raise Fault(403, "This token may only read.")
    call.state.refuse_when_read_only()
    return record


def pull_for_writing(call: Call, record: RepositoryRecord, number: int) -> PullRequest:
    """An open pull request that the caller wrote, or whose repository they may write to."""
    pull = _pull(call, record, number)
    if pull.author != call.principal.name:
        authorize(call.principal, record, "write")
    if pull.status != "open":
        raise Fault(409, f"Pull request {number} is {pull.status}.")
    return pull


@routes.post(LIST)
def create(call: Call) -> Response:
    record = proposable(call)
    body = call.json()
    if body.get("pullRequest") is not True:
        raise Fault(400, "This hub keeps pull requests only, no other discussions.")
    pull = PullRequests(call.state.store).open(
        record.key,
        title=text_field(body, "title", limit=300),
        description=text_field(body, "description", "", limit=60_000),
        actor=call.actor,
    )
    return JSONResponse({"num": pull.number, "pullRequest": True, "url": _url(call, record, pull)})


@routes.get(LIST)
def listing(call: Call) -> Response:
    record = call.repository("see")
    wanted, author, kind = call.one("status"), call.one("author"), call.one("type")
    pulls = [
        pull
        for pull in reversed(PullRequests(call.state.store).all(record.key))
        if (wanted in ("", "all") or wanted == ("open" if pull.status == "open" else "closed"))
        and author in ("", pull.author)
        and kind in ("", "all", "pull_request")
    ]
    start = (call.number("p", 1, 10**6) if call.one("p") not in ("", "0") else 0) * PAGE
    shown = [_summary(record, pull) for pull in pulls[start : start + PAGE]]
    return JSONResponse({"count": len(pulls), "start": start, "discussions": shown})


@routes.get(LIST + "/{number}")
def details(call: Call) -> Response:
    record = call.repository("see")
    pull = _numbered(call, record)
    pulls = PullRequests(call.state.store)
    merged = _merge_commit(call, record, pull)
    return JSONResponse(
        {
            **_summary(record, pull),
            "changes": {"base": f"refs/heads/{pull.target}", **({"mergeCommitId": merged} if merged else {})},
            "filesWithConflicts": pulls.conflicts(record.key, pull.number) if pull.status == "open" else [],
            "diff": "",
            "events": _events(pull),
        }
    )


@routes.post(LIST + "/{number}/merge")
def merge(call: Call) -> Response:
    record = call.repository("write")
    number = _numbered(call, record).number
    comment = text_field(call.json(), "comment", "", limit=60_000)
    try:
        made = PullRequests(call.state.store).merge(record.key, number, actor=call.actor, description=comment)
    except ConflictError as error:
        raise Fault(409, str(error)) from None
    return JSONResponse(
        {
            "mergeCommitId": made.id,
            "newStatus": _event(number, 0, "status-change", call.actor, made.date, "merged"),
        }
    )


@routes.post(LIST + "/{number}/status")
def change_status(call: Call) -> Response:
    record = proposable(call)
    pull = _numbered(call, record)
    if pull.author != call.principal.name:
        authorize(call.principal, record, "write")
    body = call.json()
    status = body.get("status")
    if status not in ("open", "closed"):
        raise Fault(400, '"status" must be open or closed')
    changed = PullRequests(call.state.store).change_status(record.key, pull.number, status, actor=call.actor)
    return JSONResponse({"newStatus": _events(changed)[-1]})


@routes.post(LIST + "/{number}/comment")
def comment(call: Call) -> Response:
    record = proposable(call)
    pull = _numbered(call, record)
    text = text_field(call.json(), "comment", limit=60_000)
    changed = PullRequests(call.state.store).comment(record.key, pull.number, text, actor=call.actor)
    return JSONResponse({"newMessage": _events(changed)[-1]})


@routes.post(LIST + "/{number}/title")
def rename(call: Call) -> Response:
    record = proposable(call)
    pull = _numbered(call, record)
    if pull.author != call.principal.name:
        authorize(call.principal, record, "write")
    title = text_field(call.json(), "title", limit=300)
    changed = PullRequests(call.state.store).rename(record.key, pull.number, title, actor=call.actor)
    return JSONResponse({"newTitle": _events(changed)[-1]})


def _numbered(call: Call, record: RepositoryRecord) -> PullRequest:
    text = call.values["number"]
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise Fault(404, "There is no such pull request.")
    return _pull(call, record, int(text))


def _pull(call: Call, record: RepositoryRecord, number: int) -> PullRequest:
    try:
        return PullRequests(call.state.store).get(record.key, number)
    except NotFoundError:
        raise Fault(404, "There is no such pull request.") from None


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
    first = _event(pull.number, 0, "comment", pull.author, pull.created, pull.description)
    later: list[Mapping[str, str]] = list(pull.events)
    return [
        first,
        *(
            _event(pull.number, place, one["type"], one["author"], one["date"], one.get("content", ""))
            for place, one in enumerate(later, 1)
        ),
    ]


def _event(number: int, place: int, kind: str, author: str, date: str, content: str) -> dict[str, Any]:
    latest = {"raw": content, "html": "", "updatedAt": date, "author": {"name": author or "anonymous"}}
    data: dict[str, Any] = {"edited": False, "hidden": False, "latest": latest, "history": []}
    if kind == "status-change":
        data = {"status": content}
    elif kind == "title-change":
        data = {"from": "", "to": content}
    identity = hashlib.sha256(f"{number}/{place}/{date}".encode()).hexdigest()[:24]
    who = {"name": author or "anonymous", "type": "user"}
    return {"id": identity, "type": kind, "createdAt": date, "author": who, "data": data}


def _merge_commit(call: Call, record: RepositoryRecord, pull: PullRequest) -> str | None:
    if pull.status != "merged":
        return None
    store = call.state.store
    head = store.refs(record.key).get(pull.ref)
    for place, commit in enumerate(store.history(record.key, f"refs/heads/{pull.target}")):
        if head in commit.parents[1:]:
            return commit.id
        if place > HISTORY_LIMIT:
            break
    return None


def _url(call: Call, record: RepositoryRecord, pull: PullRequest) -> str:
    return f"{call.base_url}/{record.id}/discussions/{pull.number}"
