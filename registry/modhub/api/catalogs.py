"""The hub that a verb was told to use."""

from __future__ import annotations

import os
import re

from modhub.catalog.catalog import Catalog
from modhub.hub import open_hub
from modhub.project.resolver import Trust
from modhub.reporter import Reporter

TRUSTED_VARIABLE = "MODHUB_TRUSTED"
"""Namespaces that bare labels may come from, with commas or blanks between them."""


def open_catalog(hub: str | Catalog | None = None, *, offline: bool = False) -> Catalog:
    """The hub `hub` names (None: MODHUB_HUB, else the user's own directory), seen through the local cache.

    A catalog stays what it is.
    """
    if isinstance(hub, Catalog):
        return hub
    return Catalog(open_hub(hub), offline=offline)


def trust_of(catalog: Catalog, reporter: Reporter) -> Trust:
    """Bare labels are served by the user's own namespaces and those of MODHUB_TRUSTED; the reporter is asked
    about others."""
    listed = re.split(r"[,\s]+", os.environ.get(TRUSTED_VARIABLE, "").lower())
    return Trust(catalog.files.owns, frozenset(filter(None, listed)), reporter)
