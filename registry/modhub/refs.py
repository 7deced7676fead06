"""What users type to name things: repositories, modules, versions, digests.

    ref        = [ repository [ "/" label ] | label ] [ specifier | "@" revision ]
    repository = namespace "/" name
    specifier  = PEP 440, for instance  >=1.2,<2
    revision   = a release tag (v1.2.0), a branch, or a commit (40 hex digits)

In a label, each of / @ < > = ! ~, a blank at either end, and a % before two hex digits are written as in a
URL: `a=b` is `a%3Db`. `parse` and `str` are inverse to each other on everything `parse` accepts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_version
from packaging.version import Version

from modhub.errors import AmbiguousClassError, RefError
from modhub.labels import LABEL_LIMIT, LabelIndex, key_of

REF_GRAMMAR = "namespace/name[/label][>=1.2,<2 | @revision], or a bare label such as 'cat'"

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}\Z")
# A specifier starts at the first of these; labels and names contain none of them.
_SPECIFIER_START = re.compile(r"[<>=!~]")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_JOINERS = "\u200c\u200d"
_INVISIBLE = frozenset(
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" + _JOINERS
)
_LATIN_LOOKING = re.compile(
    "[\u0400-\u052f\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03c1]"
)
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "_": "-", ".": "-"})
# What a label has only escaped. The codes are those of these signs alone: other labels may hold a %.
_RESERVED = "/@<>=!~%"
_BLANKS = " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ESCAPES = {quote(sign, safe="").replace("~", "%7E"): sign for sign in (*_RESERVED, *_BLANKS)}
_ESCAPED = re.compile("|".join(_ESCAPES), re.IGNORECASE)
_CODES = {sign: code for code, sign in _ESCAPES.items()}
_TO_ESCAPE = re.compile(rf"[/@<>=!~]|^[{_BLANKS}]+|[{_BLANKS}]+\Z|%(?=[0-9A-Fa-f]{{2}})")


def is_commit(text: str) -> bool:
    """Whether `text` is a full commit id, 40 lower-case hex digits."""
    return _COMMIT.match(text) is not None


def is_sha256(text: str) -> bool:
    """Whether `text` is a sha256 digest, 64 lower-case hex digits."""
    return _SHA256.match(text) is not None


def is_text(text: str) -> bool:
    """Whether `text` is a line that every file and terminal takes: no control sign, no lone surrogate."""
    return _UNFIT.search(text) is None


def parse_version(text: str) -> Version:
    """A PEP 440 version; `v1.2.0` and `1.2.0` are the same. Raises `RefError`."""
    try:
        return Version(text)
    except ValueError:
        raise RefError(
            f"'{text}' is not a version.", hint="Write it as in PEP 440, for instance 1.2.0 or 2.0rc1."
        ) from None


def pinned_versions(specifiers: SpecifierSet) -> frozenset[Version]:
    """The versions that `==1.0.0` or `===1.0.0` names, however it is written: `==1`, `==v1.0`.

    `==1.*` names none.
    """
    versions = set()
    for item in specifiers:
        if item.operator in ("==", "==="):
            with suppress(ValueError):
                versions.add(Version(item.version))
    return frozenset(versions)


def tag_of(version: Version) -> str:
    """The tag that marks a release: `v1.2.0`."""
    return f"v{version}"


def version_of_tag(tag: str) -> Version | None:
    """The release a tag marks, or None for a tag that marks none (only `v<PEP 440>` does)."""
    if not tag.startswith("v"):
        return None
    try:
        version = Version(tag[1:])
    except ValueError:
        return None
    return version if tag == tag_of(version) else None


def version_named(name: str) -> str | None:
    """The version that a tag or branch name spells, in canonical form; None where it spells none.

    `v1.0.0`, `V1.0`, `1` and `v1.0.0+cpu` all spell `1`: `==1.0.0` allows each of them.
    """
    try:
        return canonicalize_version(Version(name).public)
    except ValueError:
        return None


def check_label(label: str) -> str:
    """`label` itself, if a class may be called so: 1 to 200 characters on one line. Raises `RefError`."""
    if not label.strip() or len(label) > LABEL_LIMIT:
        shown = label if len(label) <= 80 else f"{label[:77]}…"
        raise RefError(
            f"The label {shown!r} has {len(label):,} characters; a label has 1 to {LABEL_LIMIT} "
            "and is not blank.",
            hint="Give the class another label.",
        )
    if (sign := misleading(label)) is not None:
        raise RefError(
            f"The label {label!a} holds {sign}, which looks like something else or like nothing.",
            hint="Give the class another label.",
        )
    if not is_text(label):
        raise RefError(
            f"The label {label!a} holds a control character or a lone surrogate.",
            hint="Give the class another label.",
        )
    return label


def misleading(text: str) -> str | None:
    """A sign of `text` that makes it look like another text, as Unicode calls it; None for none.

    Those are marks of direction, signs without width where no script joins letters with them, and Cyrillic or
    Greek letters that look Latin, in one word with Latin letters.
    """
    for number, sign in enumerate(text):
        joins = sign in _JOINERS and number and not text[number - 1].isascii()
        if sign in _INVISIBLE and not joins:
            return f"U+{ord(sign):04X} ({unicodedata.name(sign)})"
    for word in re.findall(r"[^\W\d_]+", text):
        if re.search(r"[A-Za-z]", word) and (like := _LATIN_LOOKING.search(word)):
            return f"U+{ord(like[0]):04X} ({unicodedata.name(like[0])})"
    return None


def skeleton(name: str) -> str:
    """What names of repositories and namespaces have in common that are easily taken for each other."""
    return name.lower().translate(_ALIKE).replace("rn", "m").replace("vv", "w")


def repeated(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that occur more than once, in their order."""
    return tuple(name for name, count in Counter(names).items() if count > 1)


