"""What the references and files of a repository mean. The client and the server both read it here.

A release `1.2.0` is the tag `v1.2.0`; it never changes. main holds `yanked.json`, which says which releases
are yanked, and why: `{"1.0.0": "reason"}`. A yanked release is used only where it is pinned; every other
release is active. The newest release is the newest active one by version order (PEP 440), whatever was
pushed last; pre-releases count only where nothing else is active.

Everything here is a function of references and of files that the caller reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.errors import ManifestError, ReleaseNotFoundError
from modhub.manifest import FileInfo, ModuleEntry, RepositoryManifest, TrunkInfo
from modhub.refs import RepositoryId, is_text, pinned_versions, version_of_tag
from modhub.text import parse_json

YANKED_NAME = "yanked.json"
YANKED_LIMIT = 1 << 20
REPORT = "Use another release, or report it to the publisher."
_OLDEST = Version("0.dev0")


@dataclass(frozen=True, slots=True)
class Release:
    """A commit of a repository; `version` is None when no release tag marks it.

    `yanked` is the reason it was yanked with, None while it is active.
    """

    version: Version | None
    commit: str
    yanked: str | None = None

    @property
    def active(self) -> bool:
        """Whether it has a version and is not yanked."""
        return self.version is not None and self.yanked is None

    def __str__(self) -> str:
        return self.commit[:12] if self.version is None else str(self.version)


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files that stand in one repository at one revision (a commit, tag or branch)."""

    repository: RepositoryId
    revision: str
    files: tuple[FileInfo, ...]


@dataclass(frozen=True, slots=True)
class ModuleWeight:
    """Bytes: `module` are the module's alone, `trunk` those of a trunk that other modules share.

    A standalone module has its trunk inside, so that its `trunk` is 0.
    """

    module: int
    trunk: int


def parse_yanked(content: bytes, place: str) -> dict[Version, str]:
    """Reason by version, from `yanked.json`. `1.0`, `1.0.0`, `v1.0` and `==1.0` name one release.

    Raises `ManifestError` for anything that is not a version or not one line of text: who cannot tell what is
    yanked must not use it.
    """
    document = parse_json(content, place)
    if not isinstance(document, dict) or not all(
        isinstance(reason, str) and is_text(reason) for reason in document.values()
    ):
        raise ManifestError(f"{place} should map versions to reasons, each one line of text.", hint=REPORT)
    reasons: dict[Version, str] = {}
    for text, reason in document.items():
        try:
            reasons[Version(text.strip().removeprefix("==").removeprefix("="))] = reason
        except ValueError:
            # InvalidVersion, or a number with more digits than Python reads.
            raise ManifestError(
                f"{place} names {text[:50]!a}, which is not a version.", hint=REPORT
            ) from None
    return reasons


def releases_of(
    tags: Mapping[str, str], read: Callable[[str], bytes | None], place: str
) -> tuple[Release, ...]:
    """Every release, yanked ones too, the newest version first.

    `tags` maps names to commits; `read` reads a file of main and answers None where main has none of that
    name. `place` names the repository in errors. Raises `ManifestError` for a `yanked.json` that is
    malformed.
    """
    content = read(YANKED_NAME)
    reasons = {} if content is None else parse_yanked(content, f"{YANKED_NAME} of {place}")
    releases = [
        (version, tag, Release(version, commit, reasons.get(version)))
        for tag, commit in tags.items()
        if (version := version_of_tag(tag)) is not None
    ]
    return tuple(release for _, _, release in sorted(releases, key=lambda row: row[:2], reverse=True))


def allowed_releases(releases: Iterable[Release], specifier: SpecifierSet) -> tuple[Release, ...]:
    """Those that `specifier` allows, the newest first.

    A yanked release counts only when it is pinned (`==1.0.0`); pre-releases as PEP 440 has it: when the
    specifier names one, or where nothing else is allowed.
    """
    pinned = pinned_versions(specifier)
    usable = {
        release: release.version
        for release in releases
        if release.version is not None and (release.active or release.version in pinned)
    }
    versions = set(specifier.filter(usable.values()))
    fitting = [release for release, version in usable.items() if version in versions]
    return tuple(sorted(fitting, key=lambda release: release.version or _OLDEST, reverse=True))


