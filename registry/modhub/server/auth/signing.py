"""Addresses that authorise themselves: LFS uploads come without a token, so their URL carries the right."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from modhub.errors import IntegrityError
from modhub.files import fsync_directory
from modhub.server.errors import HTTPError

__all__ = ["Signer"]

LIFETIME = 6 * 3600
BYTES = 32


class Signer:
    """Signs tuples of text with a secret that lives in the store's folder, readable by its owner only."""

    def __init__(self, root: Path) -> None:
        self._secret = _secret(root / "secret")

    def sign(self, *parts: str, lifetime: int = LIFETIME) -> str:
        """`expiry-signature`, good for `lifetime` seconds."""
        expiry = str(int(time.time()) + lifetime)
        return f"{expiry}-{self._mac(expiry, parts)}"

    def check(self, signature: str, *parts: str) -> None:
        """Raises `HTTPError` 403 for a signature that is forged, for something else, or too old."""
        expiry, _, mac = signature.partition("-")
        # Compare first: an attacker learns nothing from which of the two failed.
        genuine = hmac.compare_digest(mac.encode(), self._mac(expiry, parts).encode())
        if not genuine or not expiry.isascii() or not expiry.isdigit() or int(expiry) < time.time():
            raise HTTPError(403, "This upload address is not valid or has expired; ask for a new one.")

    def _mac(self, expiry: str, parts: tuple[str, ...]) -> str:
        message = "\0".join((expiry, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _secret(path: Path) -> bytes:
    """The secret in `path`, made on first use; of two servers starting at once, one makes it.

    Raises `IntegrityError` for one that was cut short: whoever knows that can sign as well.
    """
    with suppress(FileNotFoundError):
        known = path.read_bytes()
        if len(known) < BYTES:
            raise IntegrityError(
                f"'{path}' has {len(known)} bytes, not {BYTES}.",
                hint="Delete it: another is made, and who was logged in logs in again.",
            )
        return known
    scratch = path.with_name(f".secret.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        # A folder that may only be read: what is signed is good until the server ends.
        return secrets.token_bytes(BYTES)
    try:
        os.write(handle, secrets.token_bytes(BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    with suppress(FileExistsError):
        os.link(scratch, path)
    scratch.unlink()
    fsync_directory(path.parent)
    return path.read_bytes()