def rows_of(
    names: Iterable[str],
    labels: Sequence[str],
    aliases: Mapping[str, Iterable[str]] | None = None,
    place: str = "the data set",
) -> dict[str, int]:
    """Which of `labels` each of `names`, the classes of `place`, means, as its place among them.

    Names that mean none are left out, and so are those that a closer name displaces (`Cat` beside `cat`) or
    that are aliases of several labels. Raises `AmbiguousClassError` for two names that fit one label equally
    well, and for a name that fits two labels so.
    """
    index = LabelIndex(labels, aliases or {})
    rivals: dict[tuple[int, str], dict[int, list[str]]] = {}
    for name in dict.fromkeys(names):
        for closeness, rows in index.fits(name):
            if len(rows) == 1:
                rivals.setdefault((rows[0], key_of(name)), {}).setdefault(closeness, []).append(name)
            elif all(key_of(labels[row]) == key_of(name) for row in rows):
                raise AmbiguousClassError(name, "the classifier", [labels[row] for row in rows])
            break
    meant = {}
    for (row, _), by_closeness in rivals.items():
        closest = by_closeness[min(by_closeness)]
        if len(closest) > 1:
            raise AmbiguousClassError(labels[row], place, closest)
        meant[closest[0]] = row
    return meant


@dataclass(frozen=True, slots=True, order=True)
class RepositoryId:
    """`namespace/name`. Compared as written; hubs treat ids that differ only in case as one."""

    namespace: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.namespace, self.name):
            if not _PART.match(part) or ".." in part or "--" in part or part.endswith(".git"):
                raise RefError(
                    f"'{self.namespace}/{self.name}' is not a repository id.",
                    hint="Write namespace/name with letters, digits and single '-', '_' or '.' inside.",
                )

    @classmethod
    def parse(cls, text: str) -> RepositoryId:
        """Read `namespace/name`. Raises `RefError`."""
        namespace, slash, name = text.partition("/")
        if not slash or "/" in name:
            raise RefError(
                f"'{text}' is not a repository id.",
                hint="Write namespace/name, for instance vision-lab/resnet20-cifar10.",
            )
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Ref:
    """Which module (or all modules) of which repository, and which releases will do.

    At least one of `repository` and `label` is set; `specifier` is empty unless given; `specifier` and
    `revision` exclude each other.
    """

    repository: RepositoryId | None
    label: str | None
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read a ref as a user types it. Raises `RefError` showing the grammar."""
        body, specifier, revision = text.strip(), SpecifierSet(), None
        if match := _SPECIFIER_START.search(body):
            wanted, body = body[match.start() :], body[: match.start()].rstrip()
            try:
                specifier = SpecifierSet(wanted)
                # No release is called so, and packaging before 26 fails later.
                for item in specifier:
                    if item.operator == "===":
                        Version(item.version)
            except ValueError:
                raise _unreadable(text, f"'{wanted}' is not a version specifier") from None
        elif "@" in body:
            body, _, revision = body.partition("@")
            if not _REVISION.match(revision) or ".." in revision:
                raise _unreadable(text, f"'{revision}' is not a revision")
        if "@" in body:
            raise _unreadable(text, "a ref takes a specifier or a revision, not both")
        parts = body.split("/")
        if len(parts) > 3 or not all(part.strip() for part in parts):
            raise _unreadable(text, f"it has {len(parts)} parts" if len(parts) > 3 else "a part is empty")
        label = None if len(parts) == 2 else _unescaped(parts[-1].strip())
        if label is not None:
            try:
                check_label(label)
            except RefError as error:
                raise _unreadable(text, error.message.rstrip(".")) from None
        repository = None
        if len(parts) >= 2:
            try:
                repository = RepositoryId(parts[0], parts[1])
            except RefError as error:
                raise _unreadable(text, error.message.rstrip(".")) from None
        if repository is None and revision is not None:
            raise _unreadable(text, "a revision needs a repository")
        return cls(repository, label, specifier, revision)

    def __str__(self) -> str:
        label = None if self.label is None else _escaped(self.label)
        body = "/".join(str(part) for part in (self.repository, label) if part is not None)
        if self.revision is not None:
            return f"{body}@{self.revision}"
        return f"{body}{self.specifier}"


def _escaped(label: str) -> str:
    return _TO_ESCAPE.sub(lambda match: "".join(_CODES[sign] for sign in match[0]), label)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0].upper()], text)


def _unreadable(text: str, why: str) -> RefError:
    return RefError(f"'{text}' is not a ref: {why}.", hint=f"A ref is {REF_GRAMMAR}.")
