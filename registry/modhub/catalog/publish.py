"""Putting releases on a hub and taking them back. One commit and one tag, on every hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from modhub.catalog.catalog import YANKED_NAME, Catalog, read_yanked
from modhub.catalog.releases import Release
from modhub.errors import (
    ConflictError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    RefError,
    StaleParentError,
    StorageError,
)
from modhub.files import confined, pretty_json
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleManifest, RepositoryManifest
from modhub.manifest.card import CARD_NAME, card
from modhub.refs import RepositoryId, is_text, tag_of
from modhub.reporter import SILENT, Reporter
from modhub.store.model import MAIN, Add, Change, Delete, FileEntry
from modhub.store.paths import check_path, check_ref_name
from modhub.store.tree import check_names

__all__ = ["Push", "push", "unyank", "yank"]

# They belong to the hub or to all releases, not to one.
_KEPT = (YANKED_NAME, ".gitattributes")
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What a push did: `sent` counts bytes of changed files, `existed` says the release was there."""

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
    reporter: Reporter = SILENT,
) -> Push:
    """Make the artifact in `directory` the release `version`: one commit on main and the tag `v<version>`.

    Pushing the same bytes again changes nothing, but brings back what the hub says it has lost of them.
    Raises `ConflictError` when the release exists with other files, `RefError` for a version that no tag can
    spell (an epoch, `1!2.0`), `ManifestError` or `IntegrityError` when the artifact is not whole; the hub is
    not touched then.
    """
    tag = check_ref_name(tag_of(version), "tag")
    catalog.files.require(f"The hub '{catalog.hub.address}'")
    contents = artifact_contents(catalog, Path(directory), repository)
    try:
        catalog.hub.refs(repository)
    except NotFoundError:
        catalog.hub.create_repository(repository, private=private, exist_ok=True)
    with reporter.step(f"push {repository} {version}", sum(map(_size, contents.values()))):
        sent = 0
        for _ in range(_ATTEMPTS):
            existing = _existing_release(catalog, repository, version, contents)
            commit = head = existing.commit if existing else catalog.hub.commit_of(repository, MAIN)
            tree = catalog.hub.tree(repository, head)
            lost = _lost(tree, catalog.hub.lost(repository, head), contents)
            if lost:
                catalog.hub.restore(repository, lost, reporter=reporter)
                sent += sum(one.size for one in lost)
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
            return Push(
                repository=repository,
                release=existing or Release(version, commit),
                files=len(contents),
                sent=sent,
                existed=existing is not None,
            )
    raise ConflictError(
        f"'{repository}' kept changing while release {version} was pushed.", hint="Push again later."
    )


def yank(catalog: Catalog, repository: RepositoryId, version: Version, reason: str) -> Release:
    """Take a release back: it stays for whoever pins it, and nobody else gets it.

    Raises `NotFoundError`, and `RefError` for a reason that is not one line of text.
    """
    if not is_text(reason):
        raise RefError(f"The reason {reason!a} is not one line of text.", hint="Write it in one line.")
    return _change_yanked(catalog, repository, version, reason or "no reason given")


def unyank(catalog: Catalog, repository: RepositoryId, version: Version) -> Release:
    """Undo `yank`. Nothing happens when the release stands."""
    return _change_yanked(catalog, repository, version, None)


def _change_yanked(
    catalog: Catalog, repository: RepositoryId, version: Version, reason: str | None
) -> Release:
    catalog.files.require(f"The hub '{catalog.hub.address}'")
    for _ in range(_ATTEMPTS):
        releases = {release.version: release for release in catalog.releases(repository)}
        if version not in releases:
            known = ", ".join(str(one) for one in releases) or "none"
            raise NotFoundError(
                f"'{repository}' has no release {version}.", hint=f"Releases: {known}.", missing="revision"
            )
        # As the release is written: 1.0 is 1.0.0.
        release = replace(releases[version], yanked=reason)
        if release == releases[version]:
            return release
        head = catalog.hub.commit_of(repository, MAIN)
        reasons: dict[Version, str] = {}
        if YANKED_NAME in catalog.hub.tree(repository, head):
            content = catalog.hub.read(repository, head, YANKED_NAME, limit=1 << 20)
            reasons = read_yanked(content, f"{YANKED_NAME} of '{repository}'")
        reasons.pop(version, None)
        if reason is not None:
            reasons[version] = reason
        document = {str(one): reasons[one] for one in sorted(reasons)}
        title = f"Take back release {version}" if reason is not None else f"Restore release {version}"
        try:
            catalog.hub.commit(repository, [Add(YANKED_NAME, pretty_json(document))], title, parent=head)
        except StaleParentError:
            continue
        return release
    raise ConflictError(f"'{repository}' kept changing.", hint="Try again later.")


