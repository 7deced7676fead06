"""Which access token goes to which hub: the one that it was given for, and to no other.

    modhub login HUB        the hub of that address: <config>/modhub/tokens.json, readable by its owner alone
    HF_TOKEN                the hub of HF_ENDPOINT, which is huggingface.co where it is not set
    hf auth login           huggingface.co

Addresses are compared by scheme, host and port.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from modhub.errors import ManifestError, RefError, StorageError
from modhub.files import new_file
from modhub.refs import is_text
from modhub.text import parse_json, pretty_json

OFFICIAL = "https://huggingface.co"
_PORTS = {"http": 80, "https": 443}


def origin_of(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises `ValueError` for an address that has none."""
    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme)


def is_same_hub(endpoint: str, url: str) -> bool:
    """Whether a token for `endpoint` may go to `url`: the same host, and if anything from http to https."""
    ours, theirs = origin_of(endpoint), origin_of(url)
    return theirs in (ours, ("https", ours[1], 443) if ours[::2] == ("http", 80) else ours)


def environment_token(endpoint: str) -> str | None:
    """The token in HF_TOKEN, if it was given for the hub at `endpoint`."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    try:
        meant = origin_of(os.environ.get("HF_ENDPOINT") or OFFICIAL)
    except ValueError:
        return None
    return token.strip() or None if meant == origin_of(endpoint) else None


def stored_token(endpoint: str) -> str | None:
    """The token that `store_token` keeps for the hub at `endpoint`. Raises `StorageError`."""
    return _tokens().get(_name(endpoint))


def store_token(endpoint: str, token: str | None) -> bool:
    """Keep a token for the hub at `endpoint`, None forgets it; whether there was one.

    Raises `RefError` for a token that no header can hold, and `StorageError`.
    """
    if token is not None and not (token and token.isascii() and is_text(token) and " " not in token):
        raise RefError(
            "The token is empty or holds a blank or an invalid character.", hint="Paste it as it was printed."
        )
    tokens = _tokens()
    before = tokens.pop(_name(endpoint), None)
    if token is not None:
        tokens[_name(endpoint)] = token
    if token is not None or before is not None:
        path = _path()
        with new_file(path, mode=0o600) as scratch:
            scratch.write_bytes(pretty_json(dict(sorted(tokens.items()))))
    return before is not None


def _path() -> Path:
    return Path(platformdirs.user_config_dir("modhub")) / "tokens.json"


def _name(endpoint: str) -> str:
    scheme, host, port = origin_of(endpoint)
    return f"{scheme}://{host}" + ("" if port == _PORTS.get(scheme) else f":{port}")


def _tokens() -> dict[str, str]:
    path = _path()
    try:
        document = parse_json(path.read_bytes(), f"'{path}'")
    except FileNotFoundError:
        return {}
    except (OSError, ManifestError) as error:
        raise StorageError(f"'{path}' cannot be read: {error}.", hint="Remove it and log in again.") from None
    if not isinstance(document, dict) or not all(isinstance(token, str) for token in document.values()):
        raise StorageError(f"'{path}' should map hubs to tokens.", hint="Remove it and log in again.")
    return document
