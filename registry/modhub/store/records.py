"""Repositories, commits and pull requests as the store writes them: frozen values and their JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from modhub.errors import IntegrityError, ManifestError, RefError, hinting
from modhub.manifest.fields import Fields
from modhub.refs import RepositoryId, is_commit
from modhub.results import Document
from modhub.text import canonical_json, parse_json

KINDS = ("model", "dataset")
GATES = ("", "auto", "manual")
HEADS, TAGS, PULLS = "refs/heads/", "refs/tags/", "refs/pr/"
"""How the full names of branches, tags and pull requests begin."""


def now() -> str:
    """The present time as records have it: ISO 8601, UTC, milliseconds, `2026-11-22T16:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class RepositoryKey:
    """Which repository: its kind (`model` or `dataset`) and id.

    Two keys that differ only in case are equal: they name one repository.
    """

    kind: str
    id: RepositoryId = field(compare=False)
    path: str = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RefError(f"'{self.kind}' is not a kind of repository.", hint="Use model or dataset.")
        object.__setattr__(self, "path", f"{self.kind}/{self.id}".lower())

    @classmethod
    def model(cls, text: str | RepositoryId) -> RepositoryKey:
        """The model repository `namespace/name`. Raises `RefError`."""
        return cls("model", RepositoryId.parse(text) if isinstance(text, str) else text)

    @property
    def subject(self) -> str:
        """The repository as the audit log names it."""
        return f"{self.kind}/{self.id}"

    def __str__(self) -> str:
        return str(self.id) if self.kind == "model" else f"{self.kind}s/{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Document):
    """Who may see a repository.

    `gated` is "" (everybody who may see it may read it), "auto" (any user) or "manual" (only `readers`, and
    those who may write).
    """

    private: bool = False
    gated: str = ""
    readers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gated not in GATES:
            raise RefError(f"'{self.gated}' is not a gate.", hint="Use auto or manual.")

    @classmethod
    def from_dict(cls, fields: Fields) -> Settings:
        return cls(
            private=fields.boolean("private"),
            gated=fields.choice("gated", GATES),
            readers=fields.strings("readers"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRecord:
    """A repository: `id` in the spelling of its creation, `created` as `now` writes it."""

    kind: str
    id: RepositoryId
    created: str
    settings: Settings = field(default_factory=Settings)

    @property
    def key(self) -> RepositoryKey:
        return RepositoryKey(self.kind, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """One state of all files.

    `parents` are 40-hex commit ids, the branch's own first; `tree` is the sha256 of the list of files; `ref`
    is the full name of the reference it was created on. `generation` grows along it, so that the newest
    sound commit of a damaged branch can be found without the references.
    """

    parents: tuple[str, ...]
    tree: str
    title: str
    description: str
    author: str
    date: str
    ref: str
    generation: int

    @property
    def id(self) -> str:
        """40 hex digits: the beginning of the sha256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:40]

    def to_bytes(self) -> bytes:
        return canonical_json({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    @hinting("Run: modhub fsck --repair")
    def from_bytes(cls, content: bytes, commit: str) -> CommitRecord:
        """Raises `IntegrityError` when the bytes are not `commit`."""
        if hashlib.sha256(content).hexdigest()[:40] != commit:
            raise IntegrityError(f"The commit {commit} is damaged on disk.")
        fields = Fields(parse_json(content, f"commit {commit}"), f"commit {commit}")
        return cls(
            parents=fields.strings("parents"),
            tree=fields.digest("tree"),
            title=fields.string("title", lines=True),
            description=fields.string("description", limit=1 << 20, lines=True),
            author=fields.string("author", lines=True),
            date=fields.string("date"),
            ref=fields.string("ref"),
            generation=fields.integer("generation"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord(Document):
    """A release as it was published; its tag is its name.

    `version` is in canonical form (see `version_named`), `commit` has 40 hex digits, `manifest` is the sha256
    of `modhub.json`, and `files` that of all paths and digests which the publisher sent.
    """

    version: str
    commit: str
    manifest: str
    files: str

    @classmethod
    def from_dict(cls, fields: Fields) -> ReleaseRecord:
        commit = fields.string("commit")
        if not is_commit(commit):
            raise ManifestError(
                f"{fields.place} names {commit[:50]!r}, which is no commit.", hint="Run: modhub fsck --repair"
            )
        return cls(
            version=fields.string("version"),
            commit=commit,
            manifest=fields.digest("manifest"),
            files=fields.digest("files"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest(Document):
    """A pull request, whose commits are at `refs/pr/<number>`.

    `base` is the commit of `target` (a branch) it started from; `status` is open, merged or closed; `events`
    are its history, oldest first, each with `type`, `author`, `date` and, where it fits, `content`.
    """

    number: int
    title: str
    description: str
    author: str
    created: str
    target: str
    base: str
    status: str = "open"
    events: tuple[Mapping[str, str], ...] = ()

    @property
    def ref(self) -> str:
        return f"{PULLS}{self.number}"

    @classmethod
    def from_dict(cls, fields: Fields) -> PullRequest:
        return cls(
            number=fields.integer("number", minimum=1),
            title=fields.string("title", lines=True),
            description=fields.string("description", limit=1 << 20, lines=True),
            author=fields.string("author", lines=True),
            created=fields.string("created"),
            target=fields.string("target"),
            base=fields.string("base"),
            status=fields.choice("status", ("open", "merged", "closed")),
            events=tuple(
                {name: str(value) for name, value in event.value.items()}
                for event in fields.children("events")
            ),
        )