def artifact_contents(catalog: Catalog, directory: Path, repository: RepositoryId) -> dict[str, bytes | Path]:
    """What a release of the artifact in `directory` consists of, every digest verified.

    The card is made anew with the repository's name in its commands, unless somebody edited it. Hidden files
    stay behind. Raises `StorageError` for links, and `IntegrityError` when a manifest names what is not sent
    or when the manifests contradict one another.
    """
    place = directory / MANIFEST_NAME
    if not place.is_file():
        raise ManifestError(
            f"'{directory}' holds no {MANIFEST_NAME}.", hint="Name a directory written by 'modhub decompose'."
        )
    manifest = RepositoryManifest.from_bytes(place.read_bytes(), f"'{place}'")
    contents: dict[str, bytes | Path] = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if any(part.startswith(".") for part in relative.parts):
            continue
        # A link first: one to a folder counts as a folder, and nothing below it would be sent.
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise StorageError(f"'{path}' is not a plain file.", hint="Remove it or replace it by a copy.")
        contents[check_path(relative.as_posix())] = path
    contents.pop(YANKED_NAME, None)
    modules, named = [], []
    for entry in manifest.modules:
        _verify(directory, entry.manifest)
        _verify(directory, entry.tensors)
        path = confined(directory, entry.manifest.path)
        modules.append(ModuleManifest.from_bytes(path.read_bytes(), f"'{path}'"))
        named += [entry.manifest, entry.tensors, modules[-1].tensors]
    for trunk in {
        manifest.trunk_of(entry).sha256: manifest.trunk_of(entry) for entry in manifest.modules
    }.values():
        if trunk.repository is None:
            for info in trunk.files:
                _verify(directory, info)
            named += trunk.files
        else:
            source, commit = catalog.trunk_source(repository, MAIN, trunk)
            tree = catalog.hub.tree(source, commit)
            for info in trunk.files:
                if info.path not in tree or tree[info.path].size != info.size:
                    raise NotFoundError(
                        f"The trunk's file '{info.path}' is not in '{source}' at {commit[:12]}.",
                        hint="Push the trunk's repository first.",
                        missing="file",
                    )
    plain = card(manifest, modules).encode()
    written = contents.get(CARD_NAME)
    if not isinstance(written, Path) or written.read_bytes() == plain:
        contents[CARD_NAME] = card(manifest, modules, repository=str(repository)).encode()
    check_names(contents)
    for info in named:
        # As a file: a card made anew is not the one that a manifest may have named.
        if not isinstance(contents.get(info.path), Path):
            raise IntegrityError(
                f"'{info.path}', which a manifest in '{directory}' names, is not a file that is sent.",
                hint="Hidden files and yanked.json stay behind: give it another name.",
            )
    for entry, module in zip(manifest.modules, modules, strict=True):
        manifest.check(entry, module)
    return contents


def _verify(directory: Path, info: FileInfo) -> None:
    path = confined(directory, info.path)
    info.check(path, f"'{path}'", hint="Build the artifact again with: modhub decompose")


def _existing_release(
    catalog: Catalog, repository: RepositoryId, version: Version, contents: Mapping[str, bytes | Path]
) -> Release | None:
    """The release if it is there with these very files. Raises `ConflictError` when it has others."""
    releases = catalog.releases(repository)
    for release in releases:
        if release.version != version:
            continue
        tree = catalog.hub.tree(repository, release.commit)
        if not _changes(tree, contents):
            return release
        newest = max((one.version for one in releases if one.version), default=version)
        following = f"{newest.major}.{newest.minor}.{newest.micro + 1}"
        raise ConflictError(
            f"Release {version} of '{repository}' exists with other files.",
            hint=f"Releases never change; push the next version: --version {following}",
        )
    return None


def _changes(tree: Mapping[str, FileEntry], contents: Mapping[str, bytes | Path]) -> list[Change]:
    """What makes a commit with `tree` hold just `contents`."""
    changes: list[Change] = [Delete(path) for path in tree if path not in contents and path not in _KEPT]
    for path, content in contents.items():
        if path not in tree or not tree[path].matches(content):
            changes.append(Add(path, content))
    return changes


def _lost(
    tree: Mapping[str, FileEntry], lost: Collection[str], contents: Mapping[str, bytes | Path]
) -> list[Add]:
    """What brings contents back that a commit with `tree` names and its hub has `lost`."""
    return [
        Add(path, content)
        for path, content in contents.items()
        if path in lost and path in tree and tree[path].matches(content)
    ]


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)
