"""Hubs: where repositories live. `open_hub` finds the one that is meant."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from modhub.errors import HubError
from modhub.hub.base import Hub

__all__ = ["HUB_VARIABLE", "default_hub", "open_hub"]

HUB_VARIABLE = "MODHUB_HUB"


def default_hub() -> str:
    """`MODHUB_HUB`, or the folder `hub` in the user's data folder for modhub."""
    return os.environ.get(HUB_VARIABLE) or _own_hub()


def _own_hub() -> str:
    return str(Path(platformdirs.user_data_dir("modhub")) / "hub")


def open_hub(text: str | Path | None = None) -> Hub:
    """The hub that `text` names: a directory, `http(s)://…`, or `hf`; None means `default_hub()`.

    Only the kind that is needed is imported, and nothing is asked yet. Raises `HubError` for another scheme,
    `StorageError` for a directory that cannot be used. One that is not there is begun by a push; the user's
    own is there once it is read.
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

    return DirectoryHub(name, own=name == _own_hub())
