"""Licences by their SPDX expressions."""

from __future__ import annotations

import difflib
import re

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

USUAL = (
    *("0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause"),
    *("BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0", "CC-BY-3.0", "CC-BY-4.0"),
    *("CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-2.0"),
    *("EUPL-1.2", "GFDL-1.3-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only"),
    *("GPL-3.0-or-later", "ISC", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
    *("MIT", "MIT-0", "MPL-2.0", "MS-PL", "NCSA", "ODC-By-1.0", "ODbL-1.0", "OFL-1.1", "PDDL-1.0"),
    *("Python-2.0", "Unlicense", "WTFPL", "Zlib"),
)
"""Licences of models, data and code that are suggested. `packaging` tells valid expressions, and keeps its
list of all to itself."""


_FILLERS = ("the", "license", "licence", "license,", "licence,", "version")


def licence_expression(text: str) -> str:
    """`text` as written. Raises `ValueError`, with the nearest, for what is no SPDX expression."""
    try:
        canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        identifiers = {name.lower(): name for name in USUAL}
        words = "-".join(word for word in text.lower().split() if word not in _FILLERS)
        words = re.sub(r"-?v(?=\d)", "-", words)
        near = difflib.get_close_matches(words, identifiers, n=3, cutoff=0.5)
        nearest = f" Nearest: {', '.join(identifiers[word] for word in near)}." if near else ""
        raise ValueError(
            f"'{text}' is not an SPDX licence expression.{nearest} Of any other licence: LicenseRef-NAME."
        ) from None
    return text
