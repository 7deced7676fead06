"""How much one image may take on its way through a network, by the graph, before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_NODES = 20_000
MAX_VALUE = 1 << 27
"""Numbers in one value of one image: 512 MiB."""
MAX_LIVE = 1 << 29
"""Numbers that one image takes at one time while it passes: 2 GiB."""
MAX_WORK = 1 << 44
"""Multiply-adds for one image: a vision transformer of a billion weights at 560 pixels takes a tenth."""
OVERRIDE = "If you trust its publisher and have the memory and the time, pass --allow-large."

_LARGE: ContextVar[bool] = ContextVar("large", default=False)


def is_large_allowed() -> bool:
    """Whether networks beyond `MAX_VALUE`, `MAX_LIVE` and `MAX_WORK` may be read."""
    return _LARGE.get()


@contextmanager
def allowing_large(allowed: bool = True) -> Iterator[None]:
    """Networks of any size may be read in this block (in this thread), as with --allow-large."""
    token = _LARGE.set(allowed)
    try:
        yield
    finally:
        _LARGE.reset(token)
