"""What a release of an artifact consists of: the files of its directory, checked before any is sent."""

from __future__ import annotations

from pathlib import Path

from modhub.catalog.catalog import Catalog
from modhub.catalog.releases import YANKED_NAME
from modhub.errors import IntegrityError, ManifestError, NotFoundError, StorageError
from modhub.files import confined
from modhub.manifest import MANIFEST_NAME, FileInfo, ModuleManifest, RepositoryManifest
from modhub.manifest.card import CARD_NAME, card
from modhub.refs import RepositoryId
from modhub.store.model import MAIN
from modhub.store.paths import check_path
from modhub.store.tree import check_names


def artifact_contents(catalog: Catalog, directory: Path, repository: RepositoryId) -> dict[str, bytes | Path]:
    """What a release of the artifact in `directory` consists of, every digest verified.

    The card is written again with the repository's name in its commands, unless it was edited. Hidden files
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
        # As a file: a card written again is not the one that a manifest may have named.
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
