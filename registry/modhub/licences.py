"""Licences by their SPDX expressions."""

from __future__ import annotations

import difflib

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.licenses._spdx import EXCEPTIONS, LICENSES

__all__ = ["licence_expression"]


def licence_expression(text: str) -> str:
    """`text` as written. Raises `ValueError`, with the nearest, for what is no SPDX expression."""
    try:
        canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        identifiers = {key: str(entry["id"]) for key, entry in {**LICENSES, **EXCEPTIONS}.items()}
        words = "-".join(text.lower().split())
        near = difflib.get_close_matches(words, identifiers, n=3, cutoff=0.5)
        nearest = f" Nearest: {', '.join(identifiers[word] for word in near)}." if near else ""
        raise ValueError(
            f"'{text}' is not an SPDX licence expression.{nearest} Of any other licence: LicenseRef-NAME."
        ) from None
    return text
