"""Users, organisations and tokens, in one file of the store's directory.

Only sha256 digests of tokens are stored (tokens are random and 238 bits long, so a slow hash adds nothing). A
change replaces the file under a lock, so the commands work beside a running server, which sees the change at
its next request.

A token's last use is the date of the file `last-used/<id>`: servers set it without a lock, and the accounts
need not be read again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shlex
import string
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from modhub.errors import (
    AccessError,
    HubError,
    ManifestError,
    NotFoundError,
    RefError,
    SchemaVersionError,
    StorageError,
    hinting,
)
from modhub.files import write_bytes
from modhub.manifest.fields import Fields
from modhub.results import Document
from modhub.server.auth.principal import ANONYMOUS, ROLES, Principal
from modhub.store.audit import AuditLog
from modhub.store.disk import disk_errors, lock_file
from modhub.text import parse_json, pretty_json

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,40}[A-Za-z0-9])?\Z")
_VALUE = re.compile(r"[\x21-\x7e]{16,200}\Z")
_EXPIRY = re.compile(r"(\d{1,5})([smhdw])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_VERSION = 1
_SIGNS = string.ascii_letters + string.digits
USE_SECONDS = 600.0
"""Resolution of a token's last use in seconds; requests in between write nothing."""
_ACTOR = "modhub token"
"""Actor in the audit log: tokens are created by commands only, on the store's machine."""
PREFIX = "hf_"
"""Required by @huggingface/hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Document):
    """A token without its value; `expires` and `revoked` are ISO 8601 in UTC or empty."""

    id: str
    digest: str
    user: str
    role: str
    created: str
    expires: str = ""
    revoked: str = ""

    @classmethod
    def from_dict(cls, fields: Fields) -> Token:
        return cls(
            id=fields.string("id"),
            digest=fields.digest("digest"),
            user=fields.string("user"),
            role=fields.choice("role", ROLES),
            created=fields.string("created"),
            expires=fields.string("expires"),
            revoked=fields.string("revoked"),
        )

    def alive(self, moment: str) -> bool:
        """Whether the token is valid at `moment` (ISO 8601 in UTC)."""
        return not self.revoked and (not self.expires or moment < self.expires)

    def shown(self) -> dict[str, str]:
        """The token for people and scripts, without its digest."""
        return {name: text for name, text in self.to_dict().items() if name != "digest"}


@dataclass(frozen=True, slots=True)
class _AccountsFile:
    """Everything in the file: user → organisations, and the tokens."""

    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: tuple[Token, ...] = ()

    def to_bytes(self) -> bytes:
        users = {name: list(organisations) for name, organisations in sorted(self.users.items())}
        document = {
            "schema_version": _VERSION,
            "users": users,
            "tokens": [token.to_dict() for token in self.tokens],
        }
        return pretty_json(document)

    @classmethod
    @hinting("Restore an older copy, or delete it and create the users and tokens again.")
    def from_bytes(cls, content: bytes, place: str) -> _AccountsFile:
        fields = Fields(parse_json(content, place), place)
        fields.check_version(_VERSION)
        users = fields.child("users")
        return cls(
            {name: users.strings(name) for name in users.value},
            tuple(Token.from_dict(token) for token in fields.children("tokens")),
        )


class Accounts:
    """The accounts of the store at `root`."""

    def __init__(self, root: Path) -> None:
        self.path = root / "accounts.json"
        self.audit = AuditLog(root / "audit")
        self._used = root / "last-used"
        self._noted: dict[str, float] = {}
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._state = _AccountsFile()
        self._by_digest: dict[str, Token] = {}

    @property
    def empty(self) -> bool:
        """Whether no token was ever created."""
        return not self._read().tokens

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, the oldest first."""
        return self._read().tokens

    def last_used(self, token: Token) -> str:
        """When the token was last used, ISO 8601 in UTC, up to ten minutes early; empty for never."""
        try:
            moment = (self._used / token.id).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return _iso(datetime.fromtimestamp(moment, UTC))

    def organisations_of(self, user: str) -> tuple[str, ...]:
        """The organisations `user` is a member of."""
        return self._read().users.get(user, ())

    def create_token(
        self,
        user: str,
        *,
        organisations: tuple[str, ...] = (),
        role: str = "write",
        expires: timedelta | None = None,
        value: str | None = None,
    ) -> tuple[Token, str]:
        """A new token and its value, which is not stored. `organisations` are added to the user's.

        Raises `RefError` for a bad name, role or value, and for a value that is in use.
        """
        for name in (user, *organisations):
            _check_name(name)
        if role not in ROLES:
            raise RefError(f"'{role}' is not a role.", hint=f"Use one of {', '.join(ROLES)}.")
        if value is None:
            value = PREFIX + "".join(secrets.choice(_SIGNS) for _ in range(40))
        elif not _VALUE.match(value):
            raise RefError(
                "A token has 16 to 200 printable ASCII characters without spaces.",
                hint="Omit --value to generate one.",
            )
        moment = datetime.now(UTC)
        token = Token(
            id=secrets.token_hex(4),
            digest=_digest(value),
            user=user,
            role=role,
            created=_iso(moment),
            expires="" if expires is None else _iso(moment + expires),
        )
        with self._changing() as change:
            state = self._read()
            if any(hmac.compare_digest(other.digest, token.digest) for other in state.tokens):
                raise RefError("This token value is in use already.", hint="Choose another --value.")
            name = next((name for name in state.users if name.lower() == user.lower()), user)
            memberships = tuple(dict.fromkeys((*state.users.get(name, ()), *organisations)))
            token = replace(token, user=name)
            self.audit.append(
                "create-token",
                f"user/{name}",
                _ACTOR,
                token=token.id,
                role=role,
                organisations=list(organisations),
                expires=token.expires,
            )
            change(_AccountsFile({**state.users, name: memberships}, (*state.tokens, token)))
        return token, value

    def revoke(self, which: str) -> Token:
        """Close the token with this id or value for good. Raises `NotFoundError`."""
        with self._changing() as change:
            state = self._read()
            digest = _digest(which)
            for position, token in enumerate(state.tokens):
                if which == token.id or digest == token.digest:
                    revoked = replace(token, revoked=token.revoked or _iso(datetime.now(UTC)))
                    tokens = (*state.tokens[:position], revoked, *state.tokens[position + 1 :])
                    self.audit.append("revoke-token", f"user/{token.user}", _ACTOR, token=token.id)
                    change(_AccountsFile(state.users, tokens))
                    return revoked
        raise NotFoundError(
            f"There is no token '{which[:12]}'.",
            hint=f"See: modhub token list --root {shlex.quote(str(self.path.parent))}",
        )

    def principal(self, value: str | None) -> Principal:
        """The user of a token's value. Raises `AccessError` for an invalid, expired or revoked one."""
        if value is None:
            return ANONYMOUS
        state = self._read()
        token = self._by_digest.get(_digest(value))
        if token is None or not token.alive(_iso(datetime.now(UTC))):
            raise AccessError("Invalid credentials in Authorization header")
        return self._principal(token, state)

    def principal_of(self, token_id: str) -> Principal:
        """The user of the token with this id. Raises `AccessError` when it is expired or revoked."""
        state = self._read()
        token = next((token for token in state.tokens if token.id == token_id), None)
        if token is None or not token.alive(_iso(datetime.now(UTC))):
            raise AccessError("The session has expired.", hint="Log in again.")
        return self._principal(token, state)

    def _principal(self, token: Token, state: _AccountsFile) -> Principal:
        self._note_use(token)
        return Principal(token.user, token.role, state.users.get(token.user, ()), token.id)

    def _note_use(self, token: Token) -> None:
        moment = time.monotonic()
        noted = self._noted.get(token.id)
        if noted is not None and moment - noted < USE_SECONDS:
            return
        self._noted[token.id] = moment
        # A full or read-only disk locks nobody out.
        with suppress(OSError):
            self._used.mkdir(exist_ok=True)
            (self._used / token.id).touch()

    def _read(self) -> _AccountsFile:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            with self._lock:
                if stamp != self._seen:
                    self._take(self.path.read_bytes())
                    self._seen = stamp
                return self._state
        except FileNotFoundError:
            with self._lock:
                self._seen, self._state, self._by_digest = None, _AccountsFile(), {}
                return self._state
        except OSError as error:
            raise StorageError(
                f"'{self.path}' cannot be read: {error.strerror or error}.",
                hint="Make the directory and its contents readable by the server's user.",
            ) from error

    def _take(self, content: bytes) -> None:
        try:
            self._state = _AccountsFile.from_bytes(content, f"'{self.path}'")
        except ManifestError as error:
            newer = isinstance(error, SchemaVersionError)
            hint = error.hint if newer else "Restore it from a backup."
            raise HubError(error.message, hint=hint) from error
        self._by_digest = {token.digest: token for token in self._state.tokens}

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(handle)
            yield self._write
        finally:
            os.close(handle)

    def _write(self, state: _AccountsFile) -> None:
        write_bytes(self.path, state.to_bytes())
        # Not every disk knows modes.
        with suppress(OSError):
            self.path.chmod(0o600)


def parse_expiry(text: str) -> timedelta:
    """`90d`, `12h`, `30m`, `2w`, `45s`. Raises `RefError`."""
    match = _EXPIRY.match(text.strip())
    if match is None or int(match[1]) == 0:
        raise RefError(f"'{text}' is not a duration.", hint="Write it as 90d, 12h, 30m or 2w.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _check_name(name: str) -> None:
    if not _NAME.match(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise RefError(
            f"'{name}' is not a valid user or organisation name.",
            hint="Use letters, digits and single '-', '_' or '.' inside, at most 42 characters.",
        )


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
