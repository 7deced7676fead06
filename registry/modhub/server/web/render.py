"""Templates rendered to responses, with the headers of every page."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from modhub.files import sha256_of_bytes
from modhub.formatting import count, percent, size
from modhub.server.http.request import Request

ADDRESS_LIMIT = 1000
COMPRESSED_FROM = 8192
_HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def literal(text: str) -> str:
    """`text` as a Python literal; a JSON string is one."""
    return json.dumps(text, ensure_ascii=False)


def share(part: int, total: int) -> str:
    """`part` as a percentage of `total`, or a dash where `total` is 0."""
    return percent(part / total if total else None)


def address(request: Request, /, *parts: str, **query: str | list[str]) -> str:
    """A path on this server as browsers request it: parts quoted, empty query values left out."""
    path = f"{request.below}/" + "/".join(quote(part, safe="") for part in parts if part)
    pairs = {name: value for name, value in query.items() if value}
    return path + (f"?{urlencode(pairs, doseq=True)}" if pairs else "")


_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _unbroken(write: Callable[..., str]) -> Callable[..., str]:
    """A filter with no line break between number and unit."""

    def filled(*values: Any) -> str:
        return write(*values).replace(" ", "\u00a0")

    return filled


_templates.filters.update(
    bytes=_unbroken(size),
    count=_unbroken(count),
    percent=_unbroken(percent),
    share=_unbroken(share),
)


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """The page `template`; every text in `context` is escaped unless it is `Markup`."""

    def under(here: Sequence[str], *parts: str, **query: str | list[str]) -> str:
        """`address` below a repository's parts."""
        return address(request, *here, *parts, **query)

    text = _templates.get_template(template).render(
        principal=request.principal,
        host=request.base_url,
        login=address(request, "login", next=_current_address(request)),
        read_only=request.state.options.read_only,
        address=partial(address, request),
        static_address=partial(static_address, request),
        under=under,
        **context,
    )
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "private, no-cache",
        "Vary": "Cookie, Accept-Encoding",
    }
    content = text.encode()
    # The page of a thousand classes has half a megabyte, compressed a twentieth of it.
    if len(content) > COMPRESSED_FROM and _takes_gzip(request.headers.get("accept-encoding", "")):
        content = gzip.compress(content, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, status, headers, "text/html; charset=utf-8")


def _takes_gzip(accepted: str) -> bool:
    return any(
        re.fullmatch(r"gzip(;q=(1|0\.\d*[1-9]\d*|1\.0*))?", coding)
        for coding in accepted.lower().replace(" ", "").split(",")
    )


def _current_address(request: Request) -> str:
    """The address of the page, to return to after the login; empty for pages not to return to."""
    scope = request.http.scope
    path = scope["raw_path"].decode("latin-1").partition("?")[0]
    if request.method not in ("GET", "HEAD") or path in ("/", "/login"):
        return ""
    query = scope["query_string"].decode("latin-1")
    current = f"{request.below}{path}" + (f"?{query}" if query else "")
    return current if len(current) <= ADDRESS_LIMIT else ""


def static_address(request: Request, name: str) -> str:
    """The address of a static file, with a version by content, so that browsers may cache it for ever."""
    return address(request, "static", name, v=static_version(name))


@lru_cache(maxsize=64)
def static_file(name: str) -> bytes | None:
    """A file of this package's `static` directory, by its plain name."""
    path = _HERE / "static" / name
    return path.read_bytes() if "/" not in name and not name.startswith(".") and path.is_file() else None


@lru_cache(maxsize=64)
def static_version(name: str) -> str:
    """A short digest of the file's content."""
    return sha256_of_bytes(static_file(name) or b"")[:12]
