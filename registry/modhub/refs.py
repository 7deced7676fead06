"""What users type to name things: repositories, modules, versions, digests.

    ref        = [ repository [ "/" label ] | label ] [ specifier | "@" revision ]
    repository = namespace "/" name
    specifier  = PEP 440, for instance  >=1.2,<2
    revision   = a release tag (v1.2.0), a branch, or a commit (40 hex digits)

`parse` and `str` are inverse to each other on everything `parse` accepts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.errors import RefError

__all__ = [
    "REF_GRAMMAR",
    "Ref",
    "RepositoryId",
    "is_commit",
    "is_sha256",
    "is_text",
    "parse_version",
    "pinned_versions",
    "repeated",
    "rows_of",
    "slug_of",
    "slugs_of",
    "tag_of",
    "version_of_tag",
]

REF_GRAMMAR = "namespace/name[/label][>=1.2,<2 | @revision], or a bare label such as 'cat'"

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}\Z")
# A specifier starts at the first of these; labels and names contain none of them.
_SPECIFIER_START = re.compile(r"[<>=!~]")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LABEL_FORBIDDEN = re.compile(r"[/@<>=!~\x00-\x1f\x7f]")


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
    found = set()
    for item in specifiers:
        if item.operator in ("==", "==="):
            with suppress(ValueError):
                found.add(Version(item.version))
    return frozenset(found)


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


def slug_of(label: str) -> str:
    """A label as a path component: `Great white shark` → `great-white-shark`.

    Letters and digits of any script stay (NFKC, lower case); every run of other characters becomes one
    hyphen. Raises `RefError` when nothing is left.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    slug = "-".join(re.findall(r"[^\W_]+", text))[:96].strip("-")
    if not slug:
        raise RefError(f"The label {label!r} has no letter or digit.", hint="Give the class another label.")
    return slug


def slugs_of(labels: Iterable[str]) -> tuple[str, ...]:
    """The slug of each label, repeats told apart by a counter: C, C++ → c, c-2. Raises `RefError`."""
    taken: dict[str, None] = {}
    for slug in map(slug_of, labels):
        candidate, count = slug, 1
        while candidate in taken:
            count += 1
            candidate = slug_of(f"{slug[:80]} {count}")
        taken[candidate] = None
    return tuple(taken)


def repeated(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that stand there more than once, in their order."""
    return tuple(name for name, count in Counter(names).items() if count > 1)


def rows_of(
    names: Iterable[str], labels: Sequence[str], aliases: Mapping[str, Iterable[str]] | None = None
) -> dict[str, int]:
    """Which of `labels` each of `names` means, as its place among them; names that mean none are left out.

    A name means the label or alias that is written like it, else the one that differs in case alone, else
    the one with its slug (`Aquarium fish` is `aquarium_fish`), and none where that fits several names or
    labels: `C` and `C++` have one slug. A label's own name wins over another label's alias.
    """
    asked = tuple(dict.fromkeys(names))
    own = [(label, row) for row, label in enumerate(labels)]
    others = [(alias, row) for label, row in own for alias in (aliases or {}).get(label, ())]
    found: dict[str, int] = {}
    for form in (str, str.casefold, _slug_or_itself):
        known = {**_rows_by(form, others), **_rows_by(form, own)}
        counts = Counter(form(name) for name in asked)
        for name in asked:
            rows = known.get(form(name), set())
            if name not in found and len(rows) == 1 and counts[form(name)] == 1:
                (found[name],) = rows
    return found


def _rows_by(form: Callable[[str], str], spellings: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name, row in spellings:
        found.setdefault(form(name), set()).add(row)
    return found


def _slug_or_itself(label: str) -> str:
    try:
        return slug_of(label)
    except RefError:
        return label


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
        label = None if len(parts) == 2 else parts[-1].strip()
        if label is not None and (_LABEL_FORBIDDEN.search(label) or len(label) > 200):
            raise _unreadable(text, f"{label!r} is not a label")
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
        body = "/".join(str(part) for part in (self.repository, self.label) if part is not None)
        if self.revision is not None:
            return f"{body}@{self.revision}"
        return f"{body}{self.specifier}"


def _unreadable(text: str, why: str) -> RefError:
    return RefError(f"'{text}' is not a ref: {why}.", hint=f"A ref is {REF_GRAMMAR}.")
