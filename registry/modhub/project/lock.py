"""`modhub.lock`: what a composition resolved to, to the byte.

It names repositories, commits and the sha256 and size of every file, and no place to fetch them from but what
`modhub.toml` binds a namespace to: any hub or cache that has those bytes will do. Equal compositions give
equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from packaging.version import Version

from modhub.catalog.releases import Release, trunk_home
from modhub.errors import IntegrityError, ManifestError, RefError, hinting
from modhub.manifest import FileInfo
from modhub.manifest.fields import Fields
from modhub.project.resolver import Preferences, Resolution
from modhub.project.toml import Constraints, Project, Want, hubs_of
from modhub.refs import RepositoryId, is_commit, parse_version
from modhub.text import parse_json, pretty_json

LOCK_NAME = "modhub.lock"
LOCK_SCHEMA_VERSION = 1
_AGAIN = "Write the lock again with: modhub lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedModule:
    """One module: `want` is the line of `modhub.toml` it fulfils, `module` its label in its repository.

    `version` is None when the want names a commit or branch that no release tag marks; `trunk` is a content
    id among the lock's trunks.
    """

    want: Want
    repository: RepositoryId
    version: Version | None
    commit: str
    module: str
    trunk: str
    files: tuple[FileInfo, ...]

    @classmethod
    def from_dict(cls, fields: Fields) -> LockedModule:
        version = fields.optional_string("version")
        return cls(
            want=Want.parse(fields.label("label"), fields.string("ref", limit=1000)),
            repository=RepositoryId.parse(fields.string("repository", limit=200)),
            version=None if version is None else parse_version(version),
            commit=_commit(fields),
            module=fields.label("module"),
            trunk=fields.digest("trunk"),
            files=_files(fields),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.want.label,
            "ref": self.want.text,
            "repository": str(self.repository),
            "version": None if self.version is None else str(self.version),
            "commit": self.commit,
            "module": self.module,
            "trunk": self.trunk,
            "files": [file.to_dict() for file in self.files],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedTrunk:
    """The files of one trunk and the commit that holds them.

    A content id is that of graph and weights. Statistics hold the parent's head, so that the trunk of heads
    trained apart is locked once for each of them: the files they share are the same to the byte.
    """

    sha256: str
    repository: RepositoryId
    commit: str
    files: tuple[FileInfo, ...]

    @classmethod
    def from_dict(cls, fields: Fields) -> LockedTrunk:
        return cls(
            sha256=fields.digest("sha256"),
            repository=RepositoryId.parse(fields.string("repository", limit=200)),
            commit=_commit(fields),
            files=_files(fields),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "sha256": self.sha256,
            "repository": str(self.repository),
            "commit": self.commit,
            "files": [file.to_dict() for file in self.files],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Modules in the order of the composition's labels, trunks by content id and then by repository."""

    constraints: Constraints
    modules: tuple[LockedModule, ...]
    trunks: tuple[LockedTrunk, ...]
    hubs: Mapping[str, str] = field(default_factory=dict)
    """The hub of a namespace, which is in lower case."""

    @classmethod
    def from_bytes(cls, content: bytes, place: str = LOCK_NAME, *, hint: str = _AGAIN) -> Lock:
        """Read and check the file; `hint` says how to get another.

        Raises `ManifestError` (`SchemaVersionError` when a newer modhub wrote it) naming `place`.
        """
        with hinting(hint):
            try:
                return cls.from_dict(Fields(parse_json(content, place), place))
            except (IntegrityError, RefError) as error:
                # What cannot be a ref or a path says so of itself, not of the file it stands in.
                raise ManifestError(f"{place} is damaged: {error.message}") from None

    @classmethod
    def from_dict(cls, fields: Fields) -> Lock:
        fields.check_version(LOCK_SCHEMA_VERSION)
        lock = cls(
            constraints=Constraints.from_dict(fields.child("constraints")),
            modules=tuple(LockedModule.from_dict(module) for module in fields.children("modules")),
            trunks=tuple(LockedTrunk.from_dict(trunk) for trunk in fields.children("trunks")),
            hubs=hubs_of(fields),
        )
        digests = {trunk.sha256 for trunk in lock.trunks}
        for module in lock.modules:
            if module.trunk not in digests:
                raise ManifestError(
                    f"The module '{module.want.label}' in {fields.place} stands on a trunk that it does "
                    "not list."
                )
        return lock

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": LOCK_SCHEMA_VERSION,
            "constraints": self.constraints.to_dict(),
            **({"hubs": dict(sorted(self.hubs.items()))} if self.hubs else {}),
            "modules": [module.to_dict() for module in self.modules],
            "trunks": [trunk.to_dict() for trunk in self.trunks],
        }

    def to_bytes(self) -> bytes:
        """The file's one byte string for this content."""
        return pretty_json(self.to_dict())

    def fulfils(self, project: Project) -> bool:
        """Whether this is the lock of just these modules, constraints and hubs."""
        wants = tuple(module.want for module in self.modules)
        rules = (self.constraints, dict(self.hubs))
        return wants == project.wants and rules == (project.constraints, dict(project.hubs))

    @property
    def preferences(self) -> Preferences:
        """What a new resolution should keep where it may."""
        return Preferences(
            {module.repository: module.commit for module in self.modules},
            {module.want.label: module.repository for module in self.modules},
            {
                module.want: (module.repository, Release(module.version, module.commit))
                for module in self.modules
            },
        )

    def at(self, hubs: Mapping[str, str]) -> Lock:
        """The lock of the modules whose namespace has the same hub among `hubs`; its trunks stay."""
        moved = {name for name in {*self.hubs, *hubs} if self.hubs.get(name) != hubs.get(name)}
        return replace(
            self, modules=tuple(m for m in self.modules if m.repository.namespace.lower() not in moved)
        )

    def without(self, labels: Collection[str]) -> Lock:
        """The lock of the other modules; its trunks stay."""
        return replace(
            self, modules=tuple(module for module in self.modules if module.want.label not in labels)
        )

    @property
    def passes(self) -> dict[str, tuple[LockedTrunk, ...]]:
        """The trunks by content id: each is one pass, whichever repositories its files come from."""
        by_content: dict[str, tuple[LockedTrunk, ...]] = {}
        for trunk in self.trunks:
            by_content[trunk.sha256] = (*by_content.get(trunk.sha256, ()), trunk)
        return by_content


