"""Templates to answers, with the headers every page has."""

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

__all__ = ["POLICY", "address", "literal", "page", "static_file", "static_version"]

ASKED_LIMIT = 1000
PACKED_FROM = 8192
_HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def literal(text: str) -> str:
    """`text` as Python reads it; what JSON writes is that too."""
    return json.dumps(text, ensure_ascii=False)


def share(part: int, whole: int) -> str:
    """Which part of the whole that is, as far as there is a whole."""
    return percent(part / whole if whole else None)


def address(request: Request, /, *parts: str, **query: str | list[str]) -> str:
    """A path on this server as browsers ask for it: every part quoted, a query without its empty values."""
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


def _in_one_piece(write: Callable[..., str]) -> Callable[..., str]:
    """A filter whose number and unit no line break parts."""

    def filled(*values: Any) -> str:
        return write(*values).replace(" ", "\u00a0")

    return filled


_templates.filters.update(
    bytes=_in_one_piece(size),
    count=_in_one_piece(count),
    percent=_in_one_piece(percent),
    share=_in_one_piece(share),
)


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """The page `template`; every text in `context` is escaped unless it is `Markup`."""

    def under(here: Sequence[str], *parts: str, **query: str | list[str]) -> str:
        """`address` below a repository's own parts."""
        return address(request, *here, *parts, **query)

    text = _templates.get_template(template).render(
        principal=request.principal,
        host=request.base_url,
        login=address(request, "login", next=_asked(request)),
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
    # The page of a thousand classes has half a megabyte, a twentieth of it once it is packed.
    if len(content) > PACKED_FROM and _takes_gzip(request.headers.get("accept-encoding", "")):
        content = gzip.compress(content, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, status, headers, "text/html; charset=utf-8")


def _takes_gzip(accepted: str) -> bool:
    return any(
        re.fullmatch(r"gzip(;q=(1|0\.\d*[1-9]\d*|1\.0*))?", one)
        for one in accepted.lower().replace(" ", "").split(",")
    )


def _asked(request: Request) -> str:
    """The address of the page itself, to come back to; nothing for what is no page to come back to."""
    scope = request.http.scope
    path = scope["raw_path"].decode("latin-1").partition("?")[0]
    if request.method not in ("GET", "HEAD") or path in ("/", "/login"):
        return ""
    query = scope["query_string"].decode("latin-1")
    asked = f"{request.below}{path}" + (f"?{query}" if query else "")
    return asked if len(asked) <= ASKED_LIMIT else ""


def static_address(request: Request, name: str) -> str:
    """The address of a static file, another one for every content: browsers keep what they have for good, and
    never draw a page of a new modhub with the style of an old one."""
    return address(request, "static", name, v=static_version(name))


@lru_cache(maxsize=64)
def static_file(name: str) -> bytes | None:
    """A file of this package's `static` folder, by a name without folders."""
    path = _HERE / "static" / name
    return path.read_bytes() if "/" not in name and not name.startswith(".") and path.is_file() else None


@lru_cache(maxsize=64)
def static_version(name: str) -> str:
    """What tells the file's content from any other."""
    return sha256_of_bytes(static_file(name) or b"")[:12]
