"""Reading what clients send: within a size, and not slower than a crawl."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request as StarletteRequest

from modhub.server.errors import HTTPError

__all__ = ["batches", "read_body"]

SILENCE = 30.0
BATCH = 1 << 20


async def read_body(http: StarletteRequest, limit: int) -> bytes:
    """The whole body. Raises `HTTPError` 413 beyond `limit` bytes and 408 for a sender that falls silent.

    A small body has as long in all as a large one may be silent: it cannot be dripped in.
    """
    announced = http.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    with anyio.move_on_after(SILENCE) as scope:
        async for chunk in http.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    if scope.cancelled_caught:
        raise HTTPError(408, "The body took too long to arrive.", headers={"Connection": "close"})
    return bytes(body)


async def batches(http: StarletteRequest, *, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of about a mebibyte. Raises `HTTPError` as `read_body`, 408 by silence only."""
    announced = http.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    stream = http.stream()
    waiting, total = bytearray(), 0
    while True:
        with anyio.move_on_after(SILENCE) as scope:
            chunk = await anext(stream, None)
        if scope.cancelled_caught:
            raise HTTPError(408, "The body stopped arriving.", headers={"Connection": "close"})
        if chunk is None:
            break
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        waiting += chunk
        if len(waiting) >= BATCH:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _too_large(limit: int) -> HTTPError:
    return HTTPError(
        413, f"The body is larger than the {limit:,} bytes allowed here.", headers={"Connection": "close"}
    )
