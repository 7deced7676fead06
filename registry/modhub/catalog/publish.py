"""Publishing releases and yanking them: commits and tags, on every hub.

main always holds the newest release, so that search and pages, which read main, show that one. A release that
is not the newest (1.0.1 after 2.0.0) is committed to main and tagged, and then main gets the files of the
newest release back; a hub copies them, nothing is sent again. `yank` moves main in its own commit. Whoever
writes looks at main last and moves it where it lags, so that writers who interleave, or one that was
interrupted and runs again, end with the same main.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from modhub.catalog.catalog import Catalog
from modhub.catalog.contents import artifact_contents
from modhub.catalog.releases import (
    YANKED_LIMIT,
    YANKED_NAME,
    Release,
    newest_release,
    no_release,
    parse_yanked,
    presented_commit,
    shared_names,
)
from modhub.errors import (
    ConflictError,
    HubError,
    IntegrityError,
    ManifestError,
    ModhubError,
    NotFoundError,
    RefError,
    StaleParentError,
)
from modhub.manifest import MANIFEST_NAME, RepositoryManifest
from modhub.refs import RepositoryId, is_text, tag_of
from modhub.reporter import SILENT, Reporter
from modhub.store.model import HUB_FILES, MAIN, Add, Change, Copy, Delete, FileEntry
from modhub.store.paths import check_ref_name
from modhub.text import pretty_json

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """`sent` counts bytes of changed files; `existed` says that the release was published before."""

    repository: RepositoryId
    release: Release
    files: int
    sent: int
    existed: bool


def push(
    catalog: Catalog,
    directory: Path | str,
    repository: RepositoryId,
    version: Version,
    *,
    private: bool = False,
    force: bool = False,
    check: Callable[[Path], None] = lambda directory: None,
    reporter: Reporter = SILENT,
) -> Push:
    """Publish the artifact in `directory` as the release `version`: one commit and the tag `v<version>`.

    `check` is called with the directory once its digests are verified, before anything is sent.

    Pushing the same bytes again changes nothing, but restores what the hub reports as lost of them.

    Raises `ConflictError` when the release exists with other files, or has no class in common with the active
    release before it and there is no `force`; `RefError` for a version that no tag can spell (an epoch,
    `1!2.0`); `ManifestError` or `IntegrityError` when the artifact is incomplete. The hub is unchanged then;
    a repository that was made for a first release that fails is removed again.
    """
    tag = check_ref_name(tag_of(version), "tag")
    catalog.files.require(f"The hub '{catalog.hub.address}'")
    contents = artifact_contents(catalog, Path(directory), repository)
    check(Path(directory))
    sizes = sum(map(_size, contents.values()))
    with (
        _repository(catalog, repository, private=private),
        reporter.step(f"push {repository} {version}", sizes),
    ):
        sent = 0
        for _ in range(_ATTEMPTS):
            releases = catalog.releases(repository)
            existing = _existing_release(catalog, repository, releases, version, contents)
            if existing is None:
                _check_version(repository, releases, version)
            if existing is None and not force:
                _check_classes(catalog, repository, releases, version, contents)
            commit = head = existing.commit if existing else catalog.hub.commit_of(repository, MAIN)
            tree = catalog.hub.tree(repository, head)
            lost = _lost(tree, catalog.hub.lost(repository, head), contents)
            if lost:
                catalog.hub.restore(repository, lost, reporter=reporter)
                sent += sum(file.size for file in lost)
            if existing is None:
                changes = _changes(tree, contents)
                if changes:
                    try:
                        commit = catalog.hub.commit(
                            repository, changes, f"Release {version}", parent=head, reporter=reporter
                        )
                    except StaleParentError:
                        continue
                try:
                    catalog.hub.create_tag(repository, tag, commit)
                except ConflictError:
                    continue
                sent += sum(change.size for change in changes if isinstance(change, Add))
            try:
                _present_newest(catalog, repository, commit if existing is None else None)
            except HubError as error:
                # Published it is; the next push or yank moves main.
                reporter.warn(f"main of '{repository}' does not show its newest release yet. {error}")
            return Push(
                repository=repository,
                release=existing or Release(version, commit),
                files=len(contents),
                sent=sent,
                existed=existing is not None,
            )
    raise _kept_changing(repository)


@contextmanager
def _repository(catalog: Catalog, repository: RepositoryId, *, private: bool) -> Iterator[None]:
    """The repository, made where it is missing; what is made goes when the block fails before a release."""
    try:
        catalog.hub.refs(repository)
    except NotFoundError:
        catalog.hub.create_repository(repository, private=private, exist_ok=True)
    else:
        yield
        return
    try:
        yield
    except BaseException:
        with suppress(ModhubError):
            if not catalog.hub.refs(repository).tags:
                catalog.hub.delete_repository(repository)
        raise


def yank(catalog: Catalog, repository: RepositoryId, version: Version, reason: str) -> Release:
    """Yank a release: it stays for whoever pins it, and is not chosen otherwise.

    Raises `ReleaseNotFoundError`, and `RefError` for a reason that is not one line of text.
    """
    if not is_text(reason):
        raise RefError(f"The reason {reason!a} is not one line of text.", hint="Write it in one line.")
    return _change_yanked(catalog, repository, version, reason or "no reason given")


def unyank(catalog: Catalog, repository: RepositoryId, version: Version) -> Release:
    """Undo `yank`. Nothing changes when the release is active."""
    return _change_yanked(catalog, repository, version, None)


def _change_yanked(
    catalog: Catalog, repository: RepositoryId, version: Version, reason: str | None
) -> Release:
    catalog.files.require(f"The hub '{catalog.hub.address}'")
    for _ in range(_ATTEMPTS):
        releases = catalog.releases(repository)
        before = next((release for release in releases if release.version == version), None)
        if before is None:
            raise no_release(repository, releases, SpecifierSet(f"=={version}"))
        # As the release is written: 1.0 is 1.0.0.
        after = replace(before, yanked=reason)
        head = catalog.hub.commit_of(repository, MAIN)
        tree = catalog.hub.tree(repository, head)
        changes: list[Change] = []
        if after != before:
            changes.append(_yanked_file(catalog, repository, head, tree, releases, after))
        changes += _lagging(
            catalog,
            repository,
            [after if release.version == version else release for release in releases],
            head,
        )
        if not changes:
            return after
        title = f"Yank release {after}" if reason is not None else f"Undo the yank of release {after}"
        try:
            catalog.hub.commit(repository, changes, title, parent=head)
        except StaleParentError:
            continue
        return after
    raise _kept_changing(repository)


def _yanked_file(
    catalog: Catalog,
    repository: RepositoryId,
    head: str,
    tree: Mapping[str, FileEntry],
    releases: Iterable[Release],
    release: Release,
) -> Add:
    """`yanked.json` of main at `head` with what it now says of `release`; of `releases` where it is gone."""
    reasons = {each.version: each.yanked for each in releases if each.version and each.yanked is not None}
    if YANKED_NAME in tree:
        content = catalog.hub.read(repository, head, YANKED_NAME, limit=YANKED_LIMIT)
        reasons = parse_yanked(content, f"{YANKED_NAME} of '{repository}'")
    if release.version is not None:
        reasons.pop(release.version, None)
        if release.yanked is not None:
            reasons[release.version] = release.yanked
    return Add(YANKED_NAME, pretty_json({str(version): reasons[version] for version in sorted(reasons)}))


def _present_newest(catalog: Catalog, repository: RepositoryId, pushed: str | None) -> None:
    """Make main hold the newest release if it lags, or if `pushed` was just committed to it instead."""
    for _ in range(_ATTEMPTS):
        releases = catalog.releases(repository)
        release = newest_release(releases)
        head = catalog.hub.commit_of(repository, MAIN)
        if release is not None and pushed is not None and head == pushed != release.commit:
            changes = _restoring(catalog, repository, head, release.commit)
        else:
            changes = _lagging(catalog, repository, releases, head)
        if not changes:
            return
        try:
            catalog.hub.commit(repository, changes, f"Show release {release}", parent=head)
        except StaleParentError:
            continue
        return
    raise _kept_changing(repository)


def _lagging(
    catalog: Catalog, repository: RepositoryId, releases: Iterable[Release], head: str
) -> list[Change]:
    """What makes main at `head` hold the newest of `releases`; nothing where it has that one's manifest."""

    def manifest_at(commit: str) -> FileEntry | None:
        return catalog.files.tree(repository, commit).get(MANIFEST_NAME)

    presented = presented_commit(releases, head, manifest_at)
    if presented is None or presented == head:
        return []
    return _restoring(catalog, repository, head, presented)