def lock_of(
    project: Project,
    resolution: Resolution,
    commit_of: Callable[[RepositoryId, str], str],
    keep: Lock | None = None,
) -> Lock:
    """The lock of a resolution; `commit_of` says which commit a revision of another repository is.

    The files of a trunk that `keep` has are taken from where it has them.
    """
    modules: list[LockedModule] = []
    trunks: dict[tuple[str, ...], LockedTrunk] = {}
    places = {} if keep is None else {(trunk.repository, trunk.files): trunk for trunk in keep.trunks}
    for module in resolution.modules:
        modules.append(
            LockedModule(
                want=module.want,
                repository=module.repository,
                version=module.release.version,
                commit=module.release.commit,
                module=module.entry.label,
                trunk=module.trunk.sha256,
                files=(module.entry.manifest, module.entry.tensors),
            )
        )
        home, revision = trunk_home(module.repository, module.release.commit, module.trunk)
        if is_commit(revision):
            commit = revision
        elif there := places.get((home, module.trunk.files)):
            commit = there.commit
        else:
            commit = commit_of(home, revision)
        trunk = LockedTrunk(
            sha256=module.trunk.sha256, repository=home, commit=commit, files=module.trunk.files
        )
        # The same files may stand in several repositories: the first by name is as good as any.
        content = (trunk.sha256, *(file.sha256 for file in trunk.files))
        locked = trunks.setdefault(content, trunk)
        if (trunk.repository, trunk.commit) < (locked.repository, locked.commit):
            trunks[content] = trunk
    return Lock(
        constraints=project.constraints,
        modules=tuple(modules),
        trunks=tuple(
            sorted(trunks.values(), key=lambda trunk: (trunk.sha256, trunk.repository, trunk.commit))
        ),
        hubs=project.hubs,
    )


def _commit(fields: Fields) -> str:
    commit = fields.string("commit")
    if not is_commit(commit):
        raise ManifestError(f"'commit' in {fields.place} is not a commit id (40 hex digits).")
    return commit


def _files(fields: Fields) -> tuple[FileInfo, ...]:
    return tuple(FileInfo.from_dict(file) for file in fields.children("files", minimum=1))
