"""Hubs: where repositories live. `open_hub` opens one by its address."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from modhub.errors import HubError
from modhub.hub.base import Hub

__all__ = ["HUB_VARIABLE", "default_hub", "open_hub"]

HUB_VARIABLE = "MODHUB_HUB"


def default_hub() -> str:
    """`MODHUB_HUB`, or the directory `hub` in modhub's user data directory."""
    return os.environ.get(HUB_VARIABLE) or _user_hub()


def _user_hub() -> str:
    return str(Path(platformdirs.user_data_dir("modhub")) / "hub")


def open_hub(text: str | Path | None = None) -> Hub:
    """The hub that `text` names: a directory, `http(s)://…`, or `hf`; None means `default_hub()`.

    Imports only the kind that is needed and sends no request. Raises `HubError` for another scheme,
    `StorageError` for a directory that cannot be used. A missing directory is created by a push; the default
    one by reading, too.
    """
    name = str(text) if text else default_hub()
    if name == "hf" or name.startswith(("http://", "https://")):
        from modhub.hub.huggingface import HuggingFaceHub

        return HuggingFaceHub(None if name == "hf" else name)
    if "://" in name:
        raise HubError(
            f"'{name}' is not a hub.", hint="Use a directory, an http:// or https:// address, or hf."
        )
    from modhub.hub.directory import DirectoryHub

    return DirectoryHub(name, create=name == _user_hub())
