"""Keep and forget the access token of a hub."""

from __future__ import annotations

from dataclasses import dataclass

from modhub.errors import HubError
from modhub.hub import open_hub
from modhub.hub.tokens import OFFICIAL, store_token
from modhub.results import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Login(Result):
    """A hub's address, and whether a token is kept for it now."""

    hub: str
    stored: bool


def login(hub: str, token: str) -> Login:
    """Keep `token` for the hub at the address `hub`; it is sent to no other host.

    Raises `HubError` for a directory, which needs none, `RefError` for a token that no header can hold, and
    `StorageError`.
    """
    store_token(_endpoint(hub), token)
    return Login(hub=hub, stored=True)


def logout(hub: str) -> Login:
    """Forget the token of that hub. Raises `HubError` where none is kept."""
    if not store_token(_endpoint(hub), None):
        raise HubError(f"No token is kept for {hub}.", hint="Name the hub as at 'modhub login'.")
    return Login(hub=hub, stored=False)


def _endpoint(hub: str) -> str:
    opened = open_hub(hub)
    if opened.local:
        raise HubError(
            f"'{hub}' is a directory, which needs no token.", hint="Name an http:// or https:// address."
        )
    return OFFICIAL if opened.address == "hf" else opened.address
