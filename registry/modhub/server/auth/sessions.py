"""Browser sessions: a signed cookie that names a token and ends with it, or with the logout."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from pathlib import Path

from modhub.errors import AccessError
from modhub.files import sha256_of_bytes
from modhub.server.auth.accounts import Accounts
from modhub.server.auth.principal import ANONYMOUS, Principal
from modhub.server.auth.signing import Signer
from modhub.server.errors import HTTPError

COOKIE = "modhub_session"
SESSION_SECONDS = 12 * 3600


class Sessions:
    """Cookies for the tokens of `accounts`; only sessions that were ended are stored, in `folder`."""

    def __init__(self, accounts: Accounts, signer: Signer, folder: Path) -> None:
        self._accounts = accounts
        self._signer = signer
        self._folder = folder
        # On a read-only disk a logout holds for this server.
        self._ended: set[str] = set()

    def create(self, token: str) -> str:
        """The cookie's value for a browser that showed `token`. Raises `AccessError`."""
        principal = self._accounts.principal(token)
        nonce = secrets.token_hex(8)
        signature = self._signer.sign("session", principal.token, nonce, lifetime=SESSION_SECONDS)
        return f"{principal.token}.{nonce}.{signature}"

    def principal(self, cookie: str) -> Principal:
        """The user of the cookie; anonymous for an expired, ended or forged one."""
        token_id, _, rest = cookie.partition(".")
        nonce, _, signature = rest.partition(".")
        try:
            self._signer.check(signature, "session", token_id, nonce)
            ended = self._name(cookie)
            if ended in self._ended or (self._folder / ended).exists():
                return ANONYMOUS
            return self._accounts.principal_of(token_id)
        except (HTTPError, AccessError):
            return ANONYMOUS

    def end(self, cookie: str) -> None:
        """From now on the cookie, and every copy of it, is anonymous."""
        if self.principal(cookie).name is None:
            return
        ended = self._name(cookie)
        self._ended.add(ended)
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            (self._folder / ended).touch()
            for other in self._folder.iterdir():
                if time.time() - other.stat().st_mtime > SESSION_SECONDS:
                    other.unlink(missing_ok=True)

    def _name(self, cookie: str) -> str:
        return sha256_of_bytes(cookie.encode("utf-8", "surrogatepass"))[:32]
