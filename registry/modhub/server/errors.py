"""Error responses: a status, one of the protocol's error codes, a sentence."""

from __future__ import annotations

import re

from modhub.errors import (
    AccessError,
    BusyError,
    ConflictError,
    IntegrityError,
    ManifestError,
    ModhubError,
    NotFoundError,
    RefError,
    ReleaseError,
    StorageError,
)

_CODES = {"repository": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}
_STATUSES: tuple[tuple[type[ModhubError], int], ...] = (
    (AccessError, 403),
    # Not 409: clients take that for what exists already, and `exist_ok` passes over it.
    (ReleaseError, 422),
    (ConflictError, 409),
    (NotFoundError, 404),
    (IntegrityError, 422),
    (RefError, 400),
    (ManifestError, 400),
)


class HTTPError(Exception):
    """An error response. `code` is the protocol's `X-Error-Code`, empty for none."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}


def not_found(code: str = "") -> HTTPError:
    """404 for an address without a route."""
    return HTTPError(404, "No such page or API route.", code=code)


def missing_file(path: str, commit: str) -> HTTPError:
    """404 for a path that is not in a commit; the commit in the header lets clients remember the absence."""
    return HTTPError(
        404, f"Entry not found: {path[:200]}", code="EntryNotFound", headers={"X-Repo-Commit": commit}
    )


def to_http_error(error: ModhubError) -> HTTPError:
    """The response to an error of the library. Paths of the server's disk are left out."""
    if isinstance(error, StorageError):
        cause = error.__cause__
        why = f" ({cause.strerror})" if isinstance(cause, OSError) and cause.strerror else ""
        return HTTPError(507, f"The hub's storage failed{why}; the server's log has the details.")
    if isinstance(error, BusyError):
        return HTTPError(503, str(error), headers={"Retry-After": f"{error.after or 2:.0f}"})
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    code = _CODES.get(getattr(error, "missing", ""), "") if isinstance(error, NotFoundError) else ""
    return HTTPError(status, str(error), code=code)


def header_text(text: str) -> str:
    """`text` as a header may carry it: one line of Latin-1, at most 500 characters."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:500].strip()
