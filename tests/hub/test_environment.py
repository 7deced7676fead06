"""Proxies and certificates of the environment: used, or told in one sentence with their cause."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from modhub.errors import HubError, OfflineError
from modhub.hub.environment import check_network_settings, proxy_for
from modhub.hub.huggingface import HuggingFaceHub
from modhub.refs import RepositoryId

NET = RepositoryId("lab", "net")
NOTHING_HERE = "http://127.0.0.1:9"
UNSET = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"]


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    close_session()
    yield
    close_session()


@pytest.mark.parametrize(
    ("settings", "endpoint", "shown"),
    [
        ({}, "https://hub", None),
        ({"https_proxy": "http://me:secret@proxy:3128"}, "https://hub", "https_proxy http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://hub", "HTTPS_PROXY http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy"}, "https://hub", None),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "https://hub", "ALL_PROXY socks5://proxy:1080"),
        ({"ALL_PROXY": "http://proxy", "NO_PROXY": "hub"}, "https://hub", None),
        ({"ALL_PROXY": "http://proxy", "NO_PROXY": "other"}, "https://hub:8000", "ALL_PROXY http://proxy"),
    ],
)
def test_the_proxy_of_an_address(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], endpoint: str, shown: str | None
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(endpoint)
    assert (None if proxy is None else f"{proxy.variable} {proxy.shown}") == shown


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "ALL_PROXY",
            "socks4://proxy:1080",
            "ALL_PROXY names a proxy that cannot be used, socks4://proxy:1080. Give it as "
            "http://host:port or socks5://host:port, or unset ALL_PROXY.",
        ),
        (
            "https_proxy",
            "http://proxy:port",
            "https_proxy names a proxy that cannot be used, which is not an address. Give it as "
            "http://host:port or socks5://host:port, or unset https_proxy.",
        ),
        (
            "SSL_CERT_FILE",
            "{}/gone.pem",
            "SSL_CERT_FILE names '{}/gone.pem', which does not exist. Unset SSL_CERT_FILE, or let it name a "
            "file of certificates.",
        ),
        (
            "SSL_CERT_FILE",
            "{}",
            "SSL_CERT_FILE names '{}', which is not a file. Unset SSL_CERT_FILE, or let it name a file of "
            "certificates.",
        ),
        (
            "SSL_CERT_DIR",
            "{}/gone",
            "SSL_CERT_DIR names '{}/gone', which does not exist. Unset SSL_CERT_DIR, or let it name a folder "
            "of certificates.",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value.replace("{}", str(tmp_path)))
    with pytest.raises(HubError) as caught:
        HuggingFaceHub(NOTHING_HERE).refs(NET)
    assert str(caught.value) == message.replace("{}", str(tmp_path))


def test_a_file_that_holds_no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("hello")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "text.pem"))
    with pytest.raises(HubError, match=r"^SSL_CERT_FILE names '.*text\.pem', which cannot be read as cert"):
        check_network_settings()


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="socksio is installed")
def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(HubError) as caught:
        HuggingFaceHub(NOTHING_HERE).refs(NET)
    assert str(caught.value) == (
        "ALL_PROXY names a SOCKS proxy, socks5://127.0.0.1:9, which needs the package 'socksio'. "
        "Install it with: pip install socksio. Or unset ALL_PROXY."
    )


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        # Bound, and not listening.
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setattr("modhub.hub.huggingface.PAUSES", ())
        with pytest.raises(OfflineError) as caught:
            HuggingFaceHub("http://hub.example").refs(NET)
    assert caught.value.message.startswith(
        f"http://hub.example cannot be reached through the proxy of HTTP_PROXY, {proxy} ("
    )
    assert caught.value.hint.startswith("Check HTTP_PROXY and NO_PROXY; ")
