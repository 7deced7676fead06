"""How many connections a server holds: within its limit of open files, and of one address a share."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

LIMIT = 2000
RESERVED_FILES = 256
"""For threads, the store and the index."""
FILES_EACH = 2
"""The connection itself, and the file that is sent or received."""
PROXIES = ("127.0.0.1", "::1", "")
"""Where a reverse proxy on this machine connects from, on behalf of many: no share is kept of it."""


def raise_file_limit() -> int:
    """How many files this process may open, raised to what connections need as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = RESERVED_FILES + FILES_EACH * LIMIT
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Connection(Protocol):
    """What is counted."""

    transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""


@dataclass
class Connections:
    """At most `limit` at once, and of one address `share`.

    Where all are taken, the one that has been idle longest makes room; none is idle: the new one is closed.
    """

    files: int
    limit: int = field(init=False)
    share: int = field(init=False)
    _addresses: dict[Connection, str] = field(default_factory=dict, repr=False)
    _numbers: Counter[str] = field(default_factory=Counter, repr=False)

    def __post_init__(self) -> None:
        self.limit = max(16, min(LIMIT, (self.files - RESERVED_FILES) // FILES_EACH))
        self.share = max(8, self.limit // 8)

    def admit(self, connection: Connection, address: str) -> bool:
        """Whether it may stay; one that may is to be given to `forget`."""
        if address not in PROXIES and self._numbers[address] >= self.share:
            return False
        if len(self._addresses) >= self.limit:
            # In the order of their arrival; an answered request moves to the end.
            idle = next((other for other in self._addresses if other.idle), None)
            if idle is None:
                return False
            self.forget(idle)
            idle.transport.abort()
        self._addresses[connection] = address
        self._numbers[address] += 1
        return True

    def used(self, connection: Connection) -> None:
        """It has just been used."""
        if (address := self._addresses.pop(connection, None)) is not None:
            self._addresses[connection] = address

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        if (address := self._addresses.pop(connection, None)) is not None:
            self._numbers[address] -= 1
            if not self._numbers[address]:
                del self._numbers[address]

    def __str__(self) -> str:
        return (
            f"At most {self.limit:,} connections, {self.share:,} from one address; {self.files:,} open files."
        )