def _restoring(catalog: Catalog, repository: RepositoryId, head: str, commit: str) -> list[Change]:
    """What gives main at `head` the files of `commit`."""
    tree, wanted = catalog.files.tree(repository, head), catalog.files.tree(repository, commit)
    changes: list[Change] = [Delete(path) for path in tree if path not in wanted and path not in HUB_FILES]
    changes += [
        Copy(path, path, commit)
        for path, file in wanted.items()
        if path not in HUB_FILES and tree.get(path) != file
    ]
    return changes


def _existing_release(
    catalog: Catalog,
    repository: RepositoryId,
    releases: Iterable[Release],
    version: Version,
    contents: Mapping[str, bytes | Path],
) -> Release | None:
    """The release if it exists with these very files, but for what making them took. Raises `ConflictError`
    when it has others."""
    releases = tuple(releases)
    for release in releases:
        if release.version != version:
            continue
        tree = catalog.hub.tree(repository, release.commit)
        changes = _changes(tree, contents)
        if not changes or _same_modules(catalog, repository, release, changes, contents):
            return release
        newest = max(release.version for release in releases if release.version is not None)
        following = f"{newest.major}.{newest.minor}.{newest.micro + 1}"
        raise ConflictError(
            f"Release {version} of '{repository}' exists with other files.",
            hint=f"Releases never change; push the next version: --version {following}",
        )
    return None