def newest_release(releases: Iterable[Release]) -> Release | None:
    """What a ref without a specifier means; None where no release is active."""
    return next(iter(allowed_releases(releases, SpecifierSet())), None)


def release_at(releases: Sequence[Release], revision: str, commit: str) -> Release:
    """The release that `revision`, which names `commit`, means; its version is None when no tag marks it.

    A release tag means its own release. Anything else means, of several releases on one commit, the newest
    active one, or else the newest.
    """
    version = version_of_tag(revision)
    marked = [release for release in releases if release.commit == commit]
    tagged = [release for release in marked if version is not None and release.version == version]
    best = max(
        tagged or marked, key=lambda release: (release.active, release.version or _OLDEST), default=None
    )
    return best or Release(None, commit)


def presented_commit(
    releases: Iterable[Release], main: str | None, manifest_at: Callable[[str], object | None]
) -> str | None:
    """The commit whose manifest and card speak for the repository where nobody asks for a revision.

    It is main, so that an edited card counts, as long as main has the manifest of the newest release. Where
    it has another (older versions of modhub left whatever was pushed last there), it is that release's
    commit. `manifest_at` identifies the content of `modhub.json` at a commit, None where there is none.
    """
    release = newest_release(releases)
    if release is None or main is None:
        return main
    manifest = manifest_at(release.commit)
    return main if manifest is None or manifest_at(main) == manifest else release.commit


def trunk_home(repository: RepositoryId, revision: str, trunk: TrunkInfo) -> tuple[RepositoryId, str]:
    """The repository and revision that hold a trunk's files, for a module at `revision` of `repository`."""
    if trunk.repository is None:
        return repository, revision
    return RepositoryId.parse(trunk.repository), trunk.revision or "main"


def files_of(
    repository: RepositoryId, commit: str, manifest: RepositoryManifest, entry: ModuleEntry
) -> tuple[FileSource, ...]:
    """What a module needs: its own two files, and its trunk's, which may stand in another repository."""
    trunk = manifest.trunk_of(entry)
    home, revision = trunk_home(repository, commit, trunk)
    return (
        FileSource(repository, commit, (entry.manifest, entry.tensors)),
        FileSource(home, revision, tuple(trunk.files)),
    )


def weight_of(manifest: RepositoryManifest, entry: ModuleEntry) -> ModuleWeight:
    """What a module weighs."""
    shared = manifest.trunk.files if entry.trunk is None and manifest.trunk is not None else ()
    return ModuleWeight(module=entry.bytes, trunk=sum(file.size for file in shared))


def shared_names(first: RepositoryManifest, second: RepositoryManifest) -> list[str]:
    """Labels of `first` that a class of `second` answers to, by any of their names."""
    return [
        entry.label
        for entry in first.modules
        if any(second.matching(name) for name in (entry.label, *entry.aliases))
    ]


def no_release(
    repository: RepositoryId, releases: Sequence[Release], specifier: SpecifierSet, label: str | None = None
) -> ReleaseNotFoundError:
    """The error for a repository none of whose `releases` the `specifier` allows."""
    yanked = [
        release
        for release in releases
        if release.version is not None and not release.active and specifier.contains(release.version, True)
    ]
    return ReleaseNotFoundError(
        str(repository),
        str(specifier),
        [f"{release}{'' if release.active else ' (yanked)'}" for release in releases],
        pin=f"{repository}{f'/{label}' if label else ''}=={yanked[0]}" if yanked else "",
    )


def yanked_warning(repository: RepositoryId, release: Release) -> str:
    """What a user of a yanked release is told."""
    return f"{repository} {release} is yanked: {release.yanked or 'no reason given'}."
