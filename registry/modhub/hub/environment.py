"""What the environment says of the network, as the client of the Hub reads it: proxies and certificates."""

from __future__ import annotations

import importlib.util
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from modhub.errors import HubError

_KINDS = ("http", "https", "all")
_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment `variable` that names it; `parts` are None for what is no address."""

    variable: str
    parts: SplitResult | None

    @property
    def shown(self) -> str:
        """Its address without user and password."""
        if self.parts is None:
            return "which is not an address"
        return f"{self.parts.scheme}://{self.parts.netloc.rpartition('@')[2]}"


def proxy_for(endpoint: str) -> Proxy | None:
    """The proxy that requests to `endpoint` go through, None where they go straight, as NO_PROXY may say."""
    parts = urlsplit(endpoint)
    proxies = _proxies()
    kind = next((kind for kind in (parts.scheme, "all") if kind in proxies), None)
    if kind is None or proxy_bypass(parts.hostname or ""):
        return None
    return proxies[kind]


def check_network_settings() -> None:
    """Raises `HubError` for proxies that the client cannot use and certificates that are not there. It reads
    all of them, whatever the address."""
    for proxy in _proxies().values():
        if proxy.parts is None or proxy.parts.scheme not in _SCHEMES:
            raise HubError(
                f"{proxy.variable} names a proxy that cannot be used, {proxy.shown}.",
                hint=f"Give it as http://host:port or socks5://host:port, or unset {proxy.variable}.",
            )
        if proxy.parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise HubError(
                f"{proxy.variable} names a SOCKS proxy, {proxy.shown}, which needs the package 'socksio'.",
                hint=f"Install it with: pip install socksio. Or unset {proxy.variable}.",
            )
    for variable, wanted in (("SSL_CERT_FILE", "file"), ("SSL_CERT_DIR", "folder")):
        if place := os.environ.get(variable):
            _check_certificates(variable, Path(place), wanted)


def _check_certificates(variable: str, place: Path, wanted: str) -> None:
    reason = ""
    if not (place.is_dir() if wanted == "folder" else place.is_file()):
        reason = f"is not a {wanted}" if place.exists() else "does not exist"
    elif wanted == "file":
        try:
            ssl.create_default_context(cafile=place)
        except OSError as error:
            reason = f"cannot be read as certificates ({error.strerror or type(error).__name__})"
    if reason:
        raise HubError(
            f"{variable} names '{place}', which {reason}.",
            hint=f"Unset {variable}, or let it name a {wanted} of certificates.",
        )


def _proxies() -> dict[str, Proxy]:
    """By the scheme of requests, or `all`."""
    found = {kind: address for kind, address in getproxies().items() if kind in _KINDS and address}
    return {kind: Proxy(_variable(kind), _parts(address)) for kind, address in found.items()}


def _variable(kind: str) -> str:
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()


def _parts(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