def _same_modules(
    catalog: Catalog,
    repository: RepositoryId,
    release: Release,
    changes: Sequence[Change],
    contents: Mapping[str, bytes | Path],
) -> bool:
    """Whether the release differs in nothing but the energy that making it took."""
    if [change.path for change in changes if isinstance(change, Add)] != [MANIFEST_NAME] or len(changes) > 1:
        return False
    try:
        old = catalog.manifest(repository, release.commit)
    except (IntegrityError, ManifestError, NotFoundError):
        return False
    return replace(old, energy=None) == replace(_manifest(contents), energy=None)


def _manifest(contents: Mapping[str, bytes | Path]) -> RepositoryManifest:
    manifest = contents[MANIFEST_NAME]
    return RepositoryManifest.from_bytes(manifest if isinstance(manifest, bytes) else manifest.read_bytes())


def _check_version(repository: RepositoryId, releases: Iterable[Release], version: Version) -> None:
    """Raises `ConflictError` where `version` differs from a release's in its local part only.

    `==1.0.0` allows both 1.0.0 and 1.0.0+cpu.
    """
    for release in releases:
        if release.version is not None and release.version.public == version.public:
            raise ConflictError(
                f"Release {release} of '{repository}' exists, and {version} is the same version.",
                hint="Releases never change; push the next version.",
            )


def _check_classes(
    catalog: Catalog,
    repository: RepositoryId,
    releases: Iterable[Release],
    version: Version,
    contents: Mapping[str, bytes | Path],
) -> None:
    """Raises `ConflictError` when the active release before `version` has no class of `contents`."""
    earlier = newest_release(
        release for release in releases if release.version is not None and release.version < version
    )
    if earlier is None:
        return
    new = _manifest(contents)
    try:
        old = catalog.manifest(repository, earlier.commit)
    except (IntegrityError, ManifestError, NotFoundError):
        # A release that cannot be read is best followed by one that can.
        return
    if not shared_names(new, old):
        raise ConflictError(
            f"Release {version} of '{repository}' would have no class in common with release {earlier}: "
            f"{_listed(new)}, not {_listed(old)}.",
            hint="Push it to a repository of its own, or pass --force to publish it in this one.",
        )


def _listed(manifest: RepositoryManifest) -> str:
    labels = [entry.label for entry in manifest.modules]
    return ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")


def _changes(tree: Mapping[str, FileEntry], contents: Mapping[str, bytes | Path]) -> list[Change]:
    """What makes a commit with `tree` hold just `contents`."""
    changes: list[Change] = [Delete(path) for path in tree if path not in contents and path not in HUB_FILES]
    for path, content in contents.items():
        if path not in tree or not tree[path].matches(content):
            changes.append(Add(path, content))
    return changes


def _lost(
    tree: Mapping[str, FileEntry], lost: Collection[str], contents: Mapping[str, bytes | Path]
) -> list[Add]:
    """What restores contents that a commit with `tree` names and its hub has `lost`."""
    return [
        Add(path, content)
        for path, content in contents.items()
        if path in lost and path in tree and tree[path].matches(content)
    ]


def _kept_changing(repository: RepositoryId) -> ConflictError:
    return ConflictError(f"'{repository}' kept changing meanwhile.", hint="Try again later.")


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)
