"""The hub that a verb was told to use."""

from __future__ import annotations

from modhub.catalog.catalog import Catalog
from modhub.hub import open_hub

__all__ = ["open_catalog"]


def open_catalog(hub: str | Catalog | None = None, *, offline: bool = False) -> Catalog:
    """The hub `hub` names (None: MODHUB_HUB, else the user's own directory), seen through the local cache.

    A catalog stays what it is.
    """
    if isinstance(hub, Catalog):
        return hub
    return Catalog(open_hub(hub), offline=offline)
