"""Browser sessions: a signed cookie that names a token and ends with it."""

from __future__ import annotations

from modhub.errors import AccessError
from modhub.server.auth.accounts import Accounts
from modhub.server.auth.principal import ANONYMOUS, Principal
from modhub.server.auth.signing import Signer
from modhub.server.errors import HTTPError

__all__ = ["COOKIE", "SESSION_SECONDS", "Sessions"]

COOKIE = "modhub_session"
SESSION_SECONDS = 12 * 3600


class Sessions:
    """Cookies for the tokens of `accounts`; nothing is stored for them."""

    def __init__(self, accounts: Accounts, signer: Signer) -> None:
        self._accounts = accounts
        self._signer = signer

    def create(self, token: str) -> str:
        """The cookie's value for a browser that showed `token`. Raises `AccessError`."""
        principal = self._accounts.principal(token)
        signature = self._signer.sign("session", principal.token, lifetime=SESSION_SECONDS)
        return f"{principal.token}.{signature}"

    def principal(self, cookie: str) -> Principal:
        """The user of the cookie; anonymous for an expired or forged one."""
        token_id, _, signature = cookie.partition(".")
        try:
            self._signer.check(signature, "session", token_id)
            return self._accounts.principal_of(token_id)
        except (HTTPError, AccessError):
            return ANONYMOUS
