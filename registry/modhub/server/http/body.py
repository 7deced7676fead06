"""Request bodies, within limits of size and time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request as StarletteRequest

from modhub.server.errors import HTTPError

SILENCE = 30.0
BATCH = 1 << 20


async def read_body(http: StarletteRequest, limit: int) -> bytes:
    """The complete body. Raises `HTTPError` 413 beyond `limit` bytes, 408 after `SILENCE` seconds in all."""
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
        raise _timed_out()
    return bytes(body)


async def batches(http: StarletteRequest, *, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of about a mebibyte.

    Raises `HTTPError` 413 beyond `limit` bytes, 408 after `SILENCE` seconds without one.
    """
    announced = http.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    stream = http.stream()
    waiting, total = bytearray(), 0
    while True:
        with anyio.move_on_after(SILENCE) as scope:
            chunk = await anext(stream, None)
        if scope.cancelled_caught:
            raise _timed_out()
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


def _timed_out() -> HTTPError:
    return HTTPError(408, "Timed out reading the request body.", headers={"Connection": "close"})


def _too_large(limit: int) -> HTTPError:
    return HTTPError(
        413, f"The request body exceeds the limit of {limit:,} bytes.", headers={"Connection": "close"}
    )
