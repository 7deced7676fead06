"""Valid names of files, branches and tags: a function for each, used wherever such a name comes in."""

from __future__ import annotations

import re
import unicodedata

from modhub.errors import IntegrityError, RefError
from modhub.refs import is_commit

PATH_LIMIT = 500
PART_LIMIT_BYTES = 240
# Control, format (zero-width, bidirectional), surrogate, private, unassigned, line and paragraph separators.
_ODD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_REF_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/+-]{0,198}[A-Za-z0-9_+-])?\Z")


def check_path(path: str) -> str:
    """`path` itself, if every system can store it inside a repository. Raises `IntegrityError` if not.

    Allowed: relative, `/` between parts, NFC, at most 500 characters and 240 bytes a part; no `.`, `..`,
    `.git` or empty part, no backslash, control or invisible character, no part that ends in a space or a dot.
    """
    if reason := _objection(path):
        short = path if len(path) <= 80 else path[:77] + "…"
        raise IntegrityError(f"Invalid path {short!r}: {reason}.", hint="Rename the file.")
    return path


def _objection(path: str) -> str:
    if not path:
        return "it is empty"
    if len(path) > PATH_LIMIT:
        return f"it has {len(path)} characters, {PATH_LIMIT} are allowed"
    if path.startswith("/") or re.match(r"[A-Za-z]:[\\/]", path):
        return "it is absolute"
    if "\\" in path:
        return "it has a backslash"
    if odd := next((sign for sign in path if unicodedata.category(sign) in _ODD_CATEGORIES), None):
        return f"it has the character U+{ord(odd):04X}"
    if not unicodedata.is_normalized("NFC", path):
        return "its Unicode is not in normal form C"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "it has an empty, '.' or '..' part"
        if part.casefold().rstrip(". ") == ".git":
            return "'.git' is reserved"
        if part[-1] in ". " or part[0] == " ":
            return "a part begins or ends with a space or ends with a dot"
        if len(part.encode()) > PART_LIMIT_BYTES:
            return f"a part has more than {PART_LIMIT_BYTES} bytes"
    return ""


def collision_key(path: str) -> str:
    """Equal for two paths that are the same file on a case-insensitive system."""
    return unicodedata.normalize("NFC", path.casefold())


def check_ref_name(name: str, kind: str) -> str:
    """`name` itself, if a branch or tag may be called so. Raises `RefError`; `kind` is the word for it."""
    parts = name.split("/")
    if (
        not _REF_NAME.match(name)
        or ".." in name
        or any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
        or parts[0] == "refs"
        or name == "HEAD"
        or is_commit(name)
    ):
        short = name if len(name) <= 80 else name[:77] + "…"
        raise RefError(
            f"Invalid {kind} name {short!r}.",
            hint="Use letters, digits and, between them, '.', '_', '-', '+', '/'.",
        )
    return name
