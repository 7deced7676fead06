"""Signed URLs: LFS uploads come without a token, so the URL itself carries the right.

What is signed names the token it was given for, so that the right ends with it.
"""

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

LIFETIME = 15 * 60
"""Seconds that a signed address is good for, besides the time that sending its bytes may take."""
BYTES = 32


class Signer:
    """Signs tuples of text with a secret in the store's directory, readable by its owner only."""

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
            raise HTTPError(403, "Invalid or expired upload URL; request a new one.")

    def pseudonym(self, *parts: str) -> bytes:
        """8 bytes that stand for `parts`, the same for ever, from which nobody can tell them."""
        return bytes.fromhex(self._mac("pseudonym", parts))[:8]

    def _mac(self, expiry: str, parts: tuple[str, ...]) -> str:
        message = "\0".join((expiry, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _secret(path: Path) -> bytes:
    """The secret in `path`, created on first use; of two servers starting at once, one creates it.

    Raises `IntegrityError` for a truncated one, with which anybody could sign.
    """
    with suppress(FileNotFoundError):
        secret = path.read_bytes()
        if len(secret) < BYTES:
            raise IntegrityError(
                f"'{path}' has {len(secret)} bytes, not {BYTES}.",
                hint="Delete it: a new one is created, and users log in again.",
            )
        return secret
    scratch = path.with_name(f".secret.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        # Read-only directory: signatures are valid until the server ends.
        return secrets.token_bytes(BYTES)
    try:
        os.write(handle, secrets.token_bytes(BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError:
        # A disk without hard links: the first of several servers should have it.
        if not path.exists():
            os.replace(scratch, path)
    scratch.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return path.read_bytes()
